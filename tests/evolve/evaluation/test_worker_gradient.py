"""A step of the gradient on a device that is short of memory: sources that stay there give way to it."""

from __future__ import annotations

import pytest
import torch
from zoo_requests import recipe, settings

from evolve.evaluation.request import GradientRequest
from evolve.evaluation.worker import Worker
from evolve.scoring.backends.hf import HFBackend
from merge_core import LiveMerge

REQUEST = GradientRequest(0, recipe(0.3), {"demo_sorting": (0, 1)}, {"demo_sorting": 1.0}, exponent=0.25)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device has no room for a step as long as sources stay there. What happened."""
    happened: list[str] = []
    add = HFBackend.add_answer_gradient

    def add_if_there_is_room(backend: HFBackend, *arguments: object) -> list[float]:
        happened.append("step")
        if "gave way" not in happened:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return add(backend, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HFBackend, "add_answer_gradient", add_if_there_is_room)
    return happened


def test_a_step_without_room_is_made_when_sources_have_given_way(
    short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveMerge, "give_way", lambda merge: not short.append("gave way"))
    found = Worker(settings()).differentiate(REQUEST)
    assert short == ["step", "gave way", "step"]
    short[:] = ["gave way"]
    roomy = Worker(settings()).differentiate(REQUEST)
    assert (found.slopes, found.probabilities) == (roomy.slopes, roomy.probabilities)
    assert found.failure is None


def test_where_no_sources_stay_it_is_a_failure(short: list[str]) -> None:
    found = Worker(settings()).differentiate(REQUEST)
    assert short == ["step"]
    assert "out of memory" in str(found.failure)
