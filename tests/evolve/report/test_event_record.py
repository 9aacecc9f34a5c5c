"""Events as lines of JSON, as the page about them says, and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evolve.report.event_record import KINDS, event_line, event_name, event_of, event_record
from evolve.trials.events import (
    FinalistScored,
    GradientStepped,
    ModelsRead,
    PointLookedAt,
    Preparing,
    RunFinished,
    RunStarted,
    SearchStopped,
    StopAsked,
    StopReason,
    TrialFinished,
    WorkBegun,
)
from evolve.trials.trial import Evaluation, Kind, Trial

PAGE = Path(__file__).parents[3] / "docs" / "events.md"
OUTPUT = Path("runs/demo")
TRIALS = [
    Trial(0, Kind.PARENT, "math", -1, {}, None, {}, Evaluation(0), {"sums": 0.5}, 0.5),
    Trial(1, Kind.CANDIDATE, "candidate 1", 0, {}, None, {"weight": 0.5}, Evaluation(1), {"sums": 0.7}, 0.7),
]
EVENTS = [
    Preparing("opening 2 models"),
    RunStarted(OUTPUT, ["sums"], 3, "cma_es", "gradient", 100, 2, TRIALS[:1], ["sums"], 640, 2000),
    ModelsRead(1, 2),
    WorkBegun(["candidate 1"]),
    GradientStepped("math", 3, 8, 0.61, True, 640),
    PointLookedAt("math", (), 0.5, 64, 0.5, True, True, 640),
    TrialFinished(TRIALS[1], TRIALS[1], TRIALS[0], None, 1, 100, 2.0, None, 704, {"parameters": 12.0}),
    StopAsked(["candidate 2"], 1, TRIALS[1]),
    SearchStopped(StopReason.ITEMS, 1, 2000.0),
    FinalistScored(TRIALS[1], 0.6, 1, 3),
    RunFinished(OUTPUT, TRIALS[1], {"recipe": OUTPUT / "best_recipe.yml"}, "THE TABLE"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event_name(type(event)))
def test_a_line_says_all_of_an_event(event):
    assert event_of(json.loads(event_line(event)), TRIALS.__getitem__, TRIALS[:1]) == event


def test_an_event_of_another_version_is_nothing():
    assert event_of({"event": "card_shuffled"}, TRIALS.__getitem__) is None


def test_the_page_names_every_event_and_its_fields():
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = {name: re.findall(r"`(\w+)`", cell) for name, cell in rows}
    records = [event_record(event) for event in EVENTS]
    assert set(said) == set(KINDS) == {record["event"] for record in records}
    assert said == {record["event"]: [name for name in record if name != "event"] for record in records}


def test_the_page_names_every_field_of_a_trial():
    fields = [record for event in EVENTS for name, record in event_record(event).items() if name == "trial"]
    page = PAGE.read_text(encoding="utf-8")
    full, short = (re.findall(r"`(\w+)`", line) for line in re.findall(r"^- Trials?[^:]*: (.*)$", page, re.MULTILINE))
    assert full == list(fields[0])
    assert short == list(fields[1])
