"""A search in MLflow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from evolve.trackers.callback import Callback, metrics_of
from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.run_directory import RunDirectory

DIRECTORY_TAG = "evolve.directory"


class MLflow(Callback):
    """A run of MLflow's for every search; one that goes on goes on there, too.

    Args:
        uri: of the server or store; by default where MLFLOW_TRACKING_URI says, or MLflow's own choice.
        experiment: its name.
    """

    def __init__(self, uri: str | None = None, experiment: str = "evolve") -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run: str | None = None
        self._output: Path | None = None
        self._finished = False

    def on_start(self, event: RunStarted) -> None:
        self._output = event.output.resolve()
        self._run = self._earlier(self._output) if event.resumed else None
        if self._run is None:
            tags = {DIRECTORY_TAG: str(self._output)}
            self._run = self._client.create_run(self._experiment, tags=tags, run_name=self._output.name).info.run_id
            facts = {"genes": event.genes, "optimizer": event.optimizer, "start": event.start}
            for name, value in {**facts, "tasks": ", ".join(event.task_names)}.items():
                self._client.log_param(self._run, name, value)

    def on_trial(self, event: TrialFinished) -> None:
        from mlflow.entities import Metric

        now, number = int(1000 * time.time()), event.trial.number
        self._client.log_batch(
            self._run, metrics=[Metric(name, value, now, number) for name, value in metrics_of(event).items()]
        )

    def on_finish(self, event: RunFinished) -> None:
        self._client.set_tag(self._run, "evolve.best", event.best.label)
        self._finished = True

    def close(self) -> None:
        if self._run is None or self._output is None:
            return
        try:
            for file in RunDirectory(self._output).results:
                self._client.log_artifact(self._run, str(file))
        finally:
            self._client.set_terminated(self._run, "FINISHED" if self._finished else "KILLED")

    def _earlier(self, output: Path) -> str | None:
        runs: Any = self._client.search_runs([self._experiment])
        return next((run.info.run_id for run in runs if run.data.tags.get(DIRECTORY_TAG) == str(output)), None)
