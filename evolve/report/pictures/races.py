"""How many item evaluations races saved."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BAD, BEST, CANDIDATE, UNIFORM, figure
from evolve.report.run_record import RunRecord
from evolve.trials.trial import State

_STATES = {
    State.COMPLETE: ("all items", BEST),
    State.STOPPED: ("stopped early by a race", UNIFORM),
    State.INFEASIBLE: ("outside a constraint", CANDIDATE),
    State.FAILED: ("failed", BAD),
}


@picture(
    "racing",
    "Where races spent items",
    "Items on which each candidate was scored before it was settled. Without racing, this would be all items.",
)
def racing(run: RunRecord) -> Any:
    """A bar for every candidate, where some were stopped early."""
    if not any(trial.state is State.STOPPED for trial in run.candidates):
        return None
    made = figure(height=360, barmode="stack", bargap=0.05, xaxis_title="candidate", yaxis_title="items")
    for state, (name, colour) in _STATES.items():
        items = {
            place: trial.measured.item_count
            for place, trial in enumerate(run.candidates, start=1)
            if trial.state is state
        }
        if items:
            made.add_trace(go.Bar(x=list(items), y=list(items.values()), name=name, marker={"color": colour}))
    return made
