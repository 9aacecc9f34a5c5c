"""What ends the process that scores it is a failure in the end, and everything else is scored as ever."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from warm_program import WARM

from evolve.evaluation import scored_apart
from evolve.evaluation.request import Request
from evolve.evaluation.scored_apart import FAILURE, ScoredApart
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation


class Died(BaseException):
    """The end of a process, as far as the journal can tell."""


class FakeEvaluator:
    """Ends with recipes that say so."""

    workers = 1

    def evaluate(self, requests):
        for request in requests:
            if request.recipe.get("deadly"):
                raise Died
            yield Evaluation(request.number)


def request(number, **recipe):
    return Request(number, {"number": number, **recipe}, {"task": (1,)})


def answer(settings, asked):
    if asked.recipe.get("deadly") == "exit":
        os._exit(0)
    if asked.recipe.get("deadly") == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if asked.recipe.get("deadly") == "hangup":
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):  # of its terminal, and meant for the search
            os.kill(os.getpid(), number)
    return Evaluation(asked.number, layers=7)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """``begin(*requests)``: a run that goes on with these, as a list of answers; its processes are forked."""
    apart = scored_apart.scored_apart
    monkeypatch.setattr(scored_apart, "get_context", lambda _: WARM)
    monkeypatch.setattr(scored_apart, "scored_apart", lambda settings, asked: apart(settings, asked, answer))

    def run(*requests):
        journal = Journal.open(str(tmp_path / "journal.log"), create=True)
        return list(ScoredApart(FakeEvaluator(), SimpleNamespace(), journal).evaluate(requests))

    return run


@pytest.mark.parametrize(("how", "context"), [("exit", WARM), ("crash", get_context("spawn"))])
def test_after_two_ends_the_third_run_goes_on(begin, how, context, monkeypatch):
    monkeypatch.setattr(scored_apart, "get_context", lambda _: context)
    requests = request(1), request(2, deadly=how), request(3)
    for first in (0, 1):
        with pytest.raises(Died):
            begin(*requests[first:])
    failed, after = begin(*requests[1:])
    assert (failed.number, failed.failure) == (2, FAILURE)
    assert (after.number, after.failure) == (3, None)


def test_what_was_only_there_when_the_process_was_killed_gets_its_answer(begin):
    killed = request(1, deadly="from outside")
    for _ in range(2):
        with pytest.raises(Died):
            begin(killed)
    (found,) = begin(killed)
    assert found == Evaluation(1, layers=7)


def test_ends_at_different_requests_are_none_in_a_row(begin):
    for number in (1, 2, 1, 2):
        with pytest.raises(Died):
            begin(request(number, deadly="exit"))


def test_what_is_asked_again_and_again_ended_nothing(begin, monkeypatch):
    monkeypatch.setattr(scored_apart, "scored_apart", Mock(side_effect=AssertionError))
    assert [found.failure for found in begin(*[request(1)] * 4)] == [None] * 4


def test_a_terminal_that_hangs_up_is_no_failure_of_what_is_scored(begin):
    for _ in range(2):
        with pytest.raises(Died):
            begin(request(1, deadly="hangup"))
    (answered,) = begin(request(1, deadly="hangup"))
    assert (answered.failure, answered.layers) == (None, 7)
