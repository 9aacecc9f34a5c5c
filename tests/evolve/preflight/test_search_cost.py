"""How many workers a machine keeps busy, and what is said of more."""

from __future__ import annotations

import pytest

from evolve.config.machines import WorkersConfig
from evolve.preflight import search_cost
from evolve.preflight.search_cost import crowding, workers_at_once


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(search_cost, "_cores", lambda: 2)


@pytest.mark.parametrize(
    ("count", "cpus", "at_once"), [(1, 1, 1), (2, 1, 2), (8, 1, 2), (2, 2, 1), (1, 8, 1), (3, 2, 1)]
)
def test_no_more_workers_are_busy_than_cores_have_threads_for(count, cpus, at_once):
    assert workers_at_once(WorkersConfig(count=count, cpus=cpus)) == at_once


def test_workers_that_take_turns_are_said():
    assert crowding(WorkersConfig(count=8, cpus=1)) == (
        "workers.count: 8 workers of 1 thread take turns on 2 cores: they are no faster than 2, and each holds a model "
        "of its own. Set workers.count: 2, or fewer workers.cpus"
    )


def test_workers_that_fit_are_not():
    assert crowding(WorkersConfig(count=2, cpus=1)) is None
