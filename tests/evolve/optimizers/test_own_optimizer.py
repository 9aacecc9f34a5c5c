"""What an optimizer of the user's own does wrong is one line, with the place in its code."""

from __future__ import annotations

import sys

import pytest

from evolve.optimizers import Optimizer, SearchProblem
from evolve.optimizers.own_optimizer import OptimizerFailedError, OwnOptimizer

PROBLEM = SearchProblem(start=(0.5, 0.5), sigmas=(0.1, 0.1), choice_counts=(0, 0), seed=1)


def asking(asked):
    class Asks(Optimizer):
        name = "mine:Asks"

        def __init__(self, problem):
            pass

        def ask(self):
            return asked()

        def tell(self, vectors, fitness):
            raise KeyError("told")

    return OwnOptimizer(Asks, PROBLEM)


def fail():
    raise RuntimeError("boom")


def test_points_are_passed_on_as_plain_numbers():
    assert asking(lambda: [[0, 1.0]]).ask() == [(0.0, 1.0)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (fail, r"mine:Asks: ask failed: RuntimeError: boom \(test_own_optimizer.py:\d+\)"),
        (sys.exit, r"mine:Asks: ask failed: raised SystemExit\(\) \(test_own_optimizer.py:\d+\)"),
        (list, "ask gave no point"),
        (lambda: None, "ask gave no list of points: TypeError"),
        (lambda: [(0.5,)], r"ask gave \(0.5,\), expected 2 numbers from 0 to 1"),
        (lambda: [(0.5, 7.0)], "expected 2 numbers from 0 to 1"),
        (lambda: [(0.5, float("nan"))], "expected 2 numbers from 0 to 1"),
    ],
)
def test_what_is_no_batch_is_refused(asked, said):
    with pytest.raises(OptimizerFailedError, match=said):
        asking(asked).ask()


def test_what_tell_raises_is_told():
    with pytest.raises(OptimizerFailedError, match="tell failed: KeyError"):
        asking(fail).tell([(0.5, 0.5)], [1.0])


def test_a_class_that_cannot_be_made_is_told():
    class Half(Optimizer):
        name = "mine:Half"

    with pytest.raises(OptimizerFailedError, match=r"mine:Half: cannot be made: TypeError.*abstract"):
        OwnOptimizer(Half, PROBLEM)
