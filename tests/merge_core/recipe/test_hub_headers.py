"""A model of the hub is planned from its headers, without a byte of its weights."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from merge_core import Checkpoint, MergeError, resolve_model
from merge_core.recipe.hub_headers import headers_only

MakeModel = Callable[..., Path]


class FakeHub:
    """A hub that has one model, and counts what is read of it."""

    def __init__(self, model: Path, here: Path) -> None:
        self.model, self.here, self.read = model, here, 0
        self.offline = False

    def snapshot_download(self, name: str, *, allow_patterns: list[str], **_: Any) -> str:
        self.here.mkdir(exist_ok=True)
        for file in self.model.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, self.here / file.name)
        return str(self.here)

    def ls(self, place: str, detail: bool) -> list[dict[str, Any]]:
        if self.offline:
            raise ConnectionError("offline")
        entries = [
            {"name": f"{place}/{file.name}", "type": "file", "size": file.stat().st_size}
            for file in self.model.iterdir()
        ]
        return [*entries, {"name": f"{place}/original", "type": "directory", "size": 0}]

    def open(self, name: str, mode: str, block_size: int) -> io.BytesIO:
        hub, content = self, (self.model / name.rpartition("/")[2]).read_bytes()

        class Counting(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                found = super().read(size)
                hub.read += len(found)
                return found

        return Counting(content)


@pytest.fixture
def hub(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(make_model("published"), tmp_path / "snapshot")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: fake)
    return fake


def test_the_headers_are_those_of_the_model_and_no_weight_is_read(hub: FakeHub):
    weights = hub.model / "model.safetensors"
    with headers_only() as headers:
        directory = resolve_model("org/name")
        found, real = Checkpoint.open(directory), Checkpoint.open(hub.model)
        assert {name: (header.dtype, header.shape) for name, header in found.tensors.items()} == {
            name: (header.dtype, header.shape) for name, header in real.tensors.items()
        }
        assert found.config == real.config
        assert resolve_model("org/name") == directory
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    assert hub.read == header
    assert headers.missing_bytes == {"org/name": weights.stat().st_size}
    assert not directory.exists()


def test_what_is_here_already_is_not_fetched(hub: FakeHub):
    shutil.copytree(hub.model, hub.here)
    with headers_only() as headers:
        assert Checkpoint.open(resolve_model("org/name")).tensors
    assert (hub.read, headers.missing_bytes) == (0, {})


def test_without_a_network_what_is_here_is_used_and_what_is_not_is_an_error(hub: FakeHub):
    hub.offline = True
    with headers_only(), pytest.raises(MergeError, match=r"org/name.*offline"):
        resolve_model("org/name")
    shutil.copy(hub.model / "model.safetensors", hub.here)
    with headers_only():
        assert Checkpoint.open(resolve_model("org/name")).tensors


def test_a_model_without_headers_is_fetched_whole(hub: FakeHub):
    (hub.model / "model.safetensors").rename(hub.model / "pytorch_model.bin")
    with headers_only() as headers:
        assert (resolve_model("org/name") / "pytorch_model.bin").is_file()
    assert headers.missing_bytes == {}


def test_outside_of_it_models_are_fetched_whole(hub: FakeHub):
    assert (resolve_model("org/name") / "model.safetensors").stat().st_size
    assert hub.read == 0
