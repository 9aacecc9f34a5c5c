"""`evolve sweep` from its file to its table."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.evaluation.scored_content import ScoredContent
from evolve.evaluation.shared_workers import SharedWorkers
from evolve.evaluation.worker import WorkerSettings
from evolve.preflight.fingerprints import method_keys, version_keys
from evolve.preflight.model_keys import model_keys
from evolve.preflight.search_tasks import SearchTasks
from evolve.problems import ConfigError
from evolve.scoring.backends.factory import check_device
from evolve.search_loop.gradient_start import shuffled
from evolve.search_loop.objective import objective_of
from evolve.search_loop.open_evaluator import open_evaluator
from evolve.sweep.prepare_sweep import PreparedSweep
from evolve.sweep.recipe_sweep import RecipeSweep
from evolve.sweep.score_store import FILE_NAME, ScoreStore
from evolve.sweep.search_sweep import Run, SearchSweep
from evolve.sweep.table import SweepRow, best_seedless, sweep_csv, sweep_facts, sweep_rows, sweep_text
from evolve.sweep.variants import VariantResult
from evolve.trials.run_directory import RunDirectory, dump_recipe
from evolve.trials.writer_lock import held
from merge_core.recipe.documents import written_documents


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        facts: for scripts.
        text: the table.
        failed: whether a variant failed; the others are in the table all the same.
        interrupted: whether it was stopped; what is finished is in the table.
    """

    facts: dict[str, Any]
    text: str
    failed: bool
    interrupted: bool = False


def run_sweep(sweep: PreparedSweep, directory: Path, run: Run, on_progress: Callable[[str], None]) -> SweepOutcome:
    """Compare the variants.

    Args:
        sweep: what is compared.
        directory: where it is done; what is done in it is not done again.
        run: searches.
        on_progress: is told how it goes.

    Raises:
        ConfigError: the directory holds something else, or another sweep goes on in it.
    """
    with _held(directory):
        if sweep.searches:
            results = _compare_searches(sweep, directory, run, on_progress)
        else:
            results = _compare_recipes(sweep, directory, on_progress)
        return _finish(results, sweep.tasks, directory, len(results) < len(sweep.variants))


def _compare_searches(
    sweep: PreparedSweep, directory: Path, run: Run, on_progress: Callable[[str], None]
) -> list[VariantResult]:
    models = sorted({model for one in sweep.searches.values() for model in one.checkpoints})
    store = ScoreStore(directory, {"kind": "searches", "models": models})
    shared = SharedWorkers(open_evaluator)
    try:
        race = sweep.config.sweep is not None and sweep.config.sweep.race
        found = SearchSweep(directory, sweep.searches, store, run, shared, race, on_progress)
        return found.compare(sweep.variants)
    finally:
        shared.close()


def _compare_recipes(sweep: PreparedSweep, directory: Path, on_progress: Callable[[str], None]) -> list[VariantResult]:
    config, tasks = sweep.config, sweep.tasks
    check_device(config.backend.device)
    methods = tuple(
        dict.fromkeys(str(written_documents(recipe)[-1]["merge_method"]) for recipe in sweep.recipes.values())
    )
    items = {name: {"search": split.search, "held_out": split.held_out} for name, split in tasks.splits.items()}
    scored = ScoredContent.of(tasks.scorers, (), {name: (*of["search"], *of["held_out"]) for name, of in items.items()})
    content = {
        "kind": "recipes",
        "tasks": [task.model_dump(mode="json") for task in config.tasks],
        "content": dict(scored.keys),
        "items": items,
        "models": {model: model_keys(checkpoint) for model, checkpoint in sweep.models.items()},
        "backend": config.backend.model_dump(mode="json"),
        "code": method_keys(methods, sweep.directory) | version_keys(tasks.scorers, config.backend.name),
    }
    settings = WorkerSettings(
        models=tuple(sweep.models),
        run_models=tuple(sweep.run_models.items()),
        relative_to=str(sweep.directory),
        tokenizer_model=next(iter(sweep.models)),
        tasks=config.tasks,
        task_search_path=tuple(map(str, tasks.search_path)),
        seed=config.seed,
        backend=config.backend,
        threads=config.workers.threads,
        methods=methods,
        content=scored,
    )
    evaluator = open_evaluator(settings, config.workers, config.ray)
    try:
        compared = RecipeSweep(
            evaluator=evaluator,
            scorers=tasks.scorers,
            objective=objective_of(tasks.scorers, config, tasks.objective),
            search={
                # Rounds see the first ones, and a file may be in the order of difficulty.
                name: shuffled(split.search, f"sweep {config.seed} {name}")
                for name, split in tasks.splits.items()
            },
            held_out={name: split.held_out for name, split in tasks.splits.items()},
            finalists=config.validation.finalists,
            seed=config.seed,
            store=ScoreStore(directory, content),
            race=config.sweep is None or config.sweep.race,
            on_progress=on_progress,
        )
        results = compared.run(sweep.variants, sweep.recipes)
    finally:
        evaluator.close()
    best = sweep_rows(results, objective_of(tasks.scorers, config, tasks.objective))[0].result
    if best.search:
        RunDirectory(directory).write(directory / "best_recipe.yml", dump_recipe(sweep.recipes[best.variant.name]))
    return results


def _finish(results: list[VariantResult], tasks: SearchTasks, directory: Path, interrupted: bool) -> SweepOutcome:
    rows: list[SweepRow] = sweep_rows(results, objective_of(tasks.scorers, tasks.config, tasks.objective))
    has_best = any(result.search for result in results)
    failed = not has_best or any(result.failure for result in results)
    if not rows:
        return SweepOutcome({"variants": [], "best": None}, "nothing is finished yet", True, interrupted)
    width = min(140, shutil.get_terminal_size((120, 24)).columns)
    RunDirectory(directory).write(directory / "sweep.csv", sweep_csv(rows))
    facts: dict[str, Any] = {"variants": sweep_facts(rows), "best": None}
    text = sweep_text(rows, width)
    if has_best and len({row.result.seed for row in rows}) > 1:
        best = best_seedless(rows)
        if best is not None:  # else they are all the same but for their items, of which none is better
            facts["best"] = {"variant": best.name, "where": [str(path) for path in best.directories]}
            text += f"\nBest over {best.seeds} seeds: {best.name}: {', '.join(facts['best']['where'])}\n"
    elif has_best:
        result = rows[0].result
        facts["best"] = {
            "variant": result.variant.name,
            "where": str(result.directory or directory / "best_recipe.yml"),
        }
        text += f"\nBest: {result.variant.name}: {facts['best']['where']}\n"
    text += f"Table: {directory / 'sweep.csv'}\n" if has_best else ""
    return SweepOutcome(facts, text, failed, interrupted)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory, for this process alone.

    Raises:
        ConfigError: it holds something else, or another sweep goes on in it.
    """
    lock = directory / ".sweep-lock"
    there = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    if there and FILE_NAME not in there and there != [lock.name]:
        raise ConfigError(f"{directory}: holds {', '.join(sorted(there)[:3])}, and no sweep. Name another --output")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with held(lock, str(directory), "wait for it, or name another --output"):
            yield
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise ConfigError(f"{directory}: cannot be used as output: {error.strerror}") from None
        raise
