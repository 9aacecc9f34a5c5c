"""Which optimizer a search gets that names none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.registry import OPTIMIZERS, register
from evolve.trials.trial import Result

MOST_TRIED = 10_000  # combinations, of a search that nothing bounds
MODEL_EVALUATIONS = 200  # beyond, a fit takes longer than it is worth: its time grows by their cube


@dataclass(frozen=True)
class Choice:
    """An optimizer, and why."""

    name: str
    reason: str


def choose(problem: SearchProblem) -> Choice:
    """The optimizer for a problem, by its kinds and number of genes, its objectives and its budget.

    The rule follows `benchmarks/search/optimizers.py`. Where candidates are few, the Gaussian process is ahead of all
    others for every kind and number of genes tried (4 to 52), and TPE is with several objectives. Where they are many,
    fits take too long, and CMA-ES leads with numbers, CatCMA where there are choices, and NSGA-II draws level with TPE.
    Races make candidates cheap, and only say who is in the better half. Where choices say which genes count, as of
    models that are left out, the process hears of candidates that are the same at one point, and CatCMA does not select
    by what changes nothing (`benchmarks/search/switches.py`).
    """
    kinds = _kinds(problem)
    if _all_can_be_tried(problem):
        return Choice("grid", f"{kinds}: all {math.prod(problem.value_counts)} combinations can be tried")
    if problem.path is not None and problem.objectives == 1:
        return Choice("path", "a path through layers")
    few = problem.evaluations is not None and problem.evaluations <= MODEL_EVALUATIONS and not problem.races
    budget = "no bound on candidates" if problem.evaluations is None else f"{problem.evaluations} candidates"
    if problem.objectives > 1:
        return Choice("tpe" if few else "nsga2", f"{problem.objectives} objectives, {budget}")
    if few:
        return Choice("gp", f"{kinds}, {budget}")
    races = ", races" if problem.races else ""
    return Choice("cat_cma" if any(problem.value_counts) else "cma", f"{kinds}, {budget}{races}")


def _all_can_be_tried(problem: SearchProblem) -> bool:
    """Whether the budget has room for every combination; without a bound, whether they are not too many."""
    most = MOST_TRIED if problem.evaluations is None else problem.evaluations
    return all(problem.value_counts) and math.prod(problem.value_counts) <= most


def _kinds(problem: SearchProblem) -> str:
    """`24 numbers`, or `8 numbers, 2 of steps, 2 choices`."""
    choices = sum(count > 0 for count in problem.choice_counts)
    steps = sum(count > 0 for count in problem.value_counts) - choices
    numbers = len(problem.start) - steps - choices
    named = ((numbers, "number", "numbers"), (steps, "of steps", "of steps"), (choices, "choice", "choices"))
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in named if count)


@register
class Auto(Optimizer):
    """Becomes another optimizer, which `choose` names.

    Example:
        >>> Auto(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(3,), seed=1)).choice.name
        'cat_cma'
    """

    name = "auto"
    description = "one of the others, chosen by the kinds and number of genes, the objectives and the budget"
    default_population = "that of the chosen optimizer"
    several_objectives = True
    unordered_choices = True
    selects_half = True  # where it must

    def __init__(self, problem: SearchProblem) -> None:
        self.choice = choose(problem)
        self._optimizer = OPTIMIZERS[self.choice.name](replace(problem, options={}))
        self.exhausts = self._optimizer.exhausts

    @property
    def label(self) -> str:
        """The one chosen, and why."""
        return f"{self._optimizer.label} (auto: {self.choice.reason})"

    def ask(self) -> list[tuple[float, ...]]:
        """As the one chosen."""
        return self._optimizer.ask()

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """As the one chosen."""
        self._optimizer.tell(vectors, results)
