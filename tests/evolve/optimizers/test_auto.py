"""Which optimizer a search gets that names none, and what is said of it."""

from __future__ import annotations

import pytest

from evolve.optimizers import SearchProblem, create_optimizer
from evolve.optimizers.auto import choose


def problem(numbers=0, steps=(), choices=(), **extra):
    genes = numbers + len(steps) + len(choices)
    return SearchProblem(
        start=(0.3,) * genes,
        sigmas=(0.2,) * genes,
        choice_counts=(0,) * (numbers + len(steps)) + choices,
        step_counts=(0,) * numbers + steps + (0,) * len(choices),
        seed=1,
        **extra,
    )


@pytest.mark.parametrize(
    ("made", "name", "reason"),
    [
        (problem(24, evaluations=100), "gp", "24 numbers, 100 candidates"),
        (problem(24, evaluations=300), "cma", "24 numbers, 300 candidates"),
        (problem(1), "cma", "1 number, no bound on candidates"),
        (problem(8, (5, 5), (4,)), "cat_cma", "8 numbers, 2 of steps, 1 choice, no bound on candidates"),
        (problem(0, (), (9, 9), evaluations=50), "gp", "2 choices, 50 candidates"),
        (problem(0, (), (3, 3), evaluations=50), "grid", "2 choices: all 9 combinations can be tried"),
        (problem(0, (6,), (3,)), "grid", "1 of steps, 1 choice: all 18 combinations can be tried"),
        (
            problem(6, (), (2,), evaluations=50, inactive=lambda vector: frozenset()),
            "gp",
            "6 numbers, 1 choice, 50 candidates",
        ),
        (problem(12, evaluations=100, objectives=2), "tpe", "2 objectives, 100 candidates"),
        (problem(12, objectives=4), "nsga2", "4 objectives, no bound on candidates"),
    ],
)
def test_kinds_budget_and_objectives_decide(made, name, reason):
    assert (choose(made).name, choose(made).reason) == (name, reason)
    assert create_optimizer("auto", made).label == f"{name} (auto: {reason})"


def test_it_asks_what_the_chosen_one_asks():
    made = problem(3, evaluations=1000)
    one, other = create_optimizer("auto", made), create_optimizer("cma", made)
    for _ in range(3):
        vectors = one.ask()
        assert vectors == other.ask()
        for optimizer in (one, other):
            optimizer.tell(vectors, [sum(vector) for vector in vectors])
