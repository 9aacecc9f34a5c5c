"""Damaged inputs, full disks and kills: one clear line, and nothing left that could be taken for a model."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import files_up_to
from safetensors.torch import load_file, save_file
from warm_program import WarmPython

from merge_core import MergeError, Recipe, merge
from merge_core.checkpoint.writer import ShardWriter

MakeModel = Callable[..., Path]
RECIPE = Recipe.from_mapping(
    {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 1e-6}}],
    }
)


def refusal(zoo: Path) -> str:
    """The one line that a merge is refused with; it leaves nothing behind."""
    before = set(zoo.iterdir())
    with pytest.raises(MergeError) as caught:
        merge(RECIPE, zoo / "m", relative_to=zoo)
    assert set(zoo.iterdir()) == before
    (line,) = map(str, caught.value.problems)
    assert "\n" not in line
    return line


@pytest.fixture
def sharded(zoo: Path) -> Path:
    """The model b of the zoo, in three files with an index."""
    tensors = load_file(zoo / "b" / "model.safetensors")
    (zoo / "b" / "model.safetensors").unlink()
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    ShardWriter(zoo / "b", layout, shard_bytes=8000).write(tensors.items())
    return zoo / "b"


def edit_index(directory: Path, change: Callable[[dict[str, str]], object]) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("size", [0, 4, 100, 3000, -1])
def test_a_truncated_file_is_named(zoo: Path, size: int):
    file = zoo / "b" / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:size])
    assert f"{file}: " in refusal(zoo)


def test_a_corrupt_header_is_named(zoo: Path):
    file = zoo / "b" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:20] = b"\xff" * 12
    file.write_bytes(content)
    assert "the header is corrupt" in refusal(zoo)


def test_a_missing_shard_is_named(sharded: Path):
    next(sharded.glob("model-00002-*")).unlink()
    assert "names model-00002-of-" in refusal(sharded.parent)


def test_shards_that_do_not_belong_together_are_named(sharded: Path):
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    assert "is in model-00001-of-" in refusal(sharded.parent)


def test_an_index_that_names_tensors_no_shard_holds_is_refused(sharded: Path):
    edit_index(sharded, lambda names: names.update({"model.more.weight": next(iter(names.values()))}))
    assert "names tensors that no shard holds: model.more.weight" in refusal(sharded.parent)


@pytest.mark.parametrize("place", ["../a/model.safetensors", "{zoo}/a/model.safetensors", "..", "", "x/../y"])
def test_an_index_does_not_reach_outside_its_directory(sharded: Path, place: str):
    place = place.format(zoo=sharded.parent)
    edit_index(sharded, lambda names: names.update({"model.norm.weight": place}))
    assert "outside the directory" in refusal(sharded.parent)


def test_links_to_the_blobs_of_a_cache_are_followed(zoo: Path):
    file = zoo / "b" / "model.safetensors"
    file.rename(zoo / "blob")
    file.symlink_to(zoo / "blob")
    assert merge(RECIPE, zoo / "m", relative_to=zoo).tensors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named_however_small_their_weight(zoo: Path, value: float):
    file = zoo / "b" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, file, metadata={"format": "pt"})
    assert '"b": tensor model.layers.1.mlp.up_proj.weight has NaN or infinite values' in refusal(zoo)


def test_a_full_disk_is_said_in_one_line(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert refusal(zoo).startswith(f"{zoo / 'm'}: cannot be written: No space left on device. Free some space")
    assert calls


def test_a_write_that_fails_half_way_is_said_in_one_line_and_leaves_nothing(zoo: Path):
    with files_up_to(20_000):
        said = refusal(zoo)
    assert said == f"{zoo / 'm'}: cannot be written: File too large. Free some space, or name an output on another disk"


def test_an_output_below_a_file_is_said_in_one_line(zoo: Path):
    (zoo / "file").touch()
    with pytest.raises(MergeError, match=r"file: cannot be made: (File exists|Not a directory)"):
        merge(RECIPE, zoo / "file" / "m", relative_to=zoo)


KILL = """
import os, signal, sys
from pathlib import Path
from merge_core import Checkpoint, merge, fingerprint

zoo = Path(sys.argv[1])
target, overwrite = zoo / "out" / "m", sys.argv[2] == "overwrite"
(zoo / "out").mkdir()
if overwrite:
    merge(zoo / "old.yml", target)

def is_model(directory):
    return (directory / "config.json").exists() and any(directory.glob("*.safetensors"))

whole = merge(zoo / "new.yml", zoo / "expected").fingerprint
moment = 0
while True:
    child = os.fork()
    if child == 0:
        left = moment
        def hook(event, arguments):
            global left
            if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree") and any(
                isinstance(a, (str, os.PathLike)) and str(a).startswith(str(zoo / "out")) for a in arguments
            ):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
        sys.addaudithook(hook)
        merge(zoo / "new.yml", target, overwrite=overwrite, shard_bytes=8000)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    models = [path for path in (zoo / "out").glob("**/") if is_model(path)]
    for path in models:
        checkpoint = Checkpoint.open(path)
        found = fingerprint((name, checkpoint.read(name)) for name in checkpoint.tensors)
        assert found == whole or overwrite, path
    if overwrite:
        assert models, "the old model or the new one is always there"
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
    if (target / "config.json").exists() and not overwrite:
        import shutil
        shutil.rmtree(target)
    moment += 1
assert [path.name for path in (zoo / "out").iterdir()] == ["m"], list((zoo / "out").iterdir())
print(moment)
"""


@pytest.mark.parametrize("mode", ["fresh", "overwrite"])
def test_a_kill_at_any_moment_leaves_no_half_of_a_model_and_the_next_merge_cleans_up(
    make_model: MakeModel, tmp_path: Path, mode: str
):
    for seed, name in enumerate("abc"):
        make_model(name, seed=seed, layers=1)
    (tmp_path / "new.yml").write_text(RECIPE.to_yaml())
    (tmp_path / "old.yml").write_text("{merge_method: passthrough, models: [{model: c}]}")
    done = WarmPython(KILL, "-c", tmp_path, mode).ended()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "moments that were tried"
