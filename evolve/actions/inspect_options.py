"""What `evolve inspect` and `evolve init` are asked for, and whether that can be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evolve.problems import ConfigError, Problem

DEFAULT_LIMIT = 60


@dataclass(frozen=True)
class InspectOptions:
    """What stands on the command line; None is what was not given.

    Attributes:
        models: directories, hub ids, MODEL+ADAPTER.
        tasks: names of lm-eval tasks, comma-separated.
        task_path: directories with the user's task files.
        base: the base model, where it is known; else it is found.
        write: where the search.yml goes.
        tasks_from: a search.yml whose tasks are used instead.
        limit: items per task, where models are scored.
        backend_settings: device and dtype.
    """

    models: Sequence[str]
    tasks: str | None
    task_path: Sequence[Path]
    base: str | None
    write: Path | None
    tasks_from: Path | None = None
    limit: int = DEFAULT_LIMIT
    backend_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all_models(self) -> list[str]:
        """The base model, where it is given, and the others; each once."""
        return list(dict.fromkeys([*([] if self.base is None else [self.base]), *self.models]))

    @property
    def task_names(self) -> list[str]:
        """One by one."""
        return [name.strip() for name in (self.tasks or "").split(",") if name.strip()]

    def check(self) -> None:
        """Refuse what cannot be meant, before a model is opened.

        Raises:
            ConfigError: with all of it.
        """
        problems = []
        if "" in self.models or self.base == "":
            place = "" if "" in self.models else "--base"
            problems.append(Problem((), "the name of a model is empty. Name a directory or a hub id", place))
        elif len(self.all_models) < 2:
            found = ", ".join(self.all_models) or "none"
            problems.append(Problem((), f"one model alone compares with nothing, got {found}. Name two or more"))
        if self.tasks and not self.task_names:
            problems.append(Problem((), f"names no task: {self.tasks!r}. Example: --tasks NAME,NAME", "--tasks"))
        elif self.write is not None and not self.task_names and self.tasks_from is None:
            message = "what candidates are scored on is not known. Give --tasks NAME[,NAME...]"
            problems.append(Problem((), message, "--write"))
        if self.tasks_from is not None and (self.tasks or self.task_path):
            given = " and ".join(["--tasks"] * bool(self.tasks) + ["--task-path"] * bool(self.task_path))
            message = f"the tasks are those of {self.tasks_from.name}; remove {given}"
            problems.append(Problem((), message, "--tasks-from"))
        if self.write is not None and self.write.exists():
            problems.append(Problem((), f"{self.write} exists. Name another file, or remove it", "--write"))
        if self.write is not None and not self.write.resolve().parent.is_dir():
            problems.append(Problem((), f"there is no directory {self.write.parent}", "--write"))
        problems += [
            Problem((), f"{path} is not a directory", "--task-path") for path in self.task_path if not path.is_dir()
        ]
        if problems:
            raise ConfigError(*problems)
