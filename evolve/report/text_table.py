"""Tables and sentences as plain text: what every report of scores is printed with."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


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
        """Add a title, a table below it and an empty line.

        Args:
            title: what the numbers are.
            headings: of the columns beside the rows' names.
            rows: each its name, then a cell for every heading.
            widths: of the columns; None leaves them to their content.
        """
        rows = list(rows)
        fixed: Sequence[int | None] = widths or [None] * len(headings)
        grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="")
        grid.add_column(Text(""), width=max(len(name) for name, *_ in rows), no_wrap=True)
        for heading, width in zip(headings, fixed, strict=True):
            grid.add_column(Text(heading), width=width, justify="right", overflow="fold")
        for row in rows:
            grid.add_row(*map(Text, row))
        self.add(title)
        self._console.print(grid)
        self._console.print()

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._output.getvalue().splitlines()).rstrip("\n") + "\n"
