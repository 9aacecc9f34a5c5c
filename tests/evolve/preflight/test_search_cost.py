"""What a machine keeps busy and computes fast, and what is said of the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evolve.config.machines import BackendConfig, WorkersConfig
from evolve.preflight import search_cost
from evolve.preflight.search_cost import crowding, faster_precision, workers_at_once


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


def plan(parameters: int, *dtypes: torch.dtype) -> Any:
    return SimpleNamespace(parameter_count=parameters, config={}, jobs=[SimpleNamespace(dtype=one) for one in dtypes])


@pytest.fixture
def a_processor(request, monkeypatch):
    monkeypatch.setattr(search_cost, "_operations_per_second", {torch.float32: 1.0, torch.bfloat16: request.param}.get)


ON_A_CPU = BackendConfig(device="cpu")


@pytest.mark.parametrize("a_processor", [6.4], indirect=True)
def test_a_processor_made_for_bfloat16_is_said(a_processor):
    assert faster_precision(plan(10**9, torch.bfloat16), ON_A_CPU) == (
        "backend.dtype: this processor multiplies in bfloat16, which candidates are written in, 6 times as fast as in "
        "float32. Set backend.dtype: bfloat16"
    )


@pytest.mark.parametrize(
    ("a_processor", "candidate", "backend"),
    [
        (1.4, plan(10**9, torch.bfloat16), ON_A_CPU),
        (6.4, plan(10**6, torch.bfloat16), ON_A_CPU),
        (6.4, plan(10**9, torch.bfloat16, torch.float32), ON_A_CPU),
        (6.4, plan(10**9, torch.bfloat16), BackendConfig(device="cpu", dtype="bfloat16")),
        (6.4, plan(10**9, torch.bfloat16), BackendConfig(device="cuda", dtype="float32")),
    ],
    indirect=["a_processor"],
)
def test_it_is_not_where_it_would_not_help_or_scores_would_be_of_less_than_is_written(a_processor, candidate, backend):
    assert faster_precision(candidate, backend) is None
