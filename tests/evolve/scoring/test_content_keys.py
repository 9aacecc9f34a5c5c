"""Hashes of data and of code: equal for what is equal, different for whatever a score could depend on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evolve.scoring.content_keys import code_keys, content_key, file_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass
class Mark:
    name: str
    found: dict


class Kind(Enum):
    ONE = 1
    OTHER = 2


class Remembers:
    """Of which two with other states are used alike."""

    def __init__(self, calls):
        self.calls = calls


@given(JSON, JSON)
def test_data_have_equal_keys_if_they_are_equal(one, other):
    import json

    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_key(one) == content_key(other)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a", b"b"),
        ({1: "a"}, {2: "a"}),
        ({(0, 1): "a"}, {(0, 2): "a"}),
        (numpy.arange(4), numpy.arange(4).reshape(2, 2)),
        (numpy.zeros(3), numpy.zeros(3, dtype=numpy.float32)),
        ({"a", "b"}, {"a", "c"}),
        ("\ud800", "\ud801"),
        (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (Path("a"), Path("b")),
        (range(3), range(4)),
        (Decimal("0.1"), Decimal("0.10")),
        (Mark("a", {(0, 1): 1}), Mark("a", {(0, 2): 1})),
        (Kind.ONE, Kind.OTHER),
        (torch.zeros(3, dtype=torch.bfloat16), torch.tensor([0, 0, 1], dtype=torch.bfloat16)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (numpy.array([{"a": 1}, None]), numpy.array([{"a": 2}, None])),
        (pandas.DataFrame({"a": ["x", "y"]}), pandas.DataFrame({"a": ["x", "z"]})),
    ],
)
def test_what_json_does_not_know_counts_too(one, other):
    assert content_key(one) == content_key(one)
    assert content_key([one]) != content_key([other])


def test_what_an_object_remembers_does_not_count():
    assert content_key(Remembers(1)) == content_key(Remembers(2))


IN_ANOTHER_PROCESS = """
import re
import numpy
from evolve.scoring.content_keys import content_key
from evolve.scoring.scorers.given_functions import given_code_keys

def scorer(model, items):
    return [float(item in {"a", "b", "c"}) for item in items]

print(content_key([{"a", "b", "c"}, object, print, re.compile("a"), numpy.array([{"a"}, {}])]), given_code_keys(scorer))
"""


def test_a_key_is_the_same_in_every_process():
    keys = [
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert keys[0] == keys[1] != ""


@pytest.fixture
def project(tmp_path):
    files = {
        "scorer.py": """
            import json, helper
            from package import part
            from package.deep.leaf import thing as other
            BONUS = 1
            def score(model, items):
                from late import something
                plugin = importlib.import_module("named_late")
                return json.loads(open("words.txt").read())
            def log(text):
                open("log.txt", "a").write(text)
        """,
        "helper.py": "from helped import x\n",
        "helped.py": "x = 1\n",
        "late.py": "import scorer\n",
        "named_late.py": "",
        "words.txt": "[1]",
        "log.txt": "",
        "unused.py": "y = 1\n",
        "package/__init__.py": "from . import relative\n",
        "package/relative.py": "from .part import z\n",
        "package/part.py": "z = 2\n",
        "package/deep/__init__.py": "",
        "package/deep/leaf.py": "from ..sideways import thing\n",
        "package/sideways.py": "from os.path import join as thing\n",
        "package/unused.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[12:] if line.startswith(" " * 12) else line for line in text.split("\n")))
    return tmp_path


NEEDED = {
    *("scorer.py", "helper.py", "helped.py", "late.py", "named_late.py", "words.txt"),
    *("package/__init__.py", "package/relative.py", "package/part.py"),
    *("package/deep/__init__.py", "package/deep/leaf.py", "package/sideways.py"),
}


def test_the_code_of_a_module_is_all_that_it_needs_beside_it_and_nothing_else(project):
    assert set(code_keys(project / "scorer.py")) == NEEDED


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_change_of_any_file_is_named_and_changes_no_other_key(project, name):
    before = code_keys(project / "scorer.py")
    with (project / name).open("a") as file:
        file.write("\n# more\n")
    after = code_keys(project / "scorer.py")
    assert {what for what in before if before[what] != after.get(what)} == {name}
    assert set(after) == set(before)


def test_what_is_installed_is_not_followed():
    found = code_keys(Path(content_key.__code__.co_filename))
    assert found == {}  # the program itself: its version tells
    assert all(name.startswith("numpy/") for name in code_keys(Path(numpy.__file__)))


def test_code_that_is_no_python_and_code_in_a_circle_have_keys(project):
    (project / "helper.py").write_text("def (\n")
    assert "helper.py" in code_keys(project / "scorer.py")
    (project / "helper.py").write_text("import scorer, helper\n")
    assert "helper.py" in code_keys(project / "scorer.py")


def test_the_file_of_whatever_can_be_called_is_found():
    here = Path(__file__)

    class Called:
        def __call__(self):
            """Nothing."""

    for function in (test_a_key_is_the_same_in_every_process, partial(partial(Called)), Called, Called(), lambda: 0):
        assert file_of(function) == here
    assert file_of(len) is None
    assert file_of(3) is None
