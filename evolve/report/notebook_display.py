"""The live display of a running search in the cell of a notebook."""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console

from evolve.report.live_display import RichWatcher
from evolve.trials.events import Event, FinalistScored, ModelsRead, TrialFinished, WorkBegun

_WIDTH = 100
_SECONDS = 0.25  # between two frames
_FRAME = "<pre style=\"line-height:1.35;font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace\">{code}</pre>"


class NotebookWatcher(RichWatcher):
    """What a terminal shows, drawn anew in its place as events come."""

    def __init__(self) -> None:
        super().__init__(_console())
        self._cell: Any = None
        self._shown_at = 0.0

    def __call__(self, event: Event) -> None:
        """Take the event, and draw it unless another was drawn a moment ago."""
        super().__call__(event)
        passing = isinstance(event, TrialFinished | FinalistScored | ModelsRead | WorkBegun)
        if self._cell is not None and not (passing and time.monotonic() - self._shown_at < _SECONDS):
            self._show()

    def _prepare(self) -> None:
        self._open()

    def _open(self) -> None:
        from IPython.display import display

        if self._cell is None:
            self._cell = display(self._frame_now(), display_id=True)

    def close(self) -> None:
        """Leave the display as it last was."""
        if self._cell is not None:
            self._show()
            self._cell = None

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        self._cell.update(self._frame_now())

    def _frame_now(self) -> Any:
        from IPython.display import HTML

        console = _console()
        console.print(self.render())
        return HTML(console.export_html(inline_styles=True, code_format=_FRAME))


def _console() -> Console:
    return Console(file=io.StringIO(), width=_WIDTH, record=True, force_terminal=True, force_jupyter=False)
