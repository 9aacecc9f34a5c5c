"""Runs that never were, with something to show in every picture."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path

from evolve.report.run_record import RunRecord
from evolve.trials.spending import Purpose
from evolve.trials.step import Step
from evolve.trials.trial import Evaluation, Kind, Stopped, Trial

HOSTILE = '<img src=x onerror="document.title=1">'
TASKS = ("sorting", "shift")


def trial(number, kind=Kind.CANDIDATE, *, objective=None, label=None, model="a", **evaluation):
    scores = {name: objective + place / 10 for place, name in enumerate(TASKS)} if objective is not None else {}
    genes = (
        {f"weight[{model}].layers{layer}-{layer}": objective * (layer + 1) / 4 for layer in range(4)} if scores else {}
    )
    return Trial(
        number=number,
        kind=kind,
        label=label or f"candidate {number}",
        batch=0 if kind is Kind.CANDIDATE else -1,
        recipe={"merge_method": "linear", "models": [{"model": model}], "note": f"</script>{HOSTILE}"},
        genes=genes if kind is Kind.CANDIDATE else {},
        evaluation=Evaluation(number, scores={"sorting": {0: 1.0, 1: 0.0}}, total_seconds=2.0, **evaluation),
        task_scores=scores,
        objective=objective,
        objective_values=() if objective is None else (objective, 1 - objective),
    )


def full_record(name="run", model="a"):
    """A finished run with everything in it."""
    parents = [
        trial(0, Kind.PARENT, objective=0.3, label=f"{HOSTILE}/base"),
        trial(1, Kind.PARENT, objective=0.4, label="b"),
    ]
    uniform = trial(2, Kind.UNIFORM, objective=0.35, label="uniform merge")
    candidates = [trial(number, objective=0.4 + number / 50, model=model) for number in range(3, 15)]
    candidates.append(trial(15, failure=f"{HOSTILE} exploded", model=model))
    candidates.append(trial(16, stopped=Stopped.BELOW, estimate=0.1, model=model))
    best = candidates[11]
    bounds = {"": [0.6, 0.5, 0.7], "sorting": [0.6, 0.5, 0.7], "shift": [0.7, None, None]}
    return RunRecord(
        name=name,
        directory=Path("runs") / name,
        config={
            "recipe": {"merge_method": "linear", "models": [{"model": f"zoo/{model}"}, {"model": "zoo/b"}]},
            "seed": 7,
            "objectives": [["sorting"], ["shift"]],
        },
        summary={
            "best": best.number,
            "verdict": f"Best beats {HOSTILE}.",
            "search_seconds": 83.0,
            "machine": {"system": "Linux", "cores": "2 cores"},
            "scores": [
                {"name": one.label, "role": role, "search": bounds, "held_out": bounds}
                for one, role in [(parents[0], "parent"), (uniform, "uniform"), (best, "best")]
            ],
        },
        trials=[*parents, uniform, *candidates],
        steps=[Step(number, probabilities={"sorting": 0.1 * number, "shift": 0.2}, seconds=1.0) for number in range(4)],
        spending={Purpose.STEPS: 30, Purpose.LOOKS: 12, Purpose.CANDIDATES: 28, Purpose.REFERENCES: 6},
        made_with={"python": "3.11", "torch": "2.6"},
        ranges=dict.fromkeys(best.genes, (0.0, 0.68)),
        last_change=datetime(2026, 3, 9, 12, 30),
    )


def layered_record():
    """A search of the blocks of a model of three layers, each passed twice."""
    model = f"{HOSTILE}/base"

    def path(*ranges):
        return {"slices": [{"sources": [{"model": model, "layer_range": list(layers)}]} for layers in ranges]}

    base = trial(0, Kind.PARENT, objective=0.5, label=model)
    blocks = [(first, last) for first in range(3) for last in range(first, 3)]
    candidates = [
        dataclasses.replace(trial(number, objective=0.4 + number / 20), recipe=path((0, last + 1), (first, 3)))
        for number, (first, last) in enumerate(blocks, start=1)
    ]
    config = {"recipe": {"merge_method": "passthrough", "layers": {"repeat": "each_block"}}}
    return RunRecord("layers", Path("runs/layers"), config, {"best": 6}, [base, *candidates])


def record_for(picture):
    """A run that has something to show in a picture."""
    return layered_record() if picture in ("blocks", "path") else full_record()


def empty_record():
    """A run that was stopped before anything was scored."""
    return RunRecord(name="empty", directory=Path("runs/empty"), config={}, summary={}, trials=[])
