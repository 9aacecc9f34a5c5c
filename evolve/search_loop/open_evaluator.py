"""Where the candidates of a search are scored: in this process, or by a pool of workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from evolve.config.machines import RayConfig, WorkersConfig
from evolve.evaluation.evaluator import Evaluator, InProcessEvaluator
from evolve.evaluation.scored_apart import ScoredApart
from evolve.evaluation.scored_content import ScoredContent
from evolve.evaluation.shared_workers import OpenWorkers
from evolve.evaluation.time_limit import TimeLimited
from evolve.evaluation.worker import WorkerSettings
from evolve.preflight.prepare import Prepared
from evolve.scoring import load_constraints
from evolve.scoring.scorers.given_functions import GivenFunctions
from evolve.trials.journal import Journal


def create_evaluator(
    prepared: Prepared,
    statistics_cache: Path | None = None,
    journal: Journal | None = None,
    open_workers: OpenWorkers | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> Evaluator:
    """Where candidates are scored, each within its time.

    Args:
        prepared: the search.
        statistics_cache: where workers of a machine share what they find out about the models.
        journal: of a run, which says what this process is at when it ends.
        open_workers: gives the workers; by default they are started.
        on_read: as of a `Worker`, where it is in this process and started here.
    """
    start = open_workers or partial(open_evaluator, on_read=on_read)
    workers = _workers(prepared, statistics_cache, journal, start)
    return TimeLimited(workers, prepared.config.workers.time_limit)


def _workers(
    prepared: Prepared, statistics_cache: Path | None, journal: Journal | None, open_workers: OpenWorkers
) -> Evaluator:
    """In this process for one worker, Ray actors for more, unless `workers.engine` says otherwise."""
    config = prepared.config
    settings = WorkerSettings(
        models=tuple(prepared.checkpoints),
        run_models=tuple(prepared.template.run_models.items()),
        relative_to=str(prepared.directory),
        tokenizer_model=prepared.tokenizer_model,
        tasks=config.tasks,
        constraints=config.constraints,
        task_search_path=prepared.task_search_path,
        seed=config.seed,
        backend=config.backend,
        threads=config.workers.threads,
        statistics_cache=None if statistics_cache is None else str(statistics_cache.resolve()),
        methods=prepared.template.methods,
        content=_content(prepared),
    )
    evaluator = open_workers(settings, config.workers, config.ray)
    if journal is not None and _in_process(config.workers, config.ray):
        return ScoredApart(evaluator, settings, journal)
    return evaluator


def _content(prepared: Prepared) -> ScoredContent | None:
    """What workers must find; None where functions were given, which travel to them as they are."""
    if GivenFunctions():
        return None
    search_path = [Path(path) for path in prepared.task_search_path]
    constraints = load_constraints(prepared.config.constraints, search_path, prepared.directory)
    items = {name: (*split.search, *split.held_out) for name, split in prepared.splits.items()}
    return ScoredContent.of(prepared.scorers, constraints, items)


def _in_process(workers: WorkersConfig, ray: RayConfig) -> bool:
    return workers.count == 1 and ray.address is None and workers.engine != "ray"


def open_evaluator(
    settings: WorkerSettings,
    workers: WorkersConfig,
    ray: RayConfig,
    on_read: Callable[[int, int], None] | None = None,
) -> Evaluator:
    """Start what `workers` says.

    Args:
        settings: of each worker.
        workers: how many, and where.
        ray: the cluster.
        on_read: as of a `Worker`, where it is in this process.

    Raises:
        TaskError: a function that was given cannot travel to workers in other processes.
    """
    if _in_process(workers, ray):
        return InProcessEvaluator(settings, on_read)
    import torch

    from evolve.evaluation.crew import CrewOptions
    from evolve.evaluation.ray_crew import RayCrew
    from evolve.evaluation.worker_pool import WorkerPool

    gpus = workers.gpus if workers.gpus is not None else float(torch.cuda.is_available()) * settings.backend.gpus
    settings = replace(settings, functions=settings.functions.packed())  # one that cannot travel is told here
    options = CrewOptions(settings, workers.count, workers.threads, gpus, workers.resources, ray.address)
    return WorkerPool(RayCrew(options), workers.count)
