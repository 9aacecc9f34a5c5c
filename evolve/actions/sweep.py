"""`evolve sweep` from its file to its table."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.reader import read_search
from evolve.config.schema import SearchConfig
from evolve.config.sweep import Variant, variants_of
from evolve.evaluation.worker import WorkerSettings
from evolve.preflight.model_keys import model_keys
from evolve.preflight.prepare import Prepared, prepare, prepare_tasks
from evolve.preflight.search_tasks import SearchTasks
from evolve.problems import ConfigError, Problem
from evolve.scoring import content_keys
from evolve.scoring.backends.factory import check_device
from evolve.search.gradient_start import shuffled
from evolve.search.objective import objective_of
from evolve.search.start import open_evaluator
from evolve.space.genes import find_genes
from evolve.sweep.recipe_sweep import RecipeSweep
from evolve.sweep.score_store import FILE_NAME, ScoreStore
from evolve.sweep.search_sweep import Run, run_variant
from evolve.sweep.table import SweepRow, sweep_csv, sweep_facts, sweep_rows, sweep_text
from evolve.sweep.variants import VariantResult
from evolve.trials.run_directory import dump_yaml
from merge_core import Checkpoint, Recipe, build_plan, open_checkpoints
from merge_core.atomic_output import write_atomically


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        facts: for scripts.
        text: the table.
        failed: whether no variant has a result.
        interrupted: whether it was stopped; what is finished is in the table.
    """

    facts: dict[str, Any]
    text: str
    failed: bool
    interrupted: bool = False


def run_sweep(
    path: Path, overrides: Mapping[str, Any], output: Path | None, run: Run, on_progress: Callable[[str], None]
) -> SweepOutcome:
    """Compare the variants of a file.

    Args:
        path: a search.yml with a `sweep` section; without genes in its recipe, recipes are scored and none is searched.
        overrides: dotted path → value.
        output: directory; what is done in it is not done again.
        run: searches.
        on_progress: is told how it goes.

    Raises:
        ConfigError: with what is wrong with the file or a variant; nothing was scored.
    """
    file = read_search(path, overrides, needs_genes=False)
    if file.problems or file.config is None:
        raise ConfigError(*map(file.document.located, file.problems))
    config = file.config
    if config.sweep is None:
        problem = Problem((), "has no sweep section. Example: sweep: {vary: {seed: [0, 1, 2]}}")
        raise ConfigError(file.document.located(problem))
    variants = variants_of(config.sweep, config.seed)
    directory = output or Path(config.output or f"runs/{path.stem}")
    searches = [config.genome is not None or any(find_genes(_recipe(path, overrides, variant))) for variant in variants]
    if len(set(searches)) > 1:
        names = [variant.name for variant, has_genes in zip(variants, searches, strict=True) if not has_genes]
        raise ConfigError(Problem(("sweep",), f"some variants hold genes and others none: {', '.join(names)}"))
    sweep = _sweep_searches if searches[0] else _sweep_recipes
    with _held(directory):
        results, tasks = sweep(path, overrides, config, variants, directory, run, on_progress)
        return _finish(results, tasks, directory, len(results) < len(variants))


def _recipe(path: Path, overrides: Mapping[str, Any], variant: Variant) -> Any:
    return read_search(path, _settings(overrides, variant), needs_genes=False).document.content.get("recipe", {})


def _settings(overrides: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    return {**overrides, **variant.settings, "sweep": None}


def _sweep_searches(
    path: Path,
    overrides: Mapping[str, Any],
    config: SearchConfig,
    variants: Sequence[Variant],
    directory: Path,
    run: Run,
    on_progress: Callable[[str], None],
) -> tuple[list[VariantResult], SearchTasks]:
    """Everything is prepared before anything is searched, so that no mistake waits behind hours of work."""
    prepared: dict[str, Prepared] = {}
    problems: list[Problem] = []
    for variant in variants:
        try:
            prepared[variant.name] = prepare(read_search(path, _settings(overrides, variant)))
        except ConfigError as error:
            problems += [
                Problem(problem.place, problem.message, f"{variant.name}: {problem.document}")
                for problem in error.problems
            ]
    if problems:
        raise ConfigError(*problems)
    ScoreStore(
        directory, {"kind": "searches", "models": sorted({m for one in prepared.values() for m in one.checkpoints})}
    )
    results: list[VariantResult] = []
    for number, variant in enumerate(variants, start=1):
        on_progress(f"[{number}/{len(variants)}] {variant.name}")
        found = run_variant(variant, prepared[variant.name], directory / variant.directory, run)
        if found is None:
            break
        results.append(found)
    tasks = prepare_tasks(read_search(path, {**overrides, "sweep": None}))
    return results, tasks


def _sweep_recipes(
    path: Path,
    overrides: Mapping[str, Any],
    config: SearchConfig,
    variants: Sequence[Variant],
    directory: Path,
    run: Run,
    on_progress: Callable[[str], None],
) -> tuple[list[VariantResult], SearchTasks]:
    fixed = {"tasks", "items", "constraints", "objective", "objectives", "normalize", "cost", "seed", "backend"}
    wrong = sorted({key for one in variants for key in one.settings if key.partition(".")[0] in fixed})
    if wrong:
        message = f"{', '.join(wrong)}: recipes are compared on the same items in the same way. Vary recipe.… alone"
        raise ConfigError(Problem(("sweep",), message))
    tasks = prepare_tasks(read_search(path, {**overrides, "sweep": None}, needs_genes=False))
    recipes: dict[str, Mapping[str, Any]] = {}
    models: dict[str, Checkpoint] = {}
    here = path.resolve().parent
    for variant in variants:
        recipe = Recipe.from_mapping(_recipe(path, overrides, variant), where=variant.name, directory=here)
        models |= (checkpoints := open_checkpoints(recipe.references(), here))
        build_plan(recipe, checkpoints, config.seed)
        recipes[variant.name] = recipe.to_mapping()
    check_device(config.backend.device)
    items = {name: {"search": split.search, "held_out": split.held_out} for name, split in tasks.splits.items()}
    content = {
        "kind": "recipes",
        "tasks": [task.model_dump(mode="json") for task in config.tasks],
        "content": content_keys(
            tasks.scorers, {name: (*split.search, *split.held_out) for name, split in tasks.splits.items()}
        ),
        "items": items,
        "models": {model: model_keys(checkpoint) for model, checkpoint in models.items()},
        "backend": config.backend.model_dump(mode="json"),
    }
    settings = WorkerSettings(
        models=tuple(models),
        relative_to=str(here),
        tokenizer_model=next(iter(models)),
        tasks=config.tasks,
        task_search_path=tuple(map(str, tasks.search_path)),
        seed=config.seed,
        backend=config.backend,
        threads=config.workers.threads,
        methods=tuple(dict.fromkeys(str(recipe["merge_method"]) for recipe in recipes.values())),
    )
    evaluator = open_evaluator(settings, config.workers, config.ray)
    try:
        sweep = RecipeSweep(
            evaluator=evaluator,
            scorers=tasks.scorers,
            objective=objective_of(tasks.scorers, config),
            search={
                # Rounds see the first ones, and a file may be in the order of difficulty.
                name: shuffled(split.search, f"sweep {config.seed} {name}")
                for name, split in tasks.splits.items()
            },
            held_out={name: split.held_out for name, split in tasks.splits.items()},
            finalists=config.validation.finalists,
            seed=config.seed,
            store=ScoreStore(directory, content),
            on_progress=on_progress,
        )
        results = sweep.run(variants, recipes)
    finally:
        evaluator.close()
    best = sweep_rows(results, objective_of(tasks.scorers, config))[0].result
    if best.search:
        write_atomically(directory / "best_recipe.yml", dump_yaml(dict(recipes[best.variant.name])))
    return results, tasks


def _finish(results: list[VariantResult], tasks: SearchTasks, directory: Path, interrupted: bool) -> SweepOutcome:
    rows: list[SweepRow] = sweep_rows(results, objective_of(tasks.scorers, tasks.config))
    failed = not any(result.search for result in results)
    if not rows:
        return SweepOutcome({"variants": [], "best": None}, "nothing is finished yet", True, interrupted)
    width = min(140, shutil.get_terminal_size((120, 24)).columns)
    write_atomically(directory / "sweep.csv", sweep_csv(rows))
    best = rows[0].result
    where = best.directory or directory / "best_recipe.yml"
    facts = {
        "variants": sweep_facts(rows),
        "best": None if failed else {"variant": best.variant.name, "where": str(where)},
    }
    text = sweep_text(rows, width)
    if not failed:
        text += f"\nBest: {best.variant.name}: {where}\nTable: {directory / 'sweep.csv'}\n"
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
        handle = lock.open("a")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be used as output: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{directory}: another sweep goes on in it; wait for it, or name another --output"
            ) from None
        yield
