"""JSON from anyone: a map within bounds, or one problem that names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from merge_core import MergeError
from merge_core.json_files import read_json


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, "nested more than 64 levels deep"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested more than 64 levels deep"),
        ('{"a": [' + "[]," * 9_000_000 + "[]]}", "more than 8000000 values"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON: Exceeds the limit"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        ("[1]", "expected a map, got list"),
        ("\udcff", "not JSON"),
        ("", "not JSON"),
    ],
    ids=lambda text: text[:12].encode("ascii", "replace").decode(),
)
def test_what_is_no_map_within_bounds_is_one_problem(tmp_path: Path, text: str, expected: str):
    file = tmp_path / "config.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(MergeError) as caught:
        read_json(file)
    (problem,) = map(str, caught.value.problems)
    assert problem.startswith(f"{file}: ")
    assert expected in problem


def test_devices_and_pipes_are_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(MergeError, match=r"not a file|Is a directory"):
            read_json(tmp_path / name)
    with pytest.raises(MergeError, match="cannot be read: No such file"):
        read_json(tmp_path / "nothing")
    (tmp_path / "a.json").write_text("{  }")
    with pytest.raises(MergeError, match="larger than 1e-06 MB"):
        read_json(tmp_path / "a.json", 1)


def test_what_real_files_have_is_read(tmp_path: Path):
    content = {"time_step_limit": [0.0, float("inf")], "layers": [[i, str(i)] for i in range(1000)], "deep": {"a": {}}}
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "c.json") == content
    (tmp_path / "c.json").write_text('{"a": 1, "a": 2}')
    assert read_json(tmp_path / "c.json", repeats=True) == {"a": 2}
