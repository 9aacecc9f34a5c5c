"""Directories appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merge_core import MergeError
from merge_core.output_directory import new_directory


def write(output: Path, overwrite: bool = False) -> None:
    with new_directory(output, overwrite) as directory:
        (directory / "model.safetensors").write_bytes(b"whole")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path):
    def interrupted() -> None:
        with new_directory(tmp_path / "model") as directory:
            (directory / "model.safetensors").write_bytes(b"half")
            assert not (tmp_path / "model").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "model").write_text("")
    with pytest.raises(MergeError, match="not a directory"):
        write(tmp_path / "model", overwrite=True)


def test_the_finished_directory_has_ordinary_permissions(tmp_path: Path):
    write(tmp_path / "model")
    (tmp_path / "other").mkdir()
    assert os.stat(tmp_path / "model").st_mode == os.stat(tmp_path / "other").st_mode


def test_a_directory_with_content_is_kept_unless_overwriting_is_allowed(tmp_path: Path):
    (tmp_path / "model").mkdir()
    write(tmp_path / "model")  # empty: fine
    with pytest.raises(MergeError, match="exists and is not empty"):
        write(tmp_path / "model")
    with pytest.raises(RuntimeError), new_directory(tmp_path / "model", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"whole"
    write(tmp_path / "model", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_what_another_process_has_written_meanwhile_is_kept(tmp_path: Path):
    output = tmp_path / "out"

    def write_twice() -> None:
        with new_directory(output) as first:
            (first / "who").write_text("first")
            with new_directory(output) as second:
                (second / "who").write_text("second")

    with pytest.raises(MergeError, match="exists and is not empty"):
        write_twice()
    assert (output / "who").read_text() == "second"
    assert list(tmp_path.iterdir()) == [output]
