"""What models score, and what is left of two of them in their plain average: measured, since weights hardly tell it.

On the beds of `benchmarks/`, the rank correlation of what is left at half of each with what the best of three sizes
leaves is 0.97 and more; of cosines of task vectors it is 0.4 to 0.7, of tasks' gradients 0.5 to 0.6.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import Request
from evolve.scoring import Scorer, oriented

SHARE = 0.5  # of each of two models' task vectors


@dataclass(frozen=True)
class PairLoss:
    """What two models lose of what each is best at.

    Attributes:
        models: the two.
        lost: mean over their own tasks of the pair's score minus that of whoever is the better there; below 0 is a
            loss, in the tasks' own units. None where the pair could not be scored.
        failure: why not.
    """

    models: tuple[str, str]
    lost: float | None
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
) -> TaskFindings:
    """Score every model, then every two of them averaged.

    Args:
        evaluator: merges and scores.
        scorers: the tasks.
        items: task → ids.
        base: of the task vectors; None: models are averaged.
        models: the others.
        on_progress: is told how it goes.
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
    for number, (one, other) in enumerate(two := list(itertools.combinations(able, 2)), start=1):
        tasks = list(dict.fromkeys((own[one], own[other])))
        (found,) = evaluator.evaluate([Request(number, _average(base, one, other), {t: items[t] for t in tasks})])
        if found.failure is not None:
            pairs.append(PairLoss((one, other), None, found.failure))
            continue
        lost = []
        for task in tasks:
            direction = by_name[task].direction
            alone_best = max(oriented(scores[model][task], direction) for model in (one, other))
            lost.append(oriented(by_name[task].aggregate(found.scores[task]).value, direction) - alone_best)
        pairs.append(PairLoss((one, other), statistics.fmean(lost)))
        on_progress(f"[{number}/{len(two)}] {one} and {other}: {pairs[-1].lost:+.3f}")
    return TaskFindings({name: len(ids) for name, ids in items.items()}, scores, own, pairs, failures)


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
