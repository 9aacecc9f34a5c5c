"""`evolve.merge`, `evolve.score` and `evolve.inspect`: the commands of these names, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.actions.eval import EvalOptions, EvalOutcome, run_eval
from evolve.actions.inspect import InspectOutcome, run_inspect
from evolve.actions.inspect_options import DEFAULT_LIMIT, InspectOptions
from evolve.api.genes import plain
from evolve.api.given import GivenObjects, Task
from evolve.evaluation.eval_models import refuse_searches, settled_recipe
from evolve.problems import ConfigError, Problem
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
    task_path: PathLike | Sequence[PathLike] = (),
    progress: Callable[[str], None] | None = print,
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
        progress: is told how it goes, line by line; None: nobody is.

    Returns:
        `scores` by model, task and metric; `str()` of it is the table.

    Raises:
        ConfigError: with what is wrong with models or tasks; nothing was scored.
    """
    objects = GivenObjects()
    options = EvalOptions(
        models=_models(models),
        tasks=[] if tasks is None else objects.tasks(tasks),
        tasks_from=None if tasks_from is None else Path(tasks_from),
        held_out=held_out,
        task_path=[Path(path) for path in _texts("task_path", task_path)],
        limit=None if limit is None else _count("limit", limit),
        seed=seed,
        task_settings={},
        backend_settings={"name": backend, "device": _torch_name(device), "dtype": _torch_name(dtype)},
    )
    with given(objects.functions):
        return run_eval(options, progress or _untold)


def inspect(
    models: Sequence[PathLike],
    tasks: Sequence[str] = (),
    *,
    limit: int = DEFAULT_LIMIT,
    base: PathLike | None = None,
    write: PathLike | None = None,
    task_path: PathLike | Sequence[PathLike] = (),
    tasks_from: PathLike | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Callable[[str], None] | None = print,
) -> InspectOutcome:
    """Look at models: which is the base, how far apart they are and where, which pairs go together.

    Args:
        models: directories, hub ids, MODEL+ADAPTER; two or more.
        tasks: names of lm-eval tasks: score the models, and every two of them averaged.
        limit: items of each task, at most.
        base: the base model, where it is known; else it is found.
        write: file to write a search of these models on these tasks to.
        task_path: directories with lm-eval task files.
        tasks_from: a search.yml whose tasks are used instead.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`.
        dtype: of the forward pass.
        progress: is told how it goes, line by line; None: nobody is.

    Returns:
        `facts` as data; `str()` of it is the page.

    Raises:
        ConfigError: with what is wrong with models or tasks.
    """
    options = InspectOptions(
        models=_texts("models", models),
        tasks=",".join(_texts("tasks", tasks)),
        task_path=[Path(path) for path in _texts("task_path", task_path)],
        tasks_from=None if tasks_from is None else Path(tasks_from),
        limit=_count("limit", limit),
        base=None if base is None else os.fspath(base),
        write=None if write is None else Path(write),
        backend_settings={"device": _torch_name(device), "dtype": _torch_name(dtype)},
    )
    options.check()
    return run_inspect(options, progress or _untold)


def _models(models: Model | Iterable[Model]) -> list[str | Mapping[str, Any]]:
    several = (
        [models] if isinstance(models, str | os.PathLike | Mapping) or not isinstance(models, Iterable) else models
    )
    found = [_model(model, place) for place, model in enumerate(several)]
    if not found:
        raise ConfigError(Problem(("models",), "none is given. Name a model or a recipe"))
    return found


def _model(model: Model, place: int) -> str | Mapping[str, Any]:
    if isinstance(model, Mapping):
        return plain(model, "models", place)  # type: ignore[no-any-return]
    return _text(model, "models", place)


def _texts(what: str, given: PathLike | Iterable[PathLike]) -> list[str]:
    several = [given] if isinstance(given, str | os.PathLike) or not isinstance(given, Iterable) else given
    return [_text(one, what, place) for place, one in enumerate(several)]


def _text(given: PathLike, *place: str | int) -> str:
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(Problem(place, f"expected a path or a name, got {type(given).__name__}"))
    return os.fspath(given)


def _count(what: str, value: int) -> int:
    found = plain(value, what)  # a number of numpy's, too
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ConfigError(Problem((what,), f"expected a whole number, at least 1, got {value!r}"))
    return found


def _torch_name(value: object) -> str | None:
    """A dtype or a device of torch's by its name, which may be given as well."""
    return None if value is None else str(value).removeprefix("torch.")


def _untold(line: str) -> None:
    """What nobody wants to hear."""
