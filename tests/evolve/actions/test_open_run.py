"""Scores of two things are never mixed, by whichever command."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evolve.actions import open_run
from evolve.actions.open_run import refuse_changed
from evolve.problems import ConfigError


def test_nothing_is_scored_beside_results_of_a_model_that_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    journal: Any = SimpleNamespace(header={"items": {}, "depends_on": {"model a: model.safetensors": "before"}})
    prepared: Any = SimpleNamespace(splits={})
    keys = {"model a: model.safetensors": "before"}
    monkeypatch.setattr(open_run, "fingerprints", lambda prepared: keys)
    refuse_changed(journal, prepared)
    keys["model a: model.safetensors"] = "now"
    with pytest.raises(ConfigError, match=r"model a: model\.safetensors has changed"):
        refuse_changed(journal, prepared)
