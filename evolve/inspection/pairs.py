"""What models score, and what is left of two of them in their plain average: measured, since weights hardly tell it.

On the beds of `benchmarks/`, the rank correlation of what is left at half of each with what the best of three sizes
leaves is 0.97 and more, of the alignment of gradients there 0.89 and more, of cosines of task vectors 0.4 to 0.7.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import GradientRequest, Request
from evolve.scoring import Scorer, oriented

SHARE = 0.5  # of each of two models' task vectors
LOG_LIKELIHOOD = 0.0  # the exponent of the loss that is differentiated


@dataclass(frozen=True)
class PairLoss:
    """What two models lose of what each is best at.

    Attributes:
        models: the two.
        lost: mean over their own tasks of the pair's score minus that of whoever is the better there; below 0 is a
            loss, in the tasks' own units. None where the pair could not be scored.
        alignment: of the gradient of either's task with the other's task vector, at half of each: by how many nats the
            right answers become more probable, for each unit that the other's weight is raised. None where no gradient
            can be taken.
        failure: why it was not scored.
    """

    models: tuple[str, str]
    lost: float | None
    alignment: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class TaskFindings:
    """What was measured.

    Attributes:
        items: task → how many items.
        scores: model → task → score; of a model that could not be scored, none.
        own_tasks: model → the task at which it gains most on the base, or is best where there is no base.
        pairs: of the models that are not the base.
        failures: model → why it could not be scored.
    """

    items: Mapping[str, int]
    scores: Mapping[str, Mapping[str, float]]
    own_tasks: Mapping[str, str]
    pairs: Sequence[PairLoss]
    failures: Mapping[str, str] = field(default_factory=dict)


def measure(
    evaluator: Evaluator,
    scorers: Sequence[Scorer],
    items: Mapping[str, tuple[int, ...]],
    base: str | None,
    models: Sequence[str],
    on_progress: Callable[[str], None],
    *,
    follows_gradients: bool = False,
) -> TaskFindings:
    """Score every model, then every two of them averaged.

    Args:
        evaluator: merges and scores.
        scorers: the tasks.
        items: task → ids.
        base: of the task vectors; None: models are averaged.
        models: the others.
        on_progress: is told how it goes.
        follows_gradients: whether the averages can be differentiated.
    """
    by_name = {scorer.name: scorer for scorer in scorers}
    scores: dict[str, dict[str, float]] = {}
    failures: dict[str, str] = {}
    for number, model in enumerate(every := [*([base] if base is not None else []), *models], start=1):
        alone = {"merge_method": "passthrough", "models": [{"model": model}]}
        (found,) = evaluator.evaluate([Request(number, alone, items)])
        if found.failure is not None:
            failures[model] = found.failure
        else:
            scores[model] = {name: by_name[name].aggregate(found.scores[name]).value for name in items}
        on_progress(f"[{number}/{len(every)}] {model}: {found.failure or _line(scores[model])}")
    able = [model for model in models if model in scores]
    own = {model: _own_task(scores[model], scores.get(base or "", {}), by_name) for model in able}
    pairs = []
    undifferentiated = set[str]() if follows_gradients and base is not None else set(items)
    for number, (one, other) in enumerate(two := list(itertools.combinations(able, 2)), start=1):
        tasks = list(dict.fromkeys((own[one], own[other])))
        average = _average(base, one, other)
        (found,) = evaluator.evaluate([Request(number, average, {t: items[t] for t in tasks})])
        if found.failure is not None:
            pairs.append(PairLoss((one, other), None, failure=found.failure))
            continue
        lost = []
        for task in tasks:
            direction = by_name[task].direction
            alone_best = max(oriented(scores[model][task], direction) for model in (one, other))
            lost.append(oriented(by_name[task].aggregate(found.scores[task]).value, direction) - alone_best)
        aligned = None
        if undifferentiated.isdisjoint(tasks):
            slopes = {task: weight_slopes(evaluator, average, task, items[task]) for task in tasks}
            undifferentiated |= {task for task, rises in slopes.items() if rises is None}
            aligned = alignment(slopes[own[one]], slopes[own[other]])
        pairs.append(PairLoss((one, other), statistics.fmean(lost), aligned))
        on_progress(f"[{number}/{len(two)}] {one} and {other}: {pairs[-1].lost:+.3f}")
    return TaskFindings({name: len(ids) for name, ids in items.items()}, scores, own, pairs, failures)


def weight_slopes(
    evaluator: Evaluator, average: Mapping[str, Any], task: str, items: tuple[int, ...]
) -> tuple[float, ...] | None:
    """How the log-likelihood of right answers to a task rises with the weight of each model of an average.

    Returns:
        In nats per unit, in the order of the models; None where there is no gradient.
    """
    (found,) = evaluator.differentiate([GradientRequest(0, average, {task: items}, {task: 1.0}, LOG_LIKELIHOOD)])
    rises: dict[int, float] = {}
    for (_, slot), slope in found.slopes.items():
        if slot.name == "weight" and slot.position is not None:
            rises[slot.position] = rises.get(slot.position, 0.0) - slope
    return tuple(rises[position] for position in sorted(rises)) or None


def alignment(one: Sequence[float] | None, other: Sequence[float] | None) -> float | None:
    """Of two models' gradients, by the slopes of their tasks: what the second does for the first's, and the reverse."""
    return None if one is None or other is None else (one[1] + other[0]) / 2


def _average(base: str | None, one: str, other: str) -> dict[str, Any]:
    entries = [{"model": model, "parameters": {"weight": SHARE}} for model in (one, other)]
    if base is None:
        return {"merge_method": "linear", "models": entries}
    return {"merge_method": "task_arithmetic", "base_model": base, "models": entries}


def _own_task(scores: Mapping[str, float], base: Mapping[str, float], scorers: Mapping[str, Scorer]) -> str:
    def gain(task: str) -> float:
        direction = scorers[task].direction
        return oriented(scores[task], direction) - (oriented(base[task], direction) if base else 0.0)

    return max(scores, key=gain)


def _line(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{task} {score:.3f}" for task, score in scores.items())
