"""The files of a finished run, without a search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.distributions import FloatDistribution

from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, Kind, Trial


def write_finished_run(directory: Path, values: Sequence[float], best: int) -> Path:
    """A journal of a candidate for every value, and what the run left about itself, which chose one of them."""
    directory.mkdir(exist_ok=True)
    journal = Journal.open(str(directory / "journal.log"), create=True)
    journal.write_header({"config": {"budget": {"evaluations": len(values)}}})
    for number, value in enumerate(values):
        trial = Trial(
            number, Kind.CANDIDATE, f"candidate {number + 1}", 0, {"merge_method": "linear"}, (0.5,), {"w": 0.5}
        )
        journal.begin([trial], {"w": FloatDistribution(0.0, 1.0)})
        evaluation = Evaluation(number, scores={"t": {0: value}})
        journal.finish(replace(trial, evaluation=evaluation, task_scores={"t": value}, objective=value, fitness=value))
    (directory / "search.yml").write_text("recipe: {}\n", encoding="utf-8")
    held_out = {f"candidate {best + 1}": 0.7}
    summary = {"best": best, "candidates": len(values), "held_out": held_out}
    (directory / "run.json").write_text(json.dumps(summary), encoding="utf-8")
    return directory
