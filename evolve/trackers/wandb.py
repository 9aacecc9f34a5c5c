"""A search in Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from evolve.trackers.callback import Callback, metrics_of
from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.run_directory import RunDirectory


class WeightsAndBiases(Callback):
    """A run of W&B's for every start of a search; those of one directory are a group.

    Args:
        project: its name.
        entity: user or team; by default the one who is logged in.
        mode: `"offline"` keeps everything on disk, for `wandb sync`; by default as WANDB_MODE says.
    """

    def __init__(
        self,
        project: str = "evolve",
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}
        self._run: Any = None
        self._output: Path | None = None

    def on_start(self, event: RunStarted) -> None:
        import wandb

        self._output = event.output.resolve()
        facts = {"genes": event.genes, "optimizer": event.optimizer, "start": event.start}
        self._run = wandb.init(
            **self._settings,
            dir=str(event.output),
            name=self._output.name,
            group=str(self._output),
            config={**facts, "tasks": list(event.task_names), "resumed_trials": len(event.resumed)},
        )

    def on_trial(self, event: TrialFinished) -> None:
        self._run.log(metrics_of(event), step=event.trial.number)

    def on_finish(self, event: RunFinished) -> None:
        self._run.summary["best_label"] = event.best.label

    def close(self) -> None:
        if self._run is None or self._output is None:
            return
        import wandb

        results = wandb.Artifact(f"{self._output.name}-results", type="search")
        for file in RunDirectory(self._output).results:
            results.add_file(str(file))
        self._run.log_artifact(results)
        self._run.finish()
