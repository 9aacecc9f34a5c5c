"""A search in Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from evolve.trackers.callback import Callback, metrics_of, plain_name
from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.run_directory import RunDirectory

_LONGEST = 128  # letters of a name


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
            name=self._output.name[:_LONGEST],
            group=str(self._output)[-_LONGEST:],
            config={**facts, "tasks": list(event.task_names), "resumed_trials": len(event.resumed)},
        )
        self._run.define_metric("*", step_metric="trial")

    def on_trial(self, event: TrialFinished) -> None:
        # W&B's own step may only rise, and several workers finish trials in another order than that of their numbers.
        self._run.log({"trial": event.trial.number, **metrics_of(event)})

    def on_finish(self, event: RunFinished) -> None:
        self._run.summary["best_label"] = event.best.label

    def close(self) -> None:
        if self._run is None or self._output is None:
            return
        import wandb

        try:
            results = wandb.Artifact(f"{plain_name(self._output.name)[:100]}-results", type="search")
            for file in RunDirectory(self._output).results:
                results.add_file(str(file))
            self._run.log_artifact(results)
        finally:
            self._run.finish()
