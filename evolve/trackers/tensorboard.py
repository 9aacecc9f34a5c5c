"""A search in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolve.trackers.callback import Callback, metrics_of
from evolve.trials.events import RunFinished, RunStarted, TrialFinished


class TensorBoard(Callback):
    """Writes event files: `tensorboard --logdir runs`.

    Args:
        directory: where; by default `tensorboard` in the run's.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._writer: Any = None

    def on_start(self, event: RunStarted) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self._directory or str(event.output / "tensorboard"))
        about = f"{event.genes} genes, {event.optimizer}; {event.start}; tasks: {', '.join(event.task_names)}"
        self._writer.add_text("search", about)

    def on_trial(self, event: TrialFinished) -> None:
        for name, value in metrics_of(event).items():
            self._writer.add_scalar(name, value, event.trial.number)

    def on_finish(self, event: RunFinished) -> None:
        self._writer.add_text("recipe", _block(event.files["recipe"]))
        self._writer.add_text("scores", f"```\n{event.summary}\n```")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _block(file: Path) -> str:
    return f"```yaml\n{file.read_text(encoding='utf-8')}```"
