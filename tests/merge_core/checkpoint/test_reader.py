"""Checkpoints open by header, map without copies, and say what is wrong with a broken one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core import Checkpoint, MergeError
from merge_core.errors import CutShortError


def test_every_dtype_reads_back_as_the_reference_library_reads_it(tmp_path: Path):
    tensors = {
        "f32": torch.randn(3, 4),
        "bf16": torch.randn(5).to(torch.bfloat16),
        "f16": torch.randn(2, 2).to(torch.float16),
        "i64": torch.arange(4),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    reference = load_file(tmp_path / "model.safetensors")
    assert set(checkpoint.tensors) == set(reference)
    for name, tensor in reference.items():
        read = checkpoint.read(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)
        assert checkpoint.tensors[name].shape == tuple(tensor.shape)


def test_a_tensor_is_mapped_not_copied_and_the_file_stays_as_it_is(make_model: Callable[..., Path]):
    directory = make_model("a")
    before = (directory / "model.safetensors").read_bytes()
    checkpoint = Checkpoint.open(directory)
    first, second = checkpoint.read("lm_head.weight"), checkpoint.read("lm_head.weight")
    assert first.data_ptr() == second.data_ptr()
    first.zero_()
    assert (directory / "model.safetensors").read_bytes() == before


def test_a_file_that_loses_its_end_is_named_before_anybody_touches_what_is_gone(make_model: Callable[..., Path]):
    directory = make_model("a")
    checkpoint, file = Checkpoint.open(directory), directory / "model.safetensors"
    before = checkpoint.read("lm_head.weight")
    os.replace(shutil.copy(file, directory / "copy"), file)  # what is replaced stays what it was for who has opened it
    assert torch.equal(checkpoint.read("lm_head.weight"), before)
    checkpoint = Checkpoint.open(directory)
    checkpoint.read("lm_head.weight")
    os.truncate(file, 1000)
    for touch in (checkpoint.load, checkpoint.read):
        with pytest.raises(CutShortError, match=r"model\.safetensors: was cut short while it was read: 1000 of"):
            touch("lm_head.weight")


def test_so_is_a_pickle(make_model: Callable[..., Path]):
    directory = make_model("a")
    file = directory / "pytorch_model.bin"
    torch.save(load_file(directory / "model.safetensors"), file)
    (directory / "model.safetensors").unlink()
    checkpoint = Checkpoint.open(directory)
    checkpoint.read("lm_head.weight")
    os.truncate(file, 1000)
    with pytest.raises(CutShortError, match=r"pytorch_model\.bin: was cut short while it was read: 1000 of"):
        checkpoint.read("lm_head.weight")


def test_so_is_a_file_that_lost_it_before_it_was_first_touched(make_model: Callable[..., Path]):
    directory = make_model("a")
    checkpoint = Checkpoint.open(directory)
    os.truncate(directory / "model.safetensors", 4096)
    for touch in (checkpoint.load, checkpoint.read):
        with pytest.raises(CutShortError, match=r"model\.safetensors: was cut short while it was read: 4096 of"):
            touch("model.norm.weight")


def test_an_unaligned_tensor_is_read(tmp_path: Path):
    values = torch.arange(4, dtype=torch.float32)
    header = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "after": {"dtype": "F32", "shape": [4], "data_offsets": [1, 17]},
    }
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + b"\x07" + values.numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    assert torch.equal(Checkpoint.open(tmp_path).read("after"), values)


def test_a_checkpoint_survives_pickling_for_workers(make_model: Callable[..., Path]):
    checkpoint = Checkpoint.open(make_model("a"))
    copy = pickle.loads(pickle.dumps(checkpoint))
    assert torch.equal(copy.read("lm_head.weight"), checkpoint.read("lm_head.weight"))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_tensors_in_a_pickle_are_refused_by_name(tmp_path: Path):
    torch.save({"a": torch.eye(2), "b": torch.eye(2).to_sparse()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(MergeError, match=r"pytorch_model\.bin: not plain tensors: b;"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("is_archive", [True, False], ids=["an archive", "of torch before 1.6"])
def test_pickled_weights_are_read_and_run_no_code(tmp_path: Path, is_archive: bool):
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=is_archive)
    assert torch.equal(Checkpoint.open(tmp_path).read("a"), torch.ones(2))
    for content in (Payload(tmp_path / "ran"), Path("x")):
        torch.save({"a": content}, file, _use_new_zipfile_serialization=is_archive)
        with pytest.raises(MergeError, match=r"pytorch_model\.bin: cannot be loaded safely"):
            Checkpoint.open(tmp_path)
    assert not (tmp_path / "ran").exists()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(MergeError, match="not a file"):
        Checkpoint.open(tmp_path)


def corrupt(directory: Path, how: str) -> None:
    file = directory / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if how == "cut":
        file.write_bytes(content[:-10])
    elif how == "cut header":
        file.write_bytes(content[:20])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "not json":
        file.write_bytes(content[:8] + b"x" * length + content[8 + length :])
    elif how == "huge header":
        file.write_bytes((2**60).to_bytes(8, "little") + content[8:])
    elif how == "negative shape":
        _rewrite(
            file, header | {"lm_head.weight": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, -16]}}, content
        )
    elif how == "wrong size":
        _rewrite(file, header | {"lm_head.weight": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, content)
    elif how == "unknown dtype":
        _rewrite(file, header | {"lm_head.weight": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}, content)
    elif how == "no offsets":
        _rewrite(file, header | {"lm_head.weight": {"dtype": "F32", "shape": [1]}}, content)
    elif how == "shared bytes":
        _rewrite(file, header | {"more": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, content)


def _rewrite(file: Path, header: dict[str, object], content: bytes) -> None:
    text = json.dumps(header).encode()
    length = int.from_bytes(content[:8], "little")
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("cut", "cut short"),
        ("cut header", "cut short"),
        ("empty", "cut short"),
        ("not json", "header is corrupt"),
        ("huge header", "cut short or not safetensors"),
        ("negative shape", "expected a whole number from 0 to [0-9]+, got -1"),
        ("wrong size", "needs 12 bytes, its header says 4"),
        ("unknown dtype", "unknown dtype F4"),
        ("shared bytes", "and more share bytes"),
        ("no offsets", "header of lm_head.weight is corrupt"),
    ],
)
def test_a_broken_file_is_one_clear_line_at_opening(make_model: Callable[..., Path], how: str, expected: str):
    directory = make_model("a")
    corrupt(directory, how)
    with pytest.raises(MergeError, match=expected) as caught:
        Checkpoint.open(directory)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "missing.safetensors"}, r"names missing\.safetensors, which is missing"),
        ({"a": "../other.safetensors"}, "outside the directory"),
        ({"a": "/etc/passwd"}, "outside the directory"),
        ({"a": 3}, "outside the directory"),
        ({"nowhere": "model.safetensors"}, "no shard holds: nowhere"),
        ({}, "no weight_map"),
    ],
)
def test_a_broken_index_is_one_clear_line(
    make_model: Callable[..., Path], weight_map: dict[str, object], expected: str, pickled: bool
):
    directory = make_model("a")
    index = directory / "model.safetensors.index.json"
    if pickled:
        torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
        (directory / "model.safetensors").unlink()
        index = directory / "pytorch_model.bin.index.json"
        renamed = {"model.safetensors": "pytorch_model.bin"}
        weight_map = {name: renamed.get(str(file), file) for name, file in weight_map.items()}
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(MergeError, match=expected):
        Checkpoint.open(directory)


def test_what_is_no_model_is_said_so(tmp_path: Path):
    with pytest.raises(MergeError, match="no such directory"):
        Checkpoint.open(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(MergeError, match=r"no \*\.safetensors file \(found notes\.txt\)"):
        Checkpoint.open(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MergeError, match="an adapter, not a model"):
        Checkpoint.open(tmp_path)


def test_an_unknown_tensor_is_named(make_model: Callable[..., Path]):
    with pytest.raises(MergeError, match="no tensor nothing"):
        Checkpoint.open(make_model("a")).read("nothing")
