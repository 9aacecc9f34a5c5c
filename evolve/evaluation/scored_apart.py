"""A candidate that ended the process twice is scored in a process of its own, so that the run goes on.

`os._exit` or a crash in native code ends the process that called it. Started again, the search would ask for the same
candidate, and end again. A process that was killed from outside looks the same afterwards; then the other process gives
the candidate's answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from evolve.evaluation.evaluator import Evaluator, WrappedEvaluator
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.stopping import leave_stopping_to_parent, starting_undisturbed
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation

DEATHS = 2  # in a row, with the same request
FAILURE = "ended the process that scored it, twice, and then one of its own"
_NOTE = "being_scored"

Score = Callable[[WorkerSettings, Request], Evaluation]


class ScoredApart(WrappedEvaluator):
    """An evaluator in this process whose journal says what it is at, in case that this is its end.

    Args:
        evaluator: in this process.
        settings: of its worker.
        journal: keeps which request is being scored, and how often it was begun.
    """

    def __init__(self, evaluator: Evaluator, settings: WorkerSettings, journal: Journal) -> None:
        super().__init__(evaluator)
        self._settings, self._journal = settings, journal
        self._begun: Mapping[str, Any] = journal.noted(_NOTE, {})
        self._deadly = False  # whether the last one that was scored apart ended its process

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """As the evaluator does, but for what ended the process."""
        for request in filter(None, requests):
            times = self._begin(request)
            if self._deadly or times > DEATHS:
                answer = scored_apart(self._settings, request)
                self._deadly = answer is None
                yield answer or Evaluation(request.number, failure=FAILURE)
            else:
                yield from self._evaluator.evaluate([request])
            self._begun = {}  # it was no end; the note is of the next one

    def _begin(self, request: Request) -> int:
        """Write down that it is being scored. Returns how often it was begun without anything else in between."""
        asked = json.dumps([request.recipe, request.items], sort_keys=True)
        key = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
        times = int(self._begun["times"]) + 1 if self._begun.get("request") == key else 1
        self._begun = {"request": key, "times": times}
        self._journal.note(_NOTE, self._begun)
        return times


def scored_apart(settings: WorkerSettings, request: Request, score: Score | None = None) -> Evaluation | None:
    """Score a request in a new process; None where that came to its end without an answer.

    Args:
        settings: of the worker.
        request: what it scores.
        score: does so there; by default a worker.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, settings, request, score or _score))
    with starting_undisturbed():
        process.start()
    sender.close()
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        return None
    finally:
        receiver.close()
        process.kill()
        process.join()


def _score(settings: WorkerSettings, request: Request) -> Evaluation:
    worker = Worker(settings)
    try:
        return worker.evaluate(request)
    finally:
        worker.close()


def _answer(sender: Connection, settings: WorkerSettings, request: Request, score: Score) -> None:
    leave_stopping_to_parent()  # the search, which waits for this candidate
    sender.send(score(settings, request))
