"""What `evolve.search` returns: the best, the trials, the pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.actions.report import report_runs
from evolve.actions.status import best_trial, open_journal, read_run, run_status
from evolve.report.pictures.drawn import draw
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Trial

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class Best:
    """The model that a search has chosen, or the best candidate so far.

    Attributes:
        label: "candidate 17"; or a parent, where none is better.
        recipe: a standard merge recipe, for `evolve.merge`.
        scores: task -> score on the search items, in each task's own direction.
        objective: what was maximised, on the search items.
        held_out: the objective on items that steered no candidate, and chose among the finalists; None without any.
        held_out_scores: task -> score on these items.
        model: directory of the merged model; None before the search is finished.
    """

    label: str
    recipe: Mapping[str, Any] = field(repr=False)
    scores: Mapping[str, float]
    objective: float | None
    held_out: float | None
    held_out_scores: Mapping[str, float]
    model: Path | None


class SearchResult:
    """A search in its directory, finished or not; everything is read from there.

    Args:
        directory: of the run.
        interrupted: whether it was stopped before its end.
        keeps: what must live as long as this, such as a temporary directory.
    """

    def __init__(self, directory: Path, *, interrupted: bool = False, keeps: object = None) -> None:
        self.directory = directory
        self.interrupted = interrupted
        self._keeps = keeps
        self._best: tuple[list[tuple[int, int]], Best] | None = None  # when its run's files were like this

    @property
    def best(self) -> Best:
        """The validated best of a finished search, else the best candidate so far.

        Raises:
            ConfigError: nothing has been scored yet.
        """
        run = RunDirectory(self.directory)
        found = [file.stat() for file in (run.journal, run.summary) if file.is_file()]
        as_it_is = [(state.st_mtime_ns, state.st_size) for state in found]
        # A long journal takes a while to read. One in a database does not say whether it was written to.
        if self._best is None or self._best[0] != as_it_is or not run.journal.is_file():
            self._best = as_it_is, self._read_best()
        return self._best[1]

    def _read_best(self) -> Best:
        run, trial = RunDirectory(self.directory), best_trial(self.directory)
        record = read_run(self.directory)
        row = next((row for row in record.scores if row.role == "best" and record.best == trial), None)
        held_out = {} if row is None else {name: interval.value for name, interval in row.held_out.items()}
        return Best(
            label=trial.label,
            recipe=trial.recipe,
            scores=dict(trial.task_scores),
            objective=trial.objective,
            held_out=held_out.pop("", None),
            held_out_scores=held_out,
            model=run.model if record.finished and run.model.is_dir() else None,
        )

    @property
    def trials(self) -> list[Trial]:
        """Parents, the uniform merge and every candidate, by number."""
        return open_journal(RunDirectory(self.directory)).trials()

    def table(self) -> pandas.DataFrame:
        """A row for every trial: what it is, its scores, seconds, genes, and why it failed; as in trials.csv."""
        import pandas

        from evolve.report.trials_csv import trials_csv

        return pandas.read_csv(io.StringIO(trials_csv(self.trials)))

    def plot(self, name: str = "history") -> plotly.graph_objects.Figure:
        """A picture of the report.

        Args:
            name: which, as docs/python.md lists them; where there is none of that name, the error names all.

        Raises:
            ConfigError: there is no picture of that name, or nothing to show in it.
        """
        return draw(read_run(self.directory), name)

    def report(self) -> Path:
        """Write all pictures into report.html of the directory, and tell where that is."""
        return report_runs([self.directory], None)

    def __repr__(self) -> str:
        return run_status(self.directory).text
