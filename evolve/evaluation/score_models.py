"""`evolve eval`: models and recipes scored on the same items, in the same way as candidates of a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from evolve.config.machines import BackendConfig
from evolve.evaluation.eval_models import EvalModel
from evolve.evaluation.failures import reason_of
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.problems import ConfigError, Problem
from evolve.scoring import RememberedAnswers, Scorer, TaskScore, every_metric, split_items

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """One metric of one task on one model.

    Attributes:
        score: with its standard error.
        contributions: one number per item, whose mean is the score.
    """

    score: TaskScore
    contributions: Mapping[int, float]


@dataclass(frozen=True)
class ModelScores:
    """What one model scored.

    Attributes:
        label: as the user wrote it.
        tasks: task -> metric -> measurement, the task's own metric first.
        error: why it has no scores, or not all of them.
    """

    label: str
    tasks: Mapping[str, Mapping[str, Measurement]] = field(default_factory=dict)
    error: str | None = None


def choose_items(
    scorers: Sequence[Scorer], limit: int | None, seed: int, of: Mapping[str, Sequence[int]] | None = None
) -> dict[str, tuple[int, ...]]:
    """The items of every task, the same for every model.

    Args:
        scorers: the tasks.
        limit: how many of each at most, as a sample; None is all.
        seed: of the sample.
        of: the items to choose from, if not all.

    Raises:
        ConfigError: a task has no items.
    """
    chosen: dict[str, tuple[int, ...]] = {}
    problems = []
    for scorer in scorers:
        ids = tuple(scorer.item_ids() if of is None else of[scorer.name])
        if not ids:
            problems.append(Problem((), "it has no items to score on", f"task {scorer.name!r}"))
        else:
            count = None if limit is None else min(limit, len(ids))
            chosen[scorer.name] = split_items(ids, count, None, seed).search
    if problems:
        raise ConfigError(*problems)
    return chosen


def score_models(
    models: Sequence[EvalModel],
    scorers: Sequence[Scorer],
    items: Mapping[str, Sequence[int]],
    backend: BackendConfig,
    seed: int,
    on_progress: Progress,
) -> Iterator[ModelScores]:
    """Score one model after the other; one that fails does not keep the next from being scored.

    Args:
        models: the models and recipes.
        scorers: the tasks, each with the metric that counts.
        items: task -> ids.
        backend: how a model is run.
        seed: of randomised merge methods.
        on_progress: is told how it goes, line by line.
    """
    metrics = {scorer.name: every_metric(scorer) for scorer in scorers}
    for number, model in enumerate(models, start=1):
        prefix = f"[{number}/{len(models)}] {model.label}"
        with ExitStack() as stack:
            scores = _score(model, metrics, items, backend, seed, stack, partial(_say_after, on_progress, prefix))
        yield scores


def _say_after(on_progress: Progress, prefix: str, text: str) -> None:
    on_progress(f"{prefix}: {text}")


def _score(
    model: EvalModel,
    metrics: Mapping[str, Sequence[Scorer]],
    items: Mapping[str, Sequence[int]],
    backend: BackendConfig,
    seed: int,
    stack: ExitStack,
    on_progress: Progress,
) -> ModelScores:
    started = time.perf_counter()
    tasks: dict[str, dict[str, Measurement]] = {}
    try:
        stand_ins = model.merge_intermediates(stack, seed)
        worker = _worker(model, stand_ins, backend, seed)
        stack.callback(worker.close)  # one engine at a time
        live = RememberedAnswers(worker.load(model.recipe))
        for name, scorers in metrics.items():
            tasks[name] = {}
            for scorer in scorers:
                try:
                    tasks[name][scorer.metric] = _measure(scorer, live, items[name])
                except ValueError as error:
                    if scorer is scorers[0]:
                        raise
                    on_progress(f"{name}: no {scorer.metric}: {reason_of(error)}")
            first = tasks[name][scorers[0].metric].score
            on_progress(f"{name} {scorers[0].metric} {first.value:.4f}, {time.perf_counter() - started:.1f} s")
    except Exception as error:
        # As with candidates: whatever goes wrong with one model is its result, and the next is scored.
        on_progress(f"failed: {reason_of(error)}")
        return ModelScores(model.label, {name: found for name, found in tasks.items() if found}, reason_of(error))
    return ModelScores(model.label, tasks)


def _worker(model: EvalModel, stand_ins: Mapping[str, Path], backend: BackendConfig, seed: int) -> Worker:
    return Worker(
        WorkerSettings(
            models=model.models,
            relative_to=str(model.relative_to),
            tokenizer_model=model.models[0],
            tasks=(),  # loaded once, for all models
            task_search_path=(),
            seed=seed,
            backend=backend,
            threads=None,
            stand_ins=tuple((name, str(directory)) for name, directory in stand_ins.items()),
        )
    )


def _measure(scorer: Scorer, model: Any, item_ids: Sequence[int]) -> Measurement:
    values = scorer.score(model, item_ids).values
    return Measurement(scorer.aggregate(values), scorer.contributions(values))


def results_json(results: Sequence[ModelScores]) -> dict[str, Any]:
    """What `--json` prints: model, task, metric -> value and standard error; the reason where a model failed."""
    return {
        "results": [
            {
                "model": scores.label,
                "tasks": {
                    task: {
                        metric: {"value": found.score.value, "stderr": found.score.stderr}
                        for metric, found in metrics.items()
                    }
                    for task, metrics in scores.tasks.items()
                },
                **({"error": scores.error} if scores.error is not None else {}),
            }
            for scores in results
        ]
    }
