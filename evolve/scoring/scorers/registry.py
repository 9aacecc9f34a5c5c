"""The kinds of task, to which every scorer's file adds its own, and anyone else's in the same way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Discriminator, PlainValidator, SerializeAsAny, Tag, TypeAdapter

from evolve.scoring.errors import Problem, TaskError, did_you_mean
from evolve.scoring.scorer import Scorer
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.task_config import TaskConfig

Loader = Callable[[Sequence[Any], SearchPaths, int], Sequence[Scorer]]
"""Configurations of one kind, where what they name is looked for, and a seed → a scorer for each."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One kind of task.

    Attributes:
        key: The key that only entries of this kind have; a required field of its configuration.
        config: What a user may say about such a task. Its docstring becomes part of the documentation.
        load: Makes the scorers of all its tasks; `one_by_one` where they have nothing in common. The place of a
            problem begins with the task's number among them.
    """

    key: str
    config: type[TaskConfig]
    load: Loader


def one_by_one(load: Callable[[Any, SearchPaths, int], Scorer]) -> Loader:
    """A loader that loads each task by itself, and has the problems of all.

    Args:
        load: Makes the scorer of one task.
    """

    def load_all(configs: Sequence[Any], paths: SearchPaths, seed: int) -> list[Scorer]:
        scorers, problems = [], []
        for index, config in enumerate(configs):
            try:
                scorers.append(load(config, paths, seed))
            except TaskError as error:
                problems += [
                    Problem((index, *problem.place), f"{config.where}: {problem.message}") for problem in error.problems
                ]
        if problems:
            raise TaskError(*problems)
        return scorers

    return load_all


KINDS: dict[str, TaskKind] = {}
"""Key of an entry of `tasks:` → its kind."""


def register(kind: TaskKind) -> None:
    """Add a kind of task.

    Raises:
        ValueError: There is one with that key, or with a configuration of that name.
    """
    if kind.key in KINDS or any(kind.config.__name__ == other.config.__name__ for other in KINDS.values()):
        raise ValueError(f"a kind of task {kind.key!r} ({kind.config.__name__}) is registered already. Rename it")
    KINDS[kind.key] = kind


def parse_task(entry: Any) -> TaskConfig:
    """The configuration that an entry of `tasks:` in `search.yml` stands for.

    Args:
        entry: A mapping, or the name of an lm-eval task.

    Raises:
        pydantic.ValidationError: It is not a task of one kind, or a setting is wrong.
    """
    return _union(tuple(KINDS.values())).validate_python(entry)


def task_schema(ref_template: str) -> dict[str, Any]:
    """The JSON schema of an entry of `tasks:`."""
    return _union(tuple(KINDS.values())).json_schema(ref_template=ref_template)


AnyTask = Annotated[SerializeAsAny[TaskConfig], PlainValidator(parse_task, json_schema_input_type=Any)]
"""A task of any kind that is registered when it is read."""


@functools.cache
def _union(kinds: tuple[TaskKind, ...]) -> TypeAdapter[TaskConfig]:
    members = tuple(Annotated[kind.config, Tag(kind.config.__name__)] for kind in kinds)
    form: Any = Annotated[Union[members], Discriminator(_class_name), BeforeValidator(_of_one_kind)]  # noqa: UP007
    return TypeAdapter(form)


def _of_one_kind(entry: Any) -> Any:
    """Refuse an entry of no kind or of several; a name alone is an lm-eval task."""
    if isinstance(entry, str):
        return {"name": entry}
    if isinstance(entry, TaskConfig):
        return entry
    if not isinstance(entry, Mapping):
        raise ValueError(f"expected a task's name or its settings, got {entry!r}")
    found = [key for key in KINDS if key in entry]
    if len(found) == 1:
        return entry
    kinds = ", ".join(f"{key}:" for key in sorted(KINDS))
    if found:
        raise ValueError(f"one task cannot be {' and '.join(f'{key}:' for key in found)}; keep one of them")
    guess = next((text for key in entry if (text := did_you_mean(str(key), KINDS))), "")
    raise ValueError(f"says no task; one of these keys is needed: {kinds}{'.' + guess if guess else ''}")


def _class_name(entry: Any) -> str | None:
    """The name of the class of an entry's configuration, which pydantic puts into the place of an error."""
    if isinstance(entry, TaskConfig):
        return type(entry).__name__
    if not isinstance(entry, Mapping):
        return None
    return next((kind.config.__name__ for key, kind in KINDS.items() if key in entry), None)
