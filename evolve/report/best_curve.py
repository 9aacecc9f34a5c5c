"""The best candidate so far, as a curve of a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from evolve.report.formatting import format_score

ROWS = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = " ...:::##"  # for a terminal that shows ASCII alone
_SCORE_WIDTH = 9


class BestCurve:
    """A bar for each candidate, as high as the best objective up to it; names beside the curve mark what is to beat.

    Args:
        best: the best objective after each candidate, the first first.
        marks: name -> objective.
    """

    def __init__(self, best: Sequence[float], marks: Mapping[str, float]) -> None:
        self._best, self._marks = best, marks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, as wide as there is room."""
        known = [*self._best, *self._marks.values()]
        low, high = min(known), max(known)
        blocks, pointer = (_PLAIN, "<") if options.ascii_only else (_BLOCKS, "◂")
        steps = ROWS * (len(blocks) - 1)

        def height(objective: float) -> int:
            """From 1, so that the lowest is seen."""
            return 1 + round((steps - 1) * (objective - low) / ((high - low) or 1.0))

        names = [
            ", ".join(name for name, objective in self._marks.items() if (height(objective) - 1) // 8 == row)
            for row in range(ROWS)
        ]
        columns = max(1, options.max_width - _SCORE_WIDTH - 4 - max(map(len, names)))
        count = len(self._best)
        # A column shows the last of the candidates that fall in it.
        heights = [height(self._best[-(-(column + 1) * count // columns) - 1]) for column in range(columns)]
        for row in reversed(range(ROWS)):
            score = format_score(high if row == ROWS - 1 else low) if row in (0, ROWS - 1) else ""
            bars = "".join(blocks[min(max(bar - 8 * row, 0), 8)] for bar in heights)
            mark = f" {pointer} {names[row]}" if names[row] else ""
            yield Text.assemble((f"{score:>{_SCORE_WIDTH}} ", "dim"), (bars, "cyan"), (mark, "dim"), no_wrap=True)
        yield Text(f"{'':{_SCORE_WIDTH}} the best of candidates 1 to {count}", style="dim", no_wrap=True)
