"""Engines that lose weights on reload, as some versions of vLLM do, are found out, restarted once, then given up."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest

from evolve.evaluation.engine_watch import EngineWatch
from evolve.evaluation.unavailable import UnsoundEngineError, WorkersUnavailableError
from evolve.scoring import AnswerRecorder, ScoringError
from evolve.scoring.backends.engine_check import MOST_RELOADS
from evolve.scoring.language_model import PreparedContinuation


class Engine:
    """Says of every token what was loaded; `garbles(reloads)` is by how much it is wrong."""

    repeat_tolerance = 0.01

    def __init__(self, garbles=lambda reloads: 0.0):
        self.garbles, self.reloads, self.value = garbles, -1, 0.0

    def load(self, recipe):
        self.reloads += 1
        self.value = recipe["value"] + self.garbles(self.reloads)

    def prepare_continuation(self, context, continuation):
        return PreparedContinuation((0,), tuple(range(len(continuation))))

    def loglikelihood(self, requests):
        if math.isnan(self.value):
            raise ScoringError("the model's logits are not finite")
        return [(-self.value * len(request.continuation), False) for request in requests]


class Worker:
    """What a `Worker` does around its watch.

    Attributes:
        loaded: every recipe that was written, in order.
        starts: engines that were started.
    """

    def __init__(self, *garbles):
        self.garbles = list(garbles)
        self.engine, self.loaded, self.starts = None, [], 0
        self.watch = EngineWatch(self.load, self.end)

    def load(self, recipe):
        if self.engine is None:
            self.engine, self.starts = Engine(self.garbles[min(self.starts, len(self.garbles) - 1)]), self.starts + 1
        self.engine.load(recipe)
        self.loaded.append(recipe["value"])
        self.watch.reloaded()
        return self.engine

    def end(self):
        self.engine = None
        self.watch.forget()

    def score(self, number):
        found = self.watch.ensure_sound()
        engine = self.load({"value": float(number)})
        recorder = AnswerRecorder(engine)
        recorder.loglikelihood([PreparedContinuation((1, 2), (3,))])
        self.watch.scored(number, {"value": float(number)}, [recorder], engine)
        return found


def sound(reloads):
    return 0.0


def test_a_sound_engine_is_asked_ever_more_rarely_and_never_restarted():
    worker = Worker(sound)
    assert [worker.score(number) for number in range(1, 400)] == [None] * 399
    checks = [place for place, value in enumerate(worker.loaded) if value == 1.0][1:]
    assert worker.loaded[1:3] == [2.0, 1.0]  # the second candidate is followed by the first, again
    distances = [b - a for a, b in itertools.pairwise(checks)]
    assert distances == sorted(distances)
    assert set(distances[-3:]) == {MOST_RELOADS + 1}  # with the check's own
    assert worker.starts == 1


def test_an_engine_that_a_restart_mends_goes_on_once_and_says_which_trials_to_doubt():
    worker = Worker(lambda reloads: 0.5 if reloads >= 4 else 0.0, sound)
    said = {number: found for number in range(1, 200) if (found := worker.score(number)) is not None}
    ((number, text),) = said.items()
    assert worker.starts == 2
    assert "0.5 nats a token" in text
    # Found sound after the second candidate; all that came after it until the restart are doubtful.
    assert text.endswith("trials " + ", ".join(map(str, range(3, number))))


def test_the_second_time_is_the_end():
    worker = Worker(lambda reloads: 0.5 * (reloads >= 4))
    said = []
    with pytest.raises(UnsoundEngineError, match="also after its engine was started anew"):
        said += [worker.score(number) for number in range(1, 200)]
    assert worker.starts == 2


def test_an_engine_that_is_wrong_again_at_once_ends_at_once():
    worker = Worker(lambda reloads: 1.0 * (reloads == 2), lambda reloads: 2.0)
    worker.score(1), worker.score(2)
    with pytest.raises(WorkersUnavailableError, match="trials 2"):
        worker.score(3)


def test_logits_that_are_not_finite_any_more_are_another_answer():
    worker = Worker(lambda reloads: math.nan if reloads == 2 else 0.0, sound)
    worker.score(1), worker.score(2)
    assert "inf nats" in worker.score(3)


def test_what_rounding_makes_is_no_other_answer_and_weights_in_place_are_never_asked_again(monkeypatch):
    worker = Worker(lambda reloads: 0.009 * (reloads % 2))
    assert not any(worker.score(number) for number in range(1, 100))
    monkeypatch.setattr(Engine, "repeat_tolerance", None)
    worker = Worker(lambda reloads: float(reloads))
    assert not any(worker.score(number) for number in range(1, 100))
    assert len(worker.loaded) == 99


def test_the_error_comes_from_another_process_as_it_is():
    error = pickle.loads(pickle.dumps(UnsoundEngineError("one line")))
    assert (type(error), str(error)) == (UnsoundEngineError, "one line")
