"""YAML from anyone: data within bounds, or one problem with its line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from merge_core import MergeError, input_files
from merge_core.yaml_text import parse_nodes, parse_yaml, read_yaml, repeated_keys

ALIASES = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
)
MERGE_KEYS = "\n".join(
    ["a: &a {k: 1}"]
    + [f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 9)}]}}" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ALIASES, "r.yml:6: not YAML: its aliases stand for more than 200000 values"),
        (MERGE_KEYS, "its aliases stand for more than 200000 values"),
        ("a: 1\nb: &x [*x]", "r.yml:2: not YAML: an anchor stands in what it names"),
        ("&x {b: *x}", "an anchor stands in what it names"),
        ("[" * 900, "nested more than 64 levels deep"),
        ("- " * 900, "nested more than 64 levels deep"),
        ("[" + "1," * 200_001 + "]", "more than 200000 values"),
        ("a: 1\nb: !!bool foo", 'r.yml:2: not YAML: "foo" cannot be read as bool'),
        ("!!int ''", '"" cannot be read as int'),
        ("!!timestamp abc", "unknown tag tag:yaml.org,2002:timestamp"),
        ("!!binary x", "unknown tag"),
        ("!!python/object/apply:os.system [id]", "unknown tag"),
        ("a: " + "9" * 5000, "cannot be read as int"),
        ('"\\ud800"', "r.yml:1: not YAML: "),
        ("a: 1\nb: 2\na: 3", 'r.yml:3: not YAML: key "a" is given twice'),
        ("{[a]: b}", "unhashable key"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: \0", "unacceptable character"),
    ],
    ids=lambda text: text[:20].replace("\0", "NUL"),
)
def test_what_is_no_data_is_one_problem(text: str, expected: str):
    with pytest.raises(MergeError) as caught:
        parse_yaml(text, "r.yml")
    (problem,) = caught.value.problems
    assert expected in str(problem)
    assert len(str(problem)) < 200


def test_aliases_and_merge_keys_within_bounds_mean_what_they_say():
    (found,) = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\nd: 2024-01-01\ne: =\nf: 1_000")
    assert found["b"] == {"x": 1, "y": 3}
    assert found["c"] == [{"x": 1, "y": 2}] * 2
    assert found["d"] == "2024-01-01"  # nothing here is a date
    assert found["e"] == "="
    assert found["f"] == 1000


def test_a_pipe_can_be_read_again(tmp_path: Path):
    pipe = tmp_path / "pipe.yml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: 1\n",))
    writer.start()
    assert read_yaml(pipe) == [{"a": 1}]
    writer.join()
    assert read_yaml(pipe) == [{"a": 1}]


def test_what_never_ends_or_never_begins_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(input_files, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe.yml")
    with pytest.raises(MergeError, match="a pipe into which nothing is written"):
        read_yaml(tmp_path / "pipe.yml")
    for path in (Path("/dev/zero"), Path("/dev/random"), tmp_path):
        with pytest.raises(MergeError, match=r"not a file|Is a directory"):
            read_yaml(path)
    (tmp_path / "long.yml").write_text("a" * 8_000_001)
    with pytest.raises(MergeError, match="larger than 8 MB"):
        read_yaml(tmp_path / "long.yml")


def test_a_key_that_overrides_a_merged_one_is_given_once():
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n"
    ((node, found),) = parse_nodes(text, repeats=True)
    assert not list(repeated_keys(node))
    assert found["b"] == {"x": 1, "y": 3}
