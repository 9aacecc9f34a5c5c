"""A search in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolve.trackers.callback import Callback, metrics_of
from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.run_directory import RunDirectory


class TensorBoard(Callback):
    """Writes event files: `tensorboard --logdir runs`.

    Scores are under scalars; recipe, table of scores, model card and where the report is under text; the picture of the
    search under images, where one was drawn.

    Args:
        directory: where; by default `tensorboard` in the run's.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._writer: Any = None
        self._run: RunDirectory | None = None

    def on_start(self, event: RunStarted) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run = RunDirectory(event.output)
        self._writer = SummaryWriter(self._directory or str(event.output / "tensorboard"))
        about = f"{event.genes} genes, {event.optimizer}; {event.start}; tasks: {', '.join(event.task_names)}"
        self._writer.add_text("search", about)

    def on_trial(self, event: TrialFinished) -> None:
        for name, value in metrics_of(event).items():
            self._writer.add_scalar(name, value, event.trial.number)

    def on_finish(self, event: RunFinished) -> None:
        run = RunDirectory(event.output)
        self._writer.add_text("scores", f"```\n{event.summary}\n```")
        if run.card.is_file():
            self._writer.add_text("card", run.card.read_text(encoding="utf-8"))
        if run.history.is_file():
            self._writer.add_image("history", _pixels(run.history), dataformats="HWC")

    def close(self) -> None:
        if self._writer is None or self._run is None:
            return
        try:
            if self._run.recipe.is_file():
                self._writer.add_text("recipe", f"```yaml\n{self._run.recipe.read_text(encoding='utf-8')}```")
            if self._run.report.is_file():
                self._writer.add_text(
                    "report", f"Every picture is in `{self._run.report.resolve()}`: open it in a browser"
                )
        finally:
            self._writer.close()


def _pixels(file: Path) -> Any:
    """A picture as rows of pixels of three colours, 0 to 255."""
    import numpy as np
    from PIL import Image  # which what drew the file needs, and what shows it

    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
