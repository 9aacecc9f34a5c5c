"""`evolve.merge`, `evolve.score` and `evolve.inspect`: the commands of these names, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.actions.eval import EvalOptions, EvalOutcome, run_eval
from evolve.actions.inspect import InspectOutcome, run_inspect
from evolve.actions.inspect_options import DEFAULT_LIMIT, InspectOptions
from evolve.api.genes import plain
from evolve.api.given import GivenObjects, Task
from evolve.evaluation.eval_models import refuse_searches, settled_recipe
from evolve.scoring.scorers.given_functions import given
from merge_core import MergeResult
from merge_core import merge as merge_to_disk

PathLike = str | os.PathLike[str]
Model = str | os.PathLike[str] | Mapping[str, Any]
"""A directory, a hub id, MODEL+ADAPTER, a recipe's file, or a recipe as a mapping."""


def merge(recipe: Mapping[str, Any] | PathLike, output: PathLike, **options: Any) -> MergeResult:
    """Merge models by a recipe into a model on disk.

    Args:
        recipe: a merge recipe, as a mapping or as a file.
        output: directory to make; it appears whole or not at all.
        options: of `merge_core.merge`: `seed`, `device`, `overwrite`, `shard_bytes`, `threads`, ...

    Raises:
        MergeError: with everything that is wrong with the recipe or its models.
        ConfigError: the recipe has genes in it, or is a search.
    """
    if isinstance(recipe, Mapping):
        return merge_to_disk(settled_recipe(plain(recipe), "recipe"), Path(output), **options)
    refuse_searches(Path(recipe))
    return merge_to_disk(Path(recipe), Path(output), **options)


def score(
    models: Model | Sequence[Model],
    tasks: Task | Sequence[Task] | None = None,
    *,
    tasks_from: PathLike | None = None,
    held_out: bool = False,
    limit: int | None = None,
    seed: int | None = None,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    task_path: Sequence[PathLike] = (),
    progress: Callable[[str], None] = print,
) -> EvalOutcome:
    """Score models, and recipes merged in memory, on the same items; with several, also how they differ.

    Args:
        models: directories, hub ids, MODEL+ADAPTER, recipes as files or mappings.
        tasks: names of lm-eval tasks, settings as in search.yml, and functions `scorer(model, items)`.
        tasks_from: a search.yml whose tasks are used instead.
        held_out: with `tasks_from`: only the items that the search holds out.
        limit: items of each task, the same for all models.
        seed: of the sample, few-shot examples and randomised merges; 0 by default.
        backend: how models are run, `"hf"` or `"vllm"`.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`.
        dtype: of the forward pass.
        task_path: directories with lm-eval task files.
        progress: is told how it goes, line by line.

    Returns:
        `scores` by model, task and metric; `str()` of it is the table.

    Raises:
        ConfigError: with what is wrong with models or tasks; nothing was scored.
    """
    objects = GivenObjects()
    options = EvalOptions(
        models=[_model(model) for model in _several(models)],
        tasks=[] if tasks is None else objects.tasks(tasks),
        tasks_from=None if tasks_from is None else Path(tasks_from),
        held_out=held_out,
        task_path=[Path(path) for path in task_path],
        limit=limit,
        seed=seed,
        task_settings={},
        backend_settings={"name": backend, "device": device, "dtype": dtype},
    )
    with given(objects.functions):
        return run_eval(options, progress)


def inspect(
    models: Sequence[PathLike],
    tasks: Sequence[str] = (),
    *,
    limit: int = DEFAULT_LIMIT,
    base: PathLike | None = None,
    write: PathLike | None = None,
    task_path: Sequence[PathLike] = (),
    device: str | None = None,
    dtype: str | None = None,
    progress: Callable[[str], None] = print,
) -> InspectOutcome:
    """Look at models: which is the base, how far apart they are and where, which pairs go together.

    Args:
        models: directories, hub ids, MODEL+ADAPTER; two or more.
        tasks: names of lm-eval tasks: score the models, and every two of them averaged.
        limit: items of each task, at most.
        base: the base model, where it is known; else it is found.
        write: file to write a search of these models on these tasks to.
        task_path: directories with lm-eval task files.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`.
        dtype: of the forward pass.
        progress: is told how it goes, line by line.

    Returns:
        `facts` as data; `str()` of it is the page.

    Raises:
        ConfigError: with what is wrong with models or tasks.
    """
    options = InspectOptions(
        models=[os.fspath(model) for model in models],
        tasks=",".join([tasks] if isinstance(tasks, str) else tasks),
        task_path=[Path(path) for path in task_path],
        limit=limit,
        base=None if base is None else os.fspath(base),
        write=None if write is None else Path(write),
        backend_settings={"device": device, "dtype": dtype},
    )
    options.check()
    return run_inspect(options, progress)


def _several(models: Model | Sequence[Model]) -> Sequence[Model]:
    return [models] if isinstance(models, str | os.PathLike | Mapping) else models


def _model(model: Model) -> str | Mapping[str, Any]:
    recipe: Mapping[str, Any] | None = plain(model) if isinstance(model, Mapping) else None
    return recipe if recipe is not None else os.fspath(model)  # type: ignore[arg-type]
