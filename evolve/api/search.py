"""`evolve.search`: what `evolve run` does, with a recipe, tasks and settings that are Python's objects."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.actions.run import run
from evolve.actions.status import is_finished
from evolve.api.genes import plain
from evolve.api.given import GivenObjects, Task
from evolve.api.search_result import SearchResult
from evolve.config.reader import SearchFile, read_search, understand_search
from evolve.config.yaml_document import YamlDocument, read_document
from evolve.preflight.prepare import prepare
from evolve.problems import ConfigError, Problem
from evolve.report.progress import Mode, make_watcher
from evolve.scoring.scorers.given_functions import given
from evolve.trackers.callback import Callback
from evolve.trials.events import Event, Preparing, Watcher
from evolve.trials.run_directory import RunDirectory

PathLike = str | os.PathLike[str]
Named = Callback | str | Mapping[str, Any]
"""A callback of one's own, or as search.yml has it."""

NAME = "search"  # in messages, of what is in no file


def search(
    recipe: Mapping[str, Any] | PathLike,
    tasks: Task | Sequence[Task] | None = None,
    *,
    budget: int | Mapping[str, Any] | None = None,
    directory: PathLike | None = None,
    objective: str | Callable[[Mapping[str, float]], float] | None = None,
    constraints: Sequence[Mapping[str, Any]] | None = None,
    workers: int | Mapping[str, Any] | None = None,
    seed: int | None = None,
    progress: Mode = "auto",
    watch: Watcher | None = None,
    callbacks: Named | Iterable[Named] | None = None,
    rescore: bool = False,
    **settings: Any,
) -> SearchResult:
    """Search for the best merge, or go on with a search.

    Ctrl-C, and a notebook's stop button, end it softly: what is being scored is finished, and the result so far is
    returned. A search in a `directory` goes on there when it is called again.

    Args:
        recipe: a merge recipe with genes in it, as a mapping (with `gene` and `choice`) or as a file; or a whole
            search.yml, whose settings stand unless they are given here.
        tasks: names of lm-eval tasks, settings as in search.yml, and functions `scorer(model, items)` that return a
            number for each item.
        budget: how many candidates; or as in search.yml, such as `{"minutes": 30}`. Without one the search ends when
            more is not worth it.
        directory: where it goes; by default a temporary one, which lives as long as the result.
        objective: `"weighted_sum"`, `"worst"`, `"geometric_mean"`, or a function of the tasks' scores by name that
            returns what is maximised: `lambda scores: min(scores.values())`. It is called in this process alone.
        constraints: what makes a candidate infeasible: `{"python": function, "answers_of": TASK, "at_most": 0.1}`.
        workers: how many, each with a model of its own; or as in search.yml.
        seed: of everything random; 0 by default.
        progress: how to show it: `"auto"` is a live view where there is a terminal or a notebook, and else lines;
            `"rich"`, `"plain"`, `"json"`, `"quiet"` (how it ended) or `"none"`.
        watch: is told every event (`evolve.trials.events`).
        callbacks: are told of the start, every trial and the end (`evolve.Callback`); or as in search.yml,
            `"tensorboard"`, `{"name": "mlflow", "options": {...}}`.
        rescore: begin anew where tasks, code, models or versions have changed; old results stay in the journal.
        settings: the other keys of search.yml: `items`, `optimizer`, `objectives`, `cost`, `backend`, ...

    Raises:
        ConfigError: with every mistake in what was given.
        SearchError: nothing can be scored.
        TaskError: a function cannot be sent to workers in other processes.

    Example:
        >>> search = evolve.search("recipe.yml", tasks=["gsm8k_train", my_scorer], budget=200)  # doctest: +SKIP
        >>> search.best.recipe, search.best.scores  # doctest: +SKIP
    """
    objects = GivenObjects()
    if tasks is not None:
        settings["tasks"] = objects.tasks(tasks)
    if objective is not None:
        settings["objective"] = objects.objective(objective) if callable(objective) else objective
    if constraints is not None:
        settings["constraints"] = objects.constraints(constraints)
    settings |= {} if budget is None else {"budget": _counted("evaluations", budget)}
    settings |= {} if workers is None else {"workers": _counted("count", workers)}
    settings |= {} if seed is None else {"seed": seed}
    if callbacks is None or (isinstance(callbacks, Iterable) and not isinstance(callbacks, str | Mapping)):
        told = list(callbacks or ())
    else:
        told = [callbacks]
    own = [callback for callback in told if isinstance(callback, Callback)]
    if named := [callback for callback in told if not isinstance(callback, Callback)]:
        settings["callbacks"] = [_named(callback) for callback in named]
    with given(objects.functions, objects.staying), contextlib.ExitStack() as stack:
        tell = _All([*([] if watch is None else [watch]), stack.enter_context(make_watcher(progress))])
        prepared = prepare(_search_file(recipe, plain(settings)), lambda what: tell(Preparing(what)))
        for warning in prepared.warnings:
            warnings.warn(warning, stacklevel=2)
        temporary = None if directory is not None else tempfile.TemporaryDirectory(prefix="evolve-search-")
        output = Path(os.path.expanduser(directory if temporary is None else temporary.name))  # type: ignore[arg-type]
        outcome = run(prepared, output, tell, _command(output, objects), rescore=rescore, callbacks=own)
    return SearchResult(output, interrupted=outcome.interrupted, keeps=temporary)


def load(directory: PathLike) -> SearchResult:
    """A search that was run before, or that runs now.

    Args:
        directory: its output directory.

    Raises:
        ConfigError: it holds no run.
    """
    path = Path(os.path.expanduser(directory))
    if not RunDirectory(path).search.is_file():
        raise ConfigError(f"{path}: holds no run: search.yml is missing. Give the directory of a search")
    return SearchResult(path, interrupted=not is_finished(path) and not RunDirectory(path).in_use())


def _counted(key: str, value: int | Mapping[str, Any]) -> Any:
    """A section of search.yml of which a number says one key."""
    said = plain(value)  # a number of numpy's, too
    return {key: said} if isinstance(said, int) else said


def _named(callback: Any) -> Any:
    """What search.yml has of a callback that it names."""
    if isinstance(callback, type):
        raise ConfigError(Problem(("callbacks",), f"{callback.__name__} is a class. Give {callback.__name__}()"))
    return callback


class _All:
    """Tells several watchers."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def __call__(self, event: Event) -> None:
        for watch in self._watchers:
            watch(event)


def _search_file(recipe: Mapping[str, Any] | PathLike, settings: dict[str, Any]) -> SearchFile:
    if isinstance(recipe, Mapping):
        content, path = plain(recipe), Path.cwd() / NAME
    elif not isinstance(recipe, str | os.PathLike):
        raise ConfigError(Problem(("recipe",), f"expected a mapping or a file, got {type(recipe).__name__}"))
    else:
        path = Path(recipe)
        content = read_document(path, {}).content
        if _is_search(content):
            return read_search(path, settings)
    search = content if _is_search(content) else {"recipe": content}
    return understand_search(YamlDocument(path.name, {**search, **settings}, {}, ()), path)


def _is_search(content: Mapping[str, Any]) -> bool:
    return "recipe" in content or "genome" in content


def _command(output: Path, objects: GivenObjects) -> str:
    """What goes on with this run."""
    if objects.functions:  # which no command line can name
        return f"the same evolve.search(..., directory={str(output)!r}) in Python"
    return f"evolve run {output}"
