"""Which kind of task an entry of `tasks:` is, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from evolve.scoring import KINDS, LmEvalTask, TaskConfig, parse_task


def said_of(entry: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        parse_task(entry)
    return "; ".join(f"{detail['loc']}: {detail['msg']}" for detail in caught.value.errors())


def test_a_name_alone_is_an_lm_eval_task() -> None:
    assert parse_task("arc_easy") == parse_task({"name": "arc_easy"}) == LmEvalTask(name="arc_easy")


def test_an_entry_of_no_kind_is_told_all_kinds() -> None:
    said = said_of({"weight": 2})
    assert all(f"{key}:" in said for key in KINDS)


def test_a_misspelt_kind_is_told_the_right_one() -> None:
    assert "Did you mean 'name'?" in said_of({"nmae": "arc_easy"})


def test_an_entry_that_is_neither_text_nor_a_mapping_is_refused() -> None:
    assert "expected a task's name or its settings, got 3" in said_of(3)
    assert "expected a task's name or its settings, got None" in said_of(None)


def test_a_task_refuses_unknown_keys_and_weights_that_are_not_positive() -> None:
    for wrong in (
        {"wieght": 1},
        {"weight": -1},
        {"weight": 0},
        {"weight": math.nan},
        {"direction": "up"},
        {"signal": "x"},
    ):
        assert next(iter(wrong)) in said_of({"name": "a", **wrong})


def test_the_label_is_the_alias_where_there_is_one() -> None:
    assert LmEvalTask(name="a").label == "a"
    assert LmEvalTask(name="a", alias="b").label == "b"


@pytest.mark.parametrize(
    "kind", [TaskConfig, *(kind.config for kind in KINDS.values())], ids=lambda kind: kind.__name__
)
def test_every_field_of_a_task_is_described(kind: type[TaskConfig]) -> None:
    properties = kind.model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())


@pytest.mark.parametrize("key", KINDS)
def test_a_kind_is_told_by_a_key_that_it_needs_and_no_other_kind_has(key: str) -> None:
    having = [kind for kind in KINDS.values() if key in kind.config.model_fields]
    assert having == [KINDS[key]]
    assert KINDS[key].config.model_fields[key].is_required()
