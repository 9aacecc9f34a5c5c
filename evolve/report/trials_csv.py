"""The trials of a search as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.trials.costs import CostTerms
from evolve.trials.trial import State, Trial


def trials_csv(trials: Sequence[Trial], cost_terms: CostTerms | None = None) -> str:
    """One row per trial: what it was, what it scored ("score.TASK"), its costs ("cost.NAME"), its genes ("gene.NAME").

    After races, also how many items it was scored on, and the fitness estimated of one that was stopped.

    Numbers are written so that reading them back gives the same bits; what is missing is empty.
    """
    task_names = list(dict.fromkeys(name for trial in trials for name in trial.task_scores))
    gene_names = list(dict.fromkeys(name for trial in trials for name in trial.genes))
    header = ["number", "kind", "label", "batch", "state", "objective"]
    objectives = max((len(trial.objective_values) for trial in trials), default=0)
    header += [f"objective.{place}" for place in range(1, objectives + 1)]
    header += [f"score.{name}" for name in task_names]
    costs = list(cost_terms.weights) if cost_terms is not None else []
    header += [f"cost.{cost}" for cost in costs]
    constraint_names = list(dict.fromkeys(name for trial in trials for name in trial.measured.constraints))
    header += [f"constraint.{name}" for name in constraint_names] + (["violation"] if constraint_names else [])
    races = any(trial.state is State.STOPPED for trial in trials)
    header += ["items", "estimate"] if races else []
    skips = any(trial.measured.skipped for trial in trials)
    header += ["skipped_items"] if skips else []
    header += ["merge_seconds", "forward_seconds", "total_seconds", "failure"]
    header += [f"gene.{name}" for name in gene_names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for trial in trials:
        measured = trial.measured
        fields = [trial.number, trial.kind.value, trial.label, trial.batch, trial.state.value]
        cells = [*fields, trial.objective, *(trial.objective_values or [None] * objectives)]
        cells += [trial.task_scores.get(name) for name in task_names]
        found = cost_terms.measured(measured) if cost_terms is not None and trial.task_scores else {}
        cells += [found.get(cost) for cost in costs]
        cells += [measured.constraints.get(name) for name in constraint_names]
        cells += [measured.total_violation] if constraint_names else []
        cells += [sum(map(len, measured.scores.values())), measured.estimate] if races else []
        cells += [sum(map(len, measured.skipped.values()))] if skips else []
        cells += [measured.merge_seconds, measured.forward_seconds, measured.total_seconds, measured.failure]
        cells += [_csv_value(trial.genes.get(name)) for name in gene_names]
        writer.writerow(cells)
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else value
