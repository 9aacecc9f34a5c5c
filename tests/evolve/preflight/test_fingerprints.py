"""What differs between two states that scores may belong to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from evolve.preflight.fingerprints import differences, fingerprints
from merge_core.kernels.random_numbers import GENERATOR

BEFORE = {
    "task 'a': items": "1",
    "model base: model.safetensors": "2",
    "model base: model.safetensors, modified": "2026-01-01T00:00:00+00:00",
    "version of torch": "2.9.0",
}


def test_nothing_differs_from_itself():
    assert differences(BEFORE, dict(BEFORE)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task 'a': items": "9"}, "task 'a': items has changed"),
        ({"version of torch": "2.9.1"}, "version of torch: was 2.9.0, is 2.9.1"),
        ({"task 'b': items": "1"}, "task 'b': items was not there"),
        ({"task 'a': items": None}, "task 'a': items is not there any more"),
    ],
)
def test_a_difference_is_named_with_both_sides_where_they_say_something(change, said):
    now = {what: key for what, key in {**BEFORE, **change}.items() if key is not None}
    assert differences(BEFORE, now) == [said]


def test_a_time_alone_says_how_to_give_it_back():
    time = "model base: model.safetensors, modified"
    (said,) = differences(BEFORE, {**BEFORE, time: "2026-02-02T00:00:00+00:00"})
    assert said.endswith("touch -d 2026-01-01T00:00:00+00:00")
    both = {**BEFORE, time: "2026-02-02T00:00:00+00:00", "model base: model.safetensors": "3"}
    assert differences(BEFORE, both) == ["model base: model.safetensors has changed"]


@pytest.mark.parametrize(("methods", "recorded"), [(["ties", "linear"], False), (["linear", "dare_ties"], True)])
def test_scores_of_drawn_masks_belong_to_how_they_are_drawn(methods: list[str], recorded: bool, tmp_path: Path):
    config = SimpleNamespace(constraints=[], backend=SimpleNamespace(name="hf"))
    prepared = SimpleNamespace(
        splits={},
        objective=None,
        scorers=[],
        config=config,
        task_search_path=[],
        directory=tmp_path,
        template=SimpleNamespace(methods=methods, run_models={}),
        checkpoints={},
    )
    expected = GENERATOR if recorded else None
    assert fingerprints(prepared).get("version of random draws") == expected
