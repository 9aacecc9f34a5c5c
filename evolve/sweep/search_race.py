"""Whether searches can be raced, and who of them is settled to be beaten: by their best, over all seeds together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.config.sweep import SEED, Variant
from evolve.preflight.prepare import Prepared
from evolve.scoring import Objective
from evolve.search_loop.expected_spending import items_of_one
from evolve.sweep.settled import settled_to_be_beaten
from evolve.trials.trial import ItemScores

# What scores of two searches must have in common to be compared item by item.
_IN_COMMON = ("tasks", "items", "objective")


def replicates(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Variants that differ by their seed alone, together."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        rest = {key: value for key, value in variant.settings.items() if key != SEED}
        found.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(variant)
    return found


def obstacle_to_races(variants: Sequence[Variant], searches: Mapping[str, Prepared]) -> str | None:
    """Why these searches are not compared before their end; None where they are.

    Args:
        variants: of the sweep.
        searches: name of a variant → its search.
    """
    configs = [search.config for search in searches.values()]
    budgets = {json.dumps(config.budget.model_dump(mode="json"), sort_keys=True) for config in configs}
    if len(budgets) > 1:
        return "their budgets differ"
    if item_budget(searches) is None:
        return "their budget bounds neither items nor evaluations"
    for key in _IN_COMMON:
        if len({_dumped(config.model_dump(mode="json")[key]) for config in configs}) > 1:
            return f"{key} differ, so that their scores cannot be compared"
    if any(
        config.constraints or config.objectives or config.cost_weights or config.normalize == "parents"
        for config in configs
    ):
        return "they are judged by more than their tasks' scores, of which alone there are differences item by item"
    seeds = {frozenset(searches[one.name].config.seed for one in group) for group in replicates(variants).values()}
    return "not all have the same seeds" if len(seeds) > 1 else None


def item_budget(searches: Mapping[str, Prepared]) -> int | None:
    """Item evaluations of each search; None where they are not bounded."""
    search = next(iter(searches.values()))
    budget = search.config.budget
    bounds = [budget.items] if budget.items is not None else []
    bounds += [budget.evaluations * items_of_one(search)] if budget.evaluations is not None else []
    return min(bounds, default=None)


def beaten_searches(
    standing: Sequence[Variant],
    best: Mapping[str, ItemScores],
    searches: Mapping[str, Prepared],
    objective: Objective,
    of_all: int,
) -> list[Variant]:
    """Those that are not worth going on with: all seeds of them, or none.

    Args:
        standing: who goes on until now.
        best: name of a variant → contributions of the best that it has found, on its search items.
        searches: name of a variant → its search.
        objective: what the tasks' scores become.
        of_all: how many there were at the start, those of several seeds counted once.
    """
    seeds = sorted({searches[variant.name].config.seed for variant in standing})
    groups = {name: group for name, group in replicates(standing).items() if all(best.get(one.name) for one in group)}
    pooled: dict[str, dict[str, dict[int, float]]] = {}
    for name, group in groups.items():
        tasks = pooled.setdefault(name, {})
        for variant in group:
            place = seeds.index(searches[variant.name].config.seed)
            for task, values in best[variant.name].items():
                # An item is another one under another seed: not the same candidates were scored on it.
                own = {item * len(seeds) + place: value for item, value in values.items()}
                tasks.setdefault(task, {}).update(own)
    objectives = {
        name: objective.value({task: sum(own.values()) / len(own) for task, own in tasks.items()})
        for name, tasks in pooled.items()
    }
    beaten = settled_to_be_beaten(pooled, objectives, objective, of_all=of_all, seed=seeds[0])
    return [variant for name in beaten for variant in groups[name]]


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
