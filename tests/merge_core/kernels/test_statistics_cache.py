"""What is found about task vectors, kept in files: the same merges, and nothing that can go wrong for good."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merge_core import Checkpoint, LiveMerge, Recipe
from merge_core.kernels import dispatch
from merge_core.kernels.statistics_cache import StatisticsCache


def checkpoint(directory: Path, seed: int) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"num_hidden_layers": 1}')
    common = torch.randn(300, 250, generator=torch.Generator().manual_seed(9)) * 0.02
    own = torch.randn(300, 250, generator=torch.Generator().manual_seed(seed)) * 0.002
    save_file({"model.layers.0.weight": (common + own).bfloat16()}, directory / "model.safetensors")
    return Checkpoint.open(directory)


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Checkpoint]:
    return {name: checkpoint(tmp_path / name, seed) for seed, name in enumerate(("base", "one", "two"))}


def merges(checkpoints: dict[str, Checkpoint], method: str, statistics_cache: Path | None) -> list[torch.Tensor]:
    """One merge at each of several densities, by one object as a search does, or by a new one each time."""
    results = []
    live_merge = LiveMerge(checkpoints, seed=3, statistics_cache=statistics_cache)
    for density in (0.5, 0.3, 0.72, 0.41, 0.6, 0.33):
        own = {"weight": 0.5, "density": density, "epsilon": 0.1, "gamma": 0.01}
        recipe = Recipe.from_mapping(
            {
                "merge_method": method,
                "base_model": "base",
                "models": [{"model": name, "parameters": own} for name in ("one", "two")],
                "dtype": "bfloat16",
            }
        )
        if statistics_cache is None:
            live_merge = LiveMerge(checkpoints, seed=3)
        live = {"model.layers.0.weight": torch.zeros(300, 250)}
        live_merge.write(recipe, live)
        results.append(live["model.layers.0.weight"])
    return results


@pytest.mark.parametrize("method", ["ties", "breadcrumbs_ties", "della", "della_linear"])
def test_what_is_kept_changes_no_bit(method: str, checkpoints: dict[str, Checkpoint], tmp_path: Path):
    expected = merges(checkpoints, method, None)
    for _ in range(2):  # made, then found
        for ours, theirs in zip(merges(checkpoints, method, tmp_path / "kept"), expected, strict=True):
            assert torch.equal(ours, theirs)
    assert list((tmp_path / "kept").glob("*.npy"))
    assert not list((tmp_path / "kept").glob("*.part"))


def test_a_second_worker_counts_nothing(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    merges(checkpoints, "ties", tmp_path / "kept")
    for counting in ("count_magnitudes", "count_by_part"):
        monkeypatch.setattr(dispatch, counting, lambda *_: pytest.fail("counted again"))
    merges(checkpoints, "ties", tmp_path / "kept")


def test_a_changed_file_is_counted_anew(checkpoints: dict[str, Checkpoint], tmp_path: Path):
    merges(checkpoints, "ties", tmp_path / "kept")
    changed = checkpoints | {"one": checkpoint(tmp_path / "one", 77)}
    for ours, theirs in zip(merges(changed, "ties", tmp_path / "kept"), merges(changed, "ties", None), strict=True):
        assert torch.equal(ours, theirs)


def test_a_broken_file_is_made_again_and_an_unwritable_place_does_without(tmp_path: Path):
    kept = StatisticsCache(tmp_path / "kept")
    assert kept.array("a", lambda: np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    (file,) = (tmp_path / "kept").glob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    assert kept.array("a", lambda: np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert kept.array("a", lambda: pytest.fail("made again")).tolist() == [0, 1, 2, 3, 4]
    (tmp_path / "file").write_text("")
    assert StatisticsCache(tmp_path / "file" / "below").array("a", lambda: np.arange(2)).tolist() == [0, 1]


def test_what_one_worker_is_making_the_others_wait_for(tmp_path: Path):
    begun, made = threading.Event(), []

    def make() -> np.ndarray:
        begun.set()
        made.append(threading.current_thread())
        time.sleep(0.3)  # for the others to come meanwhile
        return np.arange(5)

    def find() -> list[int]:
        return StatisticsCache(tmp_path / "kept").array("a", make).tolist()

    with ThreadPoolExecutor(4) as threads:  # each opens the lock for itself, as processes do
        first = threads.submit(find)
        begun.wait()
        others = [threads.submit(find) for _ in range(3)]
    assert {tuple(found.result()) for found in (first, *others)} == {(0, 1, 2, 3, 4)}
    assert len(made) == 1
