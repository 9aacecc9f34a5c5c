"""`evolve merge` with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from merge_core import MergeResult, merge


def merge_with_progress(recipe: Path, output: Path, **options: Any) -> MergeResult:
    """`merge_core.merge`, showing tensors done on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("merging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("merging", total=None)

        def report(done: int, total: int, _tensor: str) -> None:
            bar.update(task, completed=done, total=total)

        return merge(recipe, output, progress=report, **options)
