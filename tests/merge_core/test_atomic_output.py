"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
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


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path: Path):
    def full() -> None:
        with new_file(tmp_path / "file"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device") as caught:
        full()
    assert caught.value.filename == str(tmp_path / "file")


def test_a_file_that_is_not_to_give_way_is_kept(tmp_path: Path):
    write_atomically(tmp_path / "file", "first\n", replaces=False)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", "second\n", replaces=False)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["first\n"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path):
    """As /dev/stdout, which a new file had taken the place of."""
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "text")
    reader.join()
    assert read == ["text"]
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
