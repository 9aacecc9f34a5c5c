"""Tables and sentences as plain text: what every report of scores is printed with."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evolve.report.formatting import shortened

_BETWEEN = 3  # characters from a column to the next
_SHORTEST = 12  # characters of a name
_HEADING_WIDTHS = (*range(8, 21), 1000)  # letters of a heading in a line, where there is room


class TextPage:
    """Text of at most `width` columns, without colours.

    >>> page = TextPage(40)
    >>> page.add_table("Scores", ["held out"], [("base", "0.50"), ("best", "0.75")])
    >>> page.add("Best beats base.")
    >>> print(page, end="")
    Scores
           held out
    ───────────────
    base       0.50
    best       0.75
    <BLANKLINE>
    Best beats base.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._output = io.StringIO()
        self._console = Console(
            file=self._output, width=width, color_system=None, force_terminal=False, highlight=False
        )

    def add(self, sentence: str) -> None:
        """Add a sentence, on as many lines as it needs."""
        self._console.print(Text(sentence))

    def add_table(
        self, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] | None = None
    ) -> None:
        """Add a title, a table below it and an empty line; columns that do not fit go into further tables below.

        Args:
            title: what the numbers are.
            headings: of the columns beside the rows' names; one that is longer than its column takes several lines.
            rows: each its name, then a cell for every heading.
            widths: of the columns; None leaves them to their content.
        """
        rows = list(rows)
        if widths is None:
            widest = [max(len(row[place + 1]) for row in rows) for place in range(len(headings))]
            options = [_with_headings(widest, headings, most) for most in reversed(_HEADING_WIDTHS)]
        else:
            options = [list(widths)]
        name_width = min(max(len(name) for name, *_ in rows), max(self._width - _BETWEEN - max(options[-1]), _SHORTEST))
        packed = [_packed(columns, self._width - name_width) for columns in options]
        fewest = min(map(len, packed))
        columns, groups = next(found for found in zip(options, packed, strict=True) if len(found[1]) == fewest)
        for number, places in enumerate(groups):
            self.add(f"{title} (continued)" if number else title)
            self._console.print(_grid(name_width, headings, rows, columns, places))
            self._console.print()

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._output.getvalue().splitlines()).rstrip("\n") + "\n"


def _with_headings(widest: Sequence[int], headings: Sequence[str], most: int) -> list[int]:
    """Columns as wide as their cells, and as their headings up to so many letters."""
    return [max(cell, min(len(heading), most)) for cell, heading in zip(widest, headings, strict=True)]


def _packed(columns: Sequence[int], room: int) -> list[list[int]]:
    """The places of columns, as many at once as fit beside the names; at least one."""
    groups: list[list[int]] = [[]]
    left = room
    for place, width in enumerate(columns):
        if groups[-1] and width + _BETWEEN > left:
            groups.append([])
            left = room
        groups[-1].append(place)
        left -= width + _BETWEEN
    return groups


def _grid(
    name_width: int,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    widths: Sequence[int],
    places: Sequence[int],
) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="")
    grid.add_column(Text(""), width=name_width, no_wrap=True)
    for place in places:
        grid.add_column(Text(headings[place]), width=widths[place], justify="right", overflow="fold")
    for name, *cells in rows:
        grid.add_row(Text(shortened(name, name_width)), *(Text(cells[place]) for place in places))
    return grid
