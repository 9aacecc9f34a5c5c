"""Finding tasks by name: in YAML files of the user's, in the library that ships, or built into lm-eval."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.scoring.errors import Problem, TaskError, did_you_mean, first_line
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.scorers.lm_eval.built_in_index import built_in_index
from evolve.scoring.scorers.lm_eval.datasets_of_the_hub import ask_the_hub, explain_missing, may_be_of_the_hub
from evolve.scoring.scorers.user_files import task_library


class Catalogue:
    """The tasks that a configuration can name.

    lm-eval's own ten thousand tasks take seconds, so they are left out where every name, and every
    member of a named group, is found in the search paths or ships with this project. The user's own win.

    Args:
        names: What the configuration names: tasks, groups, tags, or paths of YAML files.
        search_paths: Directories with the user's YAML files, and where relative paths start.

    Raises:
        TaskError: A search path is not a directory, or a YAML file does not exist; a place is a number among names.
    """

    def __init__(self, names: Sequence[str], search_paths: Sequence[Path]) -> None:
        missing = [path for path in search_paths if not path.is_dir()]
        if missing:
            raise TaskError(*(f"task search path {str(path)!r} is not a directory" for path in missing))
        directories = [path.resolve() for path in search_paths]
        self._registered: dict[str, str] = {}
        problems: list[Problem] = []
        for index, name in enumerate(names):
            if name.endswith(".yaml"):
                try:
                    path = _find_file(name, directories)
                    self._registered[name] = _name_in_file(path)
                except TaskError as error:
                    problems += [problem.within(index) for problem in error.problems]
                    continue
                if path.parent not in directories:
                    directories.append(path.parent)
            else:
                self._registered[name] = name
        if problems:
            raise TaskError(*problems)
        self._manager = _task_manager(directories)
        for name, entry in _task_manager([task_library()]).task_index.items():
            self._manager.task_index.setdefault(name, entry)
        _anchor_data_files(self._manager.task_index)
        if not self._is_complete(self._registered.values()):
            for name, entry in built_in_index().items():
                self._manager.task_index.setdefault(name, entry)

    def load(self, name: str, metadata: Mapping[str, Any] | None = None) -> Any:
        """A task (`Task`), a group (`Group`) or a tag's tasks (a list), newly built.

        Args:
            name: One of the names given at construction.
            metadata: Values for tasks that ask for them.

        Raises:
            TaskError: There is no such task, or it cannot be built.
        """
        registered = self._registered[name]
        if registered not in self._manager.task_index:
            known = self._manager.task_index.keys()
            if (own := entry_meant(name)) is not None:
                raise TaskError(
                    f"no task, group or tag is called {name!r}. Write {own} under tasks of a search.yml; "
                    "evolve eval takes them by --tasks-from search.yml"
                )
            raise TaskError(
                f"no task, group or tag is called {name!r}.{did_you_mean(name, known)} "
                f"{len(known)} are known: lm-eval's own and those in the search paths."
            )
        if any(cfg is None or may_be_of_the_hub(cfg) for cfg in self._members(registered)):
            ask_the_hub()
        try:
            with without_escape():
                loaded = self._manager_with(metadata).load(registered)
        except Exception as error:  # datasets, Jinja and the user's own Python can raise anything
            raise TaskError(f"task {name!r} cannot be loaded: {_explain(error)}") from error
        groups = loaded.get("groups", {})
        if registered in groups:
            return groups[registered]
        tasks = list(loaded["tasks"].values())
        return tasks[0] if len(tasks) == 1 else tasks

    def _manager_with(self, metadata: Mapping[str, Any] | None) -> Any:
        """A manager that knows the same tasks and gives them metadata: lm-eval has one set of it per manager."""
        if not metadata:
            return self._manager
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False, metadata=dict(metadata))
        manager.task_index.update(self._manager.task_index)
        return manager

    def is_built_in(self, task_name: str) -> bool:
        """Whether a task is defined in lm-eval's own package."""
        import lm_eval

        entry = self._manager.task_index.get(task_name)
        package = Path(lm_eval.__file__).resolve().parent
        return entry is not None and entry.yaml_path is not None and package in entry.yaml_path.parents

    def _is_complete(self, names: Iterable[str]) -> bool:
        """Whether the names and everything their groups are made of are indexed."""
        index = self._manager.task_index
        return all(name in index for name in self._with_members(names))

    def _members(self, name: str) -> Iterator[Mapping[str, Any] | None]:
        """The configurations of a task, or of everything that a group is made of; None of what only lm-eval knows."""
        for member in self._with_members([name]):
            entry = self._manager.task_index.get(member)
            yield None if entry is None else entry.cfg
            inner = (entry.cfg or {}).get("task") if entry is not None else None
            yield from (one for one in inner if isinstance(one, dict)) if isinstance(inner, list) else ()

    def _with_members(self, names: Iterable[str]) -> Iterator[str]:
        """The names, and those of everything that their groups are made of, as far as they are indexed."""
        pending, seen = list(names), set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            yield name
            entry = self._manager.task_index.get(name)
            members = (entry.cfg or {}).get("task") if entry is not None else None
            for member in members if isinstance(members, list) else []:
                if isinstance(member, str):
                    pending.append(member)
                elif "dataset_path" not in member and "task" in member and isinstance(member["task"], str):
                    pending.append(member["task"])


def entry_meant(name: str) -> str | None:
    """The entry of a search.yml for a function or file of the user's that stands in the place of a task's name.

    >>> entry_meant("words:exact")
    '{python: "words:exact", items: words.jsonl}'

    Args:
        name: what the user wrote.

    Returns:
        None where it looks like a task's name.
    """
    if (found := re.fullmatch(r"([^\W\d][\w.]*?)(?:\.py)?:([^\W\d]\w*)", name)) is not None:
        module, function = found.groups()
        return f'{{python: "{module}:{function}", items: {module.rpartition(".")[2]}.jsonl}}'
    path = Path(name)
    if path.suffix == ".py":
        return f'{{python: "{path.stem}:FUNCTION", items: {path.stem}.jsonl}}'
    if path.suffix in (".json", ".jsonl"):
        return f'{{python: "MODULE:FUNCTION", items: {name}}}'
    return None


def _task_manager(directories: Sequence[Path]) -> Any:
    import datasets
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    _compile_templates_once()
    return TaskManager(include_path=[str(path) for path in directories], include_defaults=False)


def _compile_templates_once() -> None:
    """Prompts of a task share one template, which lm-eval compiles anew for each."""
    from lm_eval import utils

    if not hasattr(utils.env.from_string, "cache_info"):
        utils.env.from_string = functools.lru_cache(maxsize=1000)(utils.env.from_string)


def _find_file(name: str, directories: Sequence[Path]) -> Path:
    candidates = [Path(name), *(directory / name for directory in directories)]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise TaskError(f"no file {name!r} in {', '.join(map(str, [Path.cwd(), *directories]))}")


def _name_in_file(path: Path) -> str:
    from lm_eval.tasks._yaml_loader import load_yaml

    content = load_yaml(path, resolve_func=False)
    name = content.get("group") or content.get("task")
    if not isinstance(name, str):
        raise TaskError(f"{path.name}: expected a `task:` or `group:` with a name")
    return name


def _anchor_data_files(index: dict[str, Any]) -> None:
    """Let relative data files in the index mean files beside the YAML that names them, where they exist.

    lm-eval takes them relative to the working directory, which differs between a laptop and a worker.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, entry in index.items():
        if entry.yaml_path is None or not entry.cfg:
            continue
        if _anchored(entry.cfg, entry.yaml_path.parent) == entry.cfg:
            continue
        resolved = load_yaml(entry.yaml_path, resolve_func=True)
        index[name] = dataclasses.replace(
            entry, yaml_path=None, cfg=_anchored(copy.deepcopy(resolved), entry.yaml_path.parent)
        )


def _anchored(value: Any, directory: Path, key: str = "") -> Any:
    """Configuration data with the paths under `data_files`, `data_dir` and `dataset_path` anchored."""
    if isinstance(value, dict):
        return {
            name: _anchored(item, directory, key if key == "data_files" else str(name)) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_anchored(item, directory, key) for item in value]
    if key in ("data_files", "data_dir", "dataset_path") and isinstance(value, str) and value:
        path = directory / value
        if path.exists():
            return str(path)
        if key == "data_files" and any(character in value for character in "*?[") and any(directory.glob(value)):
            return str(path)
    return value


def _explain(error: Exception) -> str:
    text = first_line(error)
    if isinstance(error, OSError) and _is_of_the_cache(error.filename):
        return f"{text}. Datasets are kept there: set HF_HOME to a directory that can be written."
    if isinstance(error, FileNotFoundError):
        return f"{text}. A data file is looked up beside the task's YAML file, then in the working directory."
    if isinstance(error, IndexError):
        # lm-eval looks at the first item when it builds a task.
        return "it has no items: its split is empty, or its process_docs leaves none. Check test_split."
    if isinstance(error, KeyError):
        return f"its data have no split or column {error.args[0]!r}. Check test_split and the names in its templates."
    if (missing := explain_missing(text)) is not None:
        return missing
    return f"{type(error).__name__}: {text}"


def _is_of_the_cache(place: object) -> bool:
    """Whether a path is in the directory in which `datasets` keeps them, or is one that this lies in."""
    import datasets

    if not isinstance(place, str):
        return False
    path, cache = Path(place), Path(datasets.config.HF_DATASETS_CACHE)
    return cache.is_relative_to(path) or path.is_relative_to(cache)
