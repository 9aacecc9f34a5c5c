"""What is written is what loaders read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_core import Checkpoint
from merge_core.checkpoint.writer import ShardWriter, plan_shards

TENSORS = {"a": torch.randn(4, 4), "b": torch.randn(3).to(torch.bfloat16), "c": torch.arange(5), "d": torch.tensor(2.0)}


def write(directory: Path, shard_bytes: int = 10**9) -> None:
    directory.mkdir()
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]
    ShardWriter(directory, layout, shard_bytes).write(iter(TENSORS.items()))


@pytest.mark.parametrize("shard_bytes", [1, 70, 10**9])
def test_what_is_written_is_read_by_the_reference_library(tmp_path: Path, shard_bytes: int):
    write(tmp_path / "model", shard_bytes)
    read = {}
    for file in (tmp_path / "model").glob("*.safetensors"):
        read |= load_file(file)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert Checkpoint.open(tmp_path / "model").tensors.keys() == TENSORS.keys()


def test_shards_are_named_and_indexed_as_loaders_expect(tmp_path: Path):
    write(tmp_path / "model", 70)
    names = sorted(file.name for file in (tmp_path / "model").iterdir())
    assert names == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"a": names[0], "b": names[0], "c": names[1], "d": names[1]}
    assert index["metadata"]["total_size"] == 64 + 6 + 40 + 4


def test_a_tensor_larger_than_a_shard_gets_its_own():
    assert plan_shards([("a", 5), ("b", 50), ("c", 5), ("d", 5)], 10) == [["a"], ["b"], ["c", "d"]]


def test_a_tensor_that_is_not_the_planned_one_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a"):
        ShardWriter(tmp_path, [("a", torch.float32, (2,))], 100).write([("a", torch.zeros(3))])
