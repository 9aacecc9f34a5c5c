"""What an optimizer starts with: the best of what is scored before it is asked, and what is known of the space."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.config.strategy import BudgetConfig
from evolve.optimizers import Optimizer, SearchProblem, create_optimizer
from evolve.preflight.prepare import Prepared
from evolve.problems import placed
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.search_loop.references import known_points, reference_points, weights_of
from evolve.space.genes import RangeGene
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.space import ConditionalSpace, Space
from evolve.trials.trial import Trial, best_of


def candidates_within(budget: BudgetConfig, items_of_one: int, spent: int) -> int | None:
    """How many candidates a budget pays for; None where it bounds neither them nor items.

    Args:
        budget: of the search.
        items_of_one: item evaluations that a candidate takes.
        spent: item evaluations already.
    """
    bounds = [budget.evaluations] if budget.evaluations is not None else []
    bounds += [max(budget.items - spent, 0) // items_of_one] if budget.items is not None else []
    return min(bounds, default=None)


def start_point(prepared: Prepared, scored: Sequence[Trial]) -> list[float]:
    """Where an optimizer begins: at the best of what is scored, as far as the genes can express it; or at random.

    Of equals at a candidate: there a gradient raised what the metric does not show. A written `init` stays where a
    reference is best.
    """
    config, space = prepared.config, prepared.space
    if config.starts_at_random and config.recipe is not None:
        generator = random.Random(config.seed)
        return [generator.random() for _ in space.coordinates]
    best, candidate = best_of(list(scored)), best_of([trial for trial in scored if trial.vector is not None])
    if candidate is not None and best is not None and candidate.objective == best.objective:
        return list(candidate.vector or ())
    point = reference_points(space, prepared.template, [best]).get(best.number) if best is not None else None
    if point is not None and all(axis.gene.init is None for axis in space.coordinates):
        return list(point)
    return space.start(weights_of(best, space) if best is not None else None)


def make_optimizer(
    prepared: Prepared,
    scored: Sequence[Trial],
    sigmas: Mapping[int, float] | None = None,
    candidates: int | None = None,
) -> Optimizer:
    """Start from the best of what is scored, as far as the genes can express it.

    Args:
        prepared: the search.
        scored: references, and candidates that no optimizer asked for.
        sigmas: number of a gene -> its first standard deviation, of those that are known better than the file knows.
        candidates: how many will be asked for, if that is bounded.

    Raises:
        ConfigError: an option that the optimizer does not take.
    """
    config, space = prepared.config, prepared.space
    start = start_point(prepared, scored)
    genes = [axis.gene for axis in space.coordinates]
    problem = SearchProblem(
        start=tuple(start),
        sigmas=tuple(
            (sigmas or {}).get(number, _unit_sigma(gene, config.optimizer.sigma)) for number, gene in enumerate(genes)
        ),
        choice_counts=tuple(len(getattr(gene, "choices", ())) for gene in genes),
        step_counts=tuple(gene.step_count if isinstance(gene, RangeGene) else 0 for gene in genes),
        seed=config.seed,
        population_size=config.optimizer.population_size,
        known=known_points(space, prepared.template, scored),
        options=dict(config.optimizer.options),
        objectives=len(config.objectives) or 1,
        constrained=bool(config.constraints),
        evaluations=candidates,
        races=config.racing is not None,
        steady_state=config.optimizer.mode == "steady_state",
        **_structure(space),
    )
    search_paths = SearchPaths(prepared.directory, tuple(map(Path, prepared.task_search_path)))
    with placed("optimizer"):
        return create_optimizer(config.optimizer.name, problem, search_paths)


def _structure(space: Space) -> dict[str, Any]:
    """What an optimizer is told of how genes hang together."""
    told: dict[str, Any] = {}
    if isinstance(space, LayerPathSpace | MergedPathSpace):
        told |= {"path": space, "canonical": space.canonical}
    if isinstance(space, ConditionalSpace) and space.is_conditional:
        told |= {"inactive": space.inactive, "canonical": space.canonical}
    return told


def _unit_sigma(gene: Any, default: float) -> float:
    sigma = getattr(gene, "sigma", None)
    return default if sigma is None else float(sigma / (gene.high - gene.low))
