"""The kinds of task, and which one an entry of `tasks:` in `search.yml` is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag, TypeAdapter

from tasks.errors import did_you_mean
from tasks.judge_scorer import JudgeTask
from tasks.needle_scorer import NeedleTask
from tasks.perplexity_scorer import PerplexityTask
from tasks.python_scorer import PythonTask
from tasks.task_config import LmEvalTask, TaskConfig

# The key that only one kind has -> that kind. It is always the first field of its own.
KINDS: dict[str, type[TaskConfig]] = {
    "name": LmEvalTask,
    "python": PythonTask,
    "judge": JudgeTask,
    "perplexity": PerplexityTask,
    "needle": NeedleTask,
}


def _one_kind(entry: Any) -> Any:
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
    kinds = ", ".join(f"{key}:" for key in KINDS)
    if found:
        raise ValueError(f"one task cannot be {' and '.join(f'{key}:' for key in found)}; keep one of them")
    guess = next((text for key in entry if (text := did_you_mean(str(key), KINDS))), "")
    raise ValueError(f"says no task; one of these keys is needed: {kinds}{'.' + guess if guess else ''}")


def _kind(entry: Any) -> str | None:
    """The name of an entry's class, which pydantic puts into the place of an error."""
    if isinstance(entry, TaskConfig):
        return type(entry).__name__
    if not isinstance(entry, Mapping):
        return None
    return next((kind.__name__ for key, kind in KINDS.items() if key in entry), None)


AnyTask = Annotated[
    Annotated[LmEvalTask, Tag("LmEvalTask")]
    | Annotated[PythonTask, Tag("PythonTask")]
    | Annotated[JudgeTask, Tag("JudgeTask")]
    | Annotated[PerplexityTask, Tag("PerplexityTask")]
    | Annotated[NeedleTask, Tag("NeedleTask")],
    Discriminator(_kind),
    BeforeValidator(_one_kind),
]

_ADAPTER: TypeAdapter[TaskConfig] = TypeAdapter(AnyTask)


def parse_task(entry: Any) -> TaskConfig:
    """The configuration that an entry of `tasks:` stands for.

    Args:
        entry: A mapping, or the name of an lm-eval task.

    Raises:
        pydantic.ValidationError: It is not a task of one kind, or a setting is wrong.
    """
    return _ADAPTER.validate_python(entry)
