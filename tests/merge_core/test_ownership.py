"""Nothing is deleted or written over but what was made here, and no input is, in whatever spelling."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from merge_core import MergeError
from merge_core.output_directory import new_directory, recover
from merge_core.ownership import (
    MARKER,
    check_keeps,
    check_made,
    content_key,
    foreign_files,
    is_made,
    is_within,
    list_files,
    mark_unfinished,
    remove_made,
)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory that was made here."""
    with new_directory(tmp_path / "made") as directory:
        (directory / "config.json").write_text("{}")
        (directory / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
        (directory / "package").mkdir()
        (directory / "package" / "code.py").write_text("x = 1\n")
    return tmp_path / "made"


def add(made: Path) -> None:
    (made / "notes.txt").write_text("mine")


def add_deep(made: Path) -> None:
    (made / "package" / "mine.py").write_text("")


def add_empty_directory(made: Path) -> None:
    (made / "checkpoints").mkdir()


def edit(made: Path) -> None:
    (made / "config.json").write_text('{"mine": 1}')


def train_on(made: Path) -> None:
    file = made / "model.safetensors"  # the same size, other values
    file.write_bytes(bytes(255 - byte for byte in file.read_bytes()))


def link_away(made: Path) -> None:
    shutil.move(made / "model.safetensors", made.parent / "elsewhere")
    (made / "model.safetensors").symlink_to(made.parent / "elsewhere")


def lose_the_list(made: Path) -> None:
    (made / MARKER).unlink()


def spoil_the_list(made: Path) -> None:
    (made / MARKER).write_text('{"files": 3}')


def nest_the_list(made: Path) -> None:
    (made / MARKER).write_text("[" * 100_000)


def put_a_pipe_in_its_place(made: Path) -> None:
    (made / MARKER).unlink()
    os.mkfifo(made / MARKER)


def test_what_was_made_here_is_known(made: Path):
    assert foreign_files(made) == []
    check_made(made)


@pytest.mark.parametrize("moved", [shutil.copytree, shutil.move])
def test_it_is_known_where_it_was_copied_or_moved_to(made: Path, tmp_path: Path, moved):
    moved(made, tmp_path / "there")
    check_made(tmp_path / "there")


@pytest.mark.parametrize(
    "change",
    [
        *(add, add_deep, add_empty_directory, edit, train_on, link_away),
        *(lose_the_list, spoil_the_list, nest_the_list, put_a_pipe_in_its_place),
    ],
)
def test_what_somebody_else_put_there_or_changed_is_never_replaced(made: Path, change):
    change(made)
    before = {path: path.is_file() and path.read_bytes() for path in made.rglob("*")}
    said = r"Move (it|that) away, or name another output"
    with pytest.raises(MergeError, match=said), new_directory(made, overwrite=True):
        pytest.fail("begun")
    assert {path: path.is_file() and path.read_bytes() for path in made.rglob("*")} == before


def test_what_appears_while_the_new_one_is_made_is_kept(made: Path):
    with pytest.raises(MergeError, match=r"changed since: notes\.txt"), new_directory(made, overwrite=True):
        add(made)
    assert (made / "notes.txt").read_text() == "mine"
    assert [entry.name for entry in made.parent.iterdir()] == ["made"]


def test_a_key_is_the_same_for_a_file_and_its_bytes_and_differs_where_either_does(tmp_path: Path):
    for content in (b"", b"a", b"b" * 70_000, b"b" * 70_001):
        (tmp_path / "file").write_bytes(content)
        assert content_key(tmp_path / "file") == content_key(content)
    assert len({content_key(content) for content in (b"", b"a", b"b", b"b" * 70_000, b"b" * 70_001)}) == 5


@pytest.mark.parametrize("offset", range(0, 95 << 20, 19 << 20))
def test_a_change_of_one_matrix_of_a_large_file_is_noticed(tmp_path: Path, offset: int):
    file = tmp_path / "model.safetensors"
    file.touch()
    os.truncate(file, 100 << 20)
    before = content_key(file)
    with file.open("rb+") as stream:
        stream.seek(offset + 1)
        stream.write(b"x" * (5 << 20))
    assert not is_made(file, [before])
    assert is_made(file, [content_key(file)])


def test_keys_of_earlier_versions_hold(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    file.touch()
    os.truncate(file, 100 << 20)
    earlier = content_key(file, 16)
    assert earlier == hashlib.sha256(str(100 << 20).encode() + bytes(16 * 4096)).hexdigest()[:32]
    assert earlier != content_key(file)
    assert is_made(file, [earlier])
    assert not is_made(file, [f"{samples}-{earlier}" for samples in (0, 1, 10**12)])


def test_what_has_the_name_of_a_killed_merge_but_no_mark_stays(tmp_path: Path):
    mine = tmp_path / ".m.partial-999999999-mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("mine")
    left = tmp_path / ".m.partial-999999999-left"
    left.mkdir()
    mark_unfinished(left)
    (left / "model.safetensors").touch()
    recover(tmp_path / "m")
    assert (mine / "diary.txt").read_text() == "mine"
    assert not left.exists()


def test_only_marked_directories_are_removed(made: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(made)
    remove_made(tmp_path / "other")
    remove_made(tmp_path / "link")
    remove_made(tmp_path / "absent")
    assert made.is_dir()
    assert (tmp_path / "other").is_dir()
    remove_made(made)
    assert not made.exists()


def links_to_a_parent(path: Path) -> Path:
    (path.parent / "link").symlink_to(path.parent)
    return path.parent / "link" / path.name


@pytest.mark.parametrize(
    "spelling",
    [
        lambda path: path,
        lambda path: path / "package" / "..",
        lambda path: Path(os.path.relpath(path)),
        links_to_a_parent,
        lambda path: path / "package",
        lambda path: path / "model.safetensors",
    ],
)
def test_an_input_is_kept_in_every_spelling(made: Path, spelling):
    with pytest.raises(MergeError, match="the model would be deleted with it"):
        check_keeps(made, {"the model": [spelling(made)]})


def test_an_input_whose_links_lead_into_the_output_is_kept(made: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(made / "model.safetensors")
    with pytest.raises(MergeError, match="the model would be deleted with it"):
        check_keeps(made, {"the model": [tmp_path / "model"]})


def test_a_neighbour_and_what_is_not_there_are_in_nobodys_way(made: Path, tmp_path: Path):
    (tmp_path / "made-too").mkdir()
    check_keeps(made, {"the model": [tmp_path / "made-too", tmp_path / "absent", tmp_path]})
    check_keeps(tmp_path / "absent", {"the model": [tmp_path / "absent"]})
    assert not is_within(tmp_path, made)


def test_one_directory_under_two_names_is_one(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # As on a disk that does not tell capitals apart: another name, the same file on the disk.
    told = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: told(str(path).replace("MADE", "made"), **how))
    assert is_within(tmp_path / "MADE", made)


def test_a_list_is_made_anew_of_what_is_there(made: Path):
    add(made)
    list_files(made)
    assert foreign_files(made) == []
