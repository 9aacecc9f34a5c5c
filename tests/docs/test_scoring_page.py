"""The examples in docs/scoring.md are sound, and it names every kind and every ready-made constraint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from evolve.scoring import KINDS, ConstraintConfig, parse_task
from evolve.scoring.scorers.constraints import BUILT_IN

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_every_kind_and_constraint_is_named():
    assert all(f"`{key}:`" in PAGE for key in KINDS)
    assert all(f"`{name}`" in PAGE for name in BUILT_IN)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example)[:40])
def test_every_example_is_read(example):
    for task in example.get("tasks", ()):
        assert parse_task(task)
    for constraint in example.get("constraints", ()):
        assert ConstraintConfig.model_validate(constraint)
    assert example.keys() <= {"tasks", "constraints"}


def test_the_methods_in_the_table_are_those_of_the_model():
    from evolve.scoring.scorers.text_model import TextModel

    named = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    public = [name for name, value in vars(TextModel).items() if not name.startswith("_") and callable(value)]
    assert sorted(named) == sorted(public)


def test_an_example_with_a_mistake_would_be_found():
    with pytest.raises(ValidationError):
        parse_task({**EXAMPLES[-1]["constraints"][0]})
