"""The kinds of tensors that a model has, as filters of a recipe: what `filters: each_tensor` stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from merge_core.checkpoint.layout import Layout

_ENDING = re.compile(r"\.(weight|bias)$")
_NUMBER = re.compile(r"(^|\.)\d+\.")


@dataclass(frozen=True)
class TensorKinds:
    """Substrings of tensor names, each of one kind of tensor, where the first that fits decides.

    Attributes:
        filters: longest first, so that none takes what is another's.
        outside: those of them that stand in no layer: embeddings, the last norm, the head.
    """

    filters: tuple[str, ...] = ()
    outside: frozenset[str] = frozenset()

    @classmethod
    def of(cls, layout: Layout) -> TensorKinds:
        """The kinds of a model; weight and bias of a module are one, and so are those of many experts."""
        inside = {_kind(name) for layer in layout.layers for name in layer}
        outside = {_kind(name) for name in (*layout.before, *layout.after)} - inside
        return cls(tuple(_longest_first(inside | outside)), frozenset(outside))


def _kind(name: str) -> str:
    return _NUMBER.split(_ENDING.sub("", name))[-1]


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (-len(name), name))
