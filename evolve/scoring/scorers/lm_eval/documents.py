"""The documents of an lm-eval task, kept once they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_RENDERED = ("doc_to_text", "doc_to_target", "doc_to_choice")


class Documents:
    """Documents by item, whose fields are rendered once.

    lm-eval compiles a Jinja template for every document whenever `process_results` asks for the target, which for a
    small model costs as much as its forward.

    Args:
        task: Whose methods that render a field remember what they gave from now on.
    """

    def __init__(self, task: Any) -> None:
        self.all: Sequence[Any] = task.eval_docs
        self._asked: dict[int, Any] = {}
        self._kept: set[int] = set()  # the identities of those
        for name in _RENDERED:
            render = getattr(task, name, None)
            if render is not None:
                setattr(task, name, self._remembering(render))

    def __getitem__(self, item: int) -> Any:
        if item not in self._asked:
            self._asked[item] = self.all[item]
            self._kept.add(id(self._asked[item]))
        return self._asked[item]

    def _remembering(self, render: Callable[..., Any]) -> Callable[..., Any]:
        memory: dict[int, Any] = {}

        def rendered(document: Any, *arguments: Any, **options: Any) -> Any:
            # Only documents that are kept for good: the identity of any other may be used again. Further
            # arguments (a few-shot format) ask for something else.
            if arguments or options or id(document) not in self._kept:
                return render(document, *arguments, **options)
            if id(document) not in memory:
                memory[id(document)] = render(document)
            value = memory[id(document)]
            return list(value) if isinstance(value, list) else value

        return rendered
