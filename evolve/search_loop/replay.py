"""Looks and gradient steps, which are computed once: on resume the journal answers for them, if asked the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from statistics import fmean
from typing import Any, TypeVar

from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.search_loop.ledger import identity
from evolve.trials.events import StopReason
from evolve.trials.journal import Journal
from evolve.trials.journal_lines import JournalError
from evolve.trials.stage import Stage
from evolve.trials.step import FORWARD_AND_BACKWARD, Step
from evolve.trials.trial import Evaluation

Asked = TypeVar("Asked")


@dataclass
class Replay:
    """Numbers what it is asked in the order of asking, which must be the same each time.

    Attributes:
        journal: where answers are kept.
        evaluator: answers what the journal does not.
        interrupted: why nothing new may be begun, if so.
        affords: whether so many item evaluations may be spent; what does not fit is not begun at all.
        retries: whether looks that failed are made again, since nothing rests on them.
    """

    journal: Journal
    evaluator: Evaluator
    interrupted: Callable[[], StopReason | None]
    affords: Callable[[int], bool]
    retries: bool = False
    replayed: bool = False  # what was asked last, by the journal alone
    _looks_asked: int = 0
    _steps_asked: int = 0
    _looks: dict[int, Evaluation] = field(init=False)
    _steps: dict[int, Step] = field(init=False)

    def __post_init__(self) -> None:
        self._looks = self.journal.kept(Stage.LOOK)
        self._steps = self.journal.steps()
        if self.retries and not self._steps:
            self._looks = {number: look for number, look in self._looks.items() if look.failure is None}

    @property
    def looks(self) -> Iterable[Evaluation]:
        """All that were ever made."""
        return self._looks.values()

    @property
    def steps(self) -> Iterable[Step]:
        """All that were ever made."""
        return self._steps.values()

    def look(
        self, recipes: Mapping[str, Mapping[str, Any]], items: Mapping[str, tuple[int, ...]], *, keeps_answers: bool
    ) -> list[Evaluation] | StopReason:
        """Score recipes, each with a label, on some items.

        Raises:
            JournalError: the journal's answers are to other questions.
        """
        numbers = range(self._looks_asked, self._looks_asked + len(recipes))
        self._refuse_other_questions("look", numbers, self._looks, [_question(one, items) for one in recipes.values()])
        count = sum(map(len, items.values()))
        requests = [
            Request(number, recipe, items, keeps_answers, label=f"{label} on {count} items")
            for number, (label, recipe) in zip(numbers, recipes.items(), strict=True)
            if number not in self._looks
        ]
        self.replayed = not requests
        if requests and not self.affords(sum(map(_item_count, requests))):
            return StopReason.ITEMS
        for evaluation in self.evaluator.evaluate(self._while_allowed(requests)):
            self.journal.keep(Stage.LOOK, evaluation)
            self._looks[evaluation.number] = evaluation
        if reason := self._missing(numbers, self._looks):
            return reason
        self._looks_asked += len(recipes)
        return [self._looks[number] for number in numbers]

    def differentiate(
        self, requests: Sequence[GradientRequest], pull_back: Callable[[int, Slopes], Sequence[float]]
    ) -> list[Step] | StopReason:
        """Make steps.

        Args:
            requests: in any numbering; they are numbered here.
            pull_back: the place of a request and the slopes found there -> the gradient by all genes.

        Raises:
            JournalError: the journal's answers are to other questions.
        """
        first = self._steps_asked
        numbers = range(first, first + len(requests))
        self._refuse_other_questions(
            "step", numbers, self._steps, [_question(request.recipe, request.items) for request in requests]
        )
        numbered = [
            GradientRequest(**{**vars(request), "number": number})
            for number, request in zip(numbers, requests, strict=True)
            if number not in self._steps
        ]
        self.replayed = not numbered
        if numbered and not self.affords(FORWARD_AND_BACKWARD * sum(map(_item_count, numbered))):
            return StopReason.ITEMS
        for slopes in self.evaluator.differentiate(self._while_allowed(numbered)):
            place = slopes.number - first
            gradient = () if slopes.failure else tuple(pull_back(place, slopes))
            if not all(map(math.isfinite, gradient)):
                slopes, gradient = replace(slopes, failure="the gradient is not finite"), ()
            step = _step(slopes, gradient, requests[place])
            self.journal.keep_step(step)
            self._steps[step.number] = step
        if reason := self._missing(numbers, self._steps):
            return reason
        self._steps_asked += len(requests)
        return [self._steps[number] for number in numbers]

    def _refuse_other_questions(
        self, what: str, numbers: range, answered: Mapping[int, object], questions: list[str]
    ) -> None:
        """Answers belong to exactly what was asked; another version may ask something else in the same place."""
        key = f"asked:{what}:{numbers.start}"
        if self.journal.noted(key) == questions:
            return
        if any(number in answered for number in numbers):
            raise JournalError(
                f"{self.journal.location}: {what} {numbers.start} of the gradient start was asked for by another "
                "version of evolve; go on with the versions in run.json, or start anew with another output"
            )
        self.journal.note(key, questions)

    def _while_allowed(self, requests: Iterable[Asked]) -> Iterator[Asked]:
        return takewhile(lambda _: self.interrupted() is None, requests)

    def _missing(self, numbers: range, answered: Mapping[int, object]) -> StopReason | None:
        return None if all(number in answered for number in numbers) else self.interrupted()


def _question(recipe: Mapping[str, Any], items: Mapping[str, Sequence[int]]) -> str:
    return identity({"recipe": recipe, "items": items}).hex()


def _item_count(request: Request | GradientRequest) -> int:
    return sum(map(len, request.items.values()))


def _step(slopes: Slopes, gradient: Sequence[float], request: GradientRequest) -> Step:
    return Step(
        number=slopes.number,
        gradient=tuple(gradient),
        probabilities={name: fmean(found.values()) for name, found in slopes.probabilities.items()},
        items=_item_count(request),
        failure=slopes.failure,
        seconds=slopes.seconds,
        way=request.label,
    )
