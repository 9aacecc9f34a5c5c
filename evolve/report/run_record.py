"""What a run has left, as its pictures need it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from evolve.report.gene_importances import gene_importances
from evolve.report.intervals import Interval
from evolve.report.score_table import Scores, ScoreTable
from evolve.space.short_names import short_names
from evolve.trials.journal import WAY, Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import Spending
from evolve.trials.stage import Stage
from evolve.trials.step import Step
from evolve.trials.trial import Kind, State, Trial, best_of, candidates_done


@dataclass(frozen=True)
class ShownScores:
    """A parent, the uniform merge or the best, with what it scored.

    Attributes:
        name: as in the score table.
        role: "parent", "uniform" or "best".
        search: objective ("") and tasks -> interval; unbounded where none is known.
        held_out: the same on held-out items; empty where none were scored.
    """

    name: str
    role: str
    search: Mapping[str, Interval]
    held_out: Mapping[str, Interval]


class Look(NamedTuple):
    """A point of the gradient start, scored on some of the items."""

    spent: int  # item evaluations up to there
    objective: float
    label: str


@dataclass(frozen=True)
class RunRecord:
    """A run, finished or not.

    Attributes:
        name: of its directory.
        directory: where it is.
        config: the search, resolved.
        summary: what it left in run.json; empty before its end, and where it has gone on since.
        trials: by number.
        steps: of the gradient start, by number.
        spending: where the item evaluations went.
        way: looks at points of the gradient start, in order.
        looks: points that were scored on some of the items.
        look_items: how many items these are.
        made_with: package -> version.
        ranges: gene -> lowest and highest value, of the genes of the best candidate that are numbers.
        last_change: when a trial of it ended or began last; None before the first.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    trials: Sequence[Trial]
    steps: Sequence[Step] = ()
    spending: Spending = field(default_factory=dict)
    way: Sequence[Look] = ()
    looks: int = 0
    look_items: int = 0
    made_with: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    last_change: datetime | None = None

    @property
    def layers(self) -> Any:
        """What stands under `layers` of its recipe; None where layers were not searched."""
        recipe = self.config.get("recipe")
        return recipe.get("layers") if isinstance(recipe, Mapping) else None

    @classmethod
    def of(cls, directory: RunDirectory, journal: Journal) -> RunRecord:
        """What a run has left, also while it goes on.

        Args:
            directory: of the run.
            journal: of the run.
        """
        header, steps, trials = journal.header, journal.steps(), journal.trials()
        summary = directory.read_summary(candidates_done(trials))
        looked = journal.kept(Stage.LOOK).values()
        versions = summary.get("versions")
        run = cls(
            name=directory.path.resolve().name,
            directory=directory.path,
            config=header.get("config", {}),
            summary=summary,
            trials=trials,
            steps=[steps[number] for number in sorted(steps)],
            spending=journal.spent,
            way=[Look(*look) for look in journal.noted(WAY, [])],
            looks=len(looked),
            look_items=max((one.item_count for one in looked), default=0),
            made_with=versions if isinstance(versions, Mapping) else (header.get("made_with") or [{}])[-1],
            last_change=journal.last_change(),
        )
        best = run.best_candidate
        return run if best is None else replace(run, ranges=journal.ranges(best.number))

    @property
    def finished(self) -> bool:
        """Whether its results are written."""
        return "best" in self.summary

    @property
    def candidates(self) -> list[Trial]:
        """All but parents and uniform merge."""
        return [trial for trial in self.trials if trial.kind is Kind.CANDIDATE]

    @property
    def complete(self) -> list[Trial]:
        """Candidates with an objective, the best first."""
        scored = [trial for trial in self.candidates if trial.objective is not None]
        return sorted(scored, key=lambda trial: (-(trial.objective or 0.0), trial.number))

    @property
    def parents(self) -> list[Trial]:
        """The models as they are."""
        return [trial for trial in self.trials if trial.kind is Kind.PARENT]

    @property
    def uniform(self) -> Trial | None:
        """The plain average, where there is one."""
        return next((trial for trial in self.trials if trial.kind is Kind.UNIFORM), None)

    @cached_property
    def importances(self) -> Mapping[str, float]:
        """Gene -> its share of what sets the better candidates apart; empty where too few were scored to tell."""
        return gene_importances(self.complete)

    @cached_property
    def best(self) -> Trial | None:
        """The one that was chosen, or the best so far."""
        number = self.summary.get("best")
        if isinstance(number, int) and 0 <= number < len(self.trials):
            return self.trials[number]
        return best_of(self.candidates) or best_of(list(self.trials))

    @property
    def best_candidate(self) -> Trial | None:
        """The best; the best candidate where a parent or the uniform merge is better."""
        return self.best if self.best is not None and self.best.genes else next(iter(self.complete), None)

    @cached_property
    def short_names(self) -> Mapping[str, str]:
        """Label of a parent -> its short name."""
        return short_names(trial.label for trial in self.parents)

    @property
    def ranked_scores(self) -> list[ShownScores]:
        """The best first, then the others, by the objective on held-out items, where they were scored on them."""
        kind = "held_out" if any(row.held_out for row in self.scores) else "search"

        def height(row: ShownScores) -> float:
            interval = getattr(row, kind).get("")
            return -math.inf if interval is None else float(interval.value)

        return sorted(self.scores, key=lambda row: (row.role != "best", -height(row)))

    def shown_name(self, row: ShownScores) -> str:
        """Of a parent its short name."""
        return self.short_names.get(row.name, row.name)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.task_scores))

    @property
    def failures(self) -> list[Trial]:
        """Models that failed: candidates, and what they are compared with."""
        return [trial for trial in self.trials if trial.state is State.FAILED]

    @cached_property
    def scores(self) -> list[ShownScores]:
        """Parents, uniform merge and best: with intervals where the run has come to its end."""
        with suppress(
            ArithmeticError, AttributeError, LookupError, TypeError, ValueError
        ):  # of a run.json that is damaged
            return [
                ShownScores(row["name"], row["role"], _intervals(row["search"]), _intervals(row["held_out"]))
                for row in self.summary["scores"]
            ]
        shown = [trial for trial in self.trials if trial.is_reference and trial is not self.best]
        shown += [] if self.best is None else [self.best]
        return [
            ShownScores(
                trial.label,
                "best" if trial is self.best else trial.kind.value,
                {name: Interval(value) for name, value in {"": trial.objective, **trial.task_scores}.items()}
                if trial.objective is not None
                else {},
                {},
            )
            for trial in shown
        ]


def score_facts(table: ScoreTable) -> list[dict[str, Any]]:
    """The rows of a score table as run.json keeps them; a bound that is not known is null."""
    return [
        {"name": row.name, "role": row.role, "search": _bounds(row.search), "held_out": _bounds(row.held_out)}
        for row in table.rows
    ]


def _bounds(scores: Scores) -> dict[str, list[float | None]]:
    found = ({} if scores.objective is None else {"": scores.objective}) | dict(scores.tasks)
    return {
        name: [one if math.isfinite(one) else None for one in (interval.value, interval.low, interval.high)]
        for name, interval in found.items()
    }


def _intervals(bounds: Mapping[str, Sequence[float | None]]) -> dict[str, Interval]:
    return {
        name: Interval(
            float(value), -math.inf if low is None else float(low), math.inf if high is None else float(high)
        )
        for name, (value, low, high) in bounds.items()
        if value is not None
    }
