"""The pictures by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evolve.report.run_record import RunRecord

Draw = Callable[[RunRecord], Any]
"""A run → a plotly figure; None where it has nothing to show."""


@dataclass(frozen=True)
class Picture:
    """One of the pictures of a run.

    Attributes:
        title: its heading.
        about: what is seen, in a sentence.
        draw: makes it.
    """

    title: str
    about: str
    draw: Draw


PICTURES: dict[str, Picture] = {}
"""Name → picture."""


def picture(name: str, title: str, about: str) -> Callable[[Draw], Draw]:
    """Decorate a function that draws a picture.

    Args:
        name: for `SearchResult.plot` and links.
        title: its heading.
        about: what is seen, in a sentence.
    """

    def add(draw: Draw) -> Draw:
        PICTURES[name] = Picture(title, about, draw)
        return draw

    return add
