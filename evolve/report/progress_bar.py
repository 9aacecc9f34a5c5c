"""What works through the tensors of a model, shown on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Display = Literal["bar", "lines", "none"]


@contextmanager
def progress_bar(label: str, display: Display = "bar") -> Iterator[Callable[[int, int, str], None]]:
    """Show progress while the block runs.

    Args:
        label: what is done.
        display: a bar where stderr is a terminal, a line per step, or nothing.

    Yields:
        ``report(done, total, name)``, to call after every step.
    """
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = display == "bar" and console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int, name: str) -> None:
            if display == "lines":
                print(f"{done}/{total} {name}", file=sys.stderr)
            bar.update(task, completed=done, total=total)

        yield report
