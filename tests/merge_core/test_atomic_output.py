"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merge_core.atomic_output import new_file, write_atomically


def test_a_file_keeps_its_content_when_writing_fails(tmp_path: Path):
    def interrupted() -> None:
        with new_file(tmp_path / "file") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    write_atomically(tmp_path / "file", "old\n")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old\n"]
    write_atomically(tmp_path / "file", "new\n")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["new\n"]
    assert os.stat(tmp_path / "file").st_mode & 0o777 == 0o644
