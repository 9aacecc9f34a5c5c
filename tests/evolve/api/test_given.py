"""Functions and lists in tasks and constraints, as names in a configuration."""

from __future__ import annotations

import threading

import numpy
import pandas
import pytest

from evolve.api.given import GivenObjects
from evolve.problems import ConfigError
from evolve.scoring import TaskError, load_scorers, parse_task
from evolve.scoring.scorers.given_functions import GivenFunctions, find_given, given


def by_length(model, items=("a", "bb", "ccc")):
    return [float(len(item)) for item in items]


def test_names_and_settings_stay_as_they_are():
    objects = GivenObjects()
    assert objects.tasks(["gsm8k", {"name": "arc", "metric": "acc"}]) == ["gsm8k", {"name": "arc", "metric": "acc"}]
    assert objects.tasks("gsm8k") == ["gsm8k"]
    assert not objects.functions


def test_a_function_alone_brings_its_items_as_a_default():
    objects = GivenObjects()
    (entry,) = objects.tasks(by_length)
    assert entry == {"python": "given:by_length", "items": {"python": "given:by_length_items"}}
    with given(objects.functions):
        (scorer,) = load_scorers([parse_task(entry)], [], 0)
        assert scorer.score(None, scorer.item_ids()).values == {0: 1.0, 1: 2.0, 2: 3.0}


def test_a_function_of_the_model_alone_scores_one_item():
    objects = GivenObjects()
    (entry,) = objects.tasks([lambda model: 0.25])
    with given(objects.functions):
        (scorer,) = load_scorers([parse_task(entry)], [], 0)
        assert scorer.score(None, scorer.item_ids()).values == {0: 0.25}


def test_a_function_that_takes_items_and_has_none_says_how_to_give_them():
    def scorer(model, words):
        return [1.0 for _ in words]

    with pytest.raises(ConfigError, match=r"tasks: scorer takes items.*def scorer\(model, words=ITEMS\)"):
        GivenObjects().task(scorer)


def test_items_may_be_taken_by_keyword_alone():
    def scorer(model, *, items=("a", "bb")):
        return [float(len(item)) for item in items]

    objects = GivenObjects()
    entries = objects.tasks([scorer, {"python": scorer, "items": ["dddd"], "alias": "other"}])
    with given(objects.functions):
        alone, told = load_scorers([parse_task(entry) for entry in entries], [], 0)
        assert alone.score(None, alone.item_ids()).values == {0: 1.0, 1: 2.0}
        assert told.score(None, [0]).values == {0: 4.0}

    def without(model, *, items):
        return [1.0 for _ in items]

    with pytest.raises(ConfigError, match=r"without takes items, and none are given"):
        objects.task(without)


def test_settings_may_hold_the_function_and_the_items():
    objects = GivenObjects()
    entry = objects.task({"python": by_length, "items": ["dddd"], "weight": 2, "alias": "length"})
    assert (entry["weight"], entry["alias"]) == (2, "length")
    with given(objects.functions):
        (scorer,) = load_scorers([parse_task(entry)], [], 0)
        assert scorer.score(None, [0]).values == {0: 4.0}


def test_two_functions_of_one_name_are_two_and_one_used_twice_is_one():
    objects = GivenObjects()
    first, second, again = (lambda model, items=[1]: [1.0]), (lambda model, items=[1]: [2.0]), by_length
    names = [objects.task({"python": one, "items": 3})["python"] for one in (first, second, again, again)]
    assert names == ["given:lambda", "given:lambda_2", "given:by_length", "given:by_length"]


def test_a_constraint_names_its_function():
    objects = GivenObjects()
    entry = objects.constraint({"python": by_length, "answers_of": "gsm8k", "at_most": 3})
    assert entry == {"python": "given:by_length", "answers_of": "gsm8k", "at_most": 3}


def test_a_constraint_that_asks_the_model_brings_its_items_as_a_task_does():
    def without(model, items):
        return [1.0 for _ in items]

    objects = GivenObjects()
    entry = objects.constraint({"python": by_length, "at_most": 3})
    assert entry == {"python": "given:by_length", "items": {"python": "given:by_length_items"}, "at_most": 3}
    assert objects.constraint({"python": lambda model: 0.25, "at_least": 0.1})["items"] == 1
    with pytest.raises(ConfigError, match=r"constraints: without takes items, and none are given"):
        objects.constraint({"python": without, "at_most": 3})


def test_what_is_no_task_and_no_constraint_is_left_to_the_reader_of_the_search():
    objects = GivenObjects()
    assert (objects.tasks(5), objects.tasks([None]), objects.tasks(iter(["gsm8k"]))) == ([5], [None], ["gsm8k"])
    assert objects.constraints({"python": "a:b", "at_most": 1}) == [{"python": "a:b", "at_most": 1}]
    with pytest.raises(ConfigError, match=r'constraints: by_length is no constraint.*"at_most": NUMBER'):
        objects.constraints(by_length)


@pytest.mark.parametrize(
    "items",
    [["a", "b"], ("a", "b"), iter(["a", "b"]), {"a": 0, "b": 1}.keys(), numpy.array(["a", "b"]), lambda: ["a", "b"]],
    ids=["list", "tuple", "iterator", "keys", "array", "function"],
)
def test_items_may_have_any_form_that_has_an_order(items):
    objects = GivenObjects()
    entry = objects.task({"python": lambda model, items: [float(ord(item)) for item in items], "items": items})
    with given(objects.functions):
        (scorer,) = load_scorers([parse_task(entry)], [], 0)
        assert scorer.score(None, [0, 1]).values == {0: 97.0, 1: 98.0}


def test_the_rows_of_a_table_are_items_and_their_number_may_be_numpys():
    objects = GivenObjects()
    entries = [
        objects.task({"python": lambda model, items: [float(item["a"]) for item in items], "items": table})
        for table in (pandas.DataFrame({"a": [3, 4]}),)
    ]
    with given(objects.functions):
        (scorer,) = load_scorers([parse_task(entry) for entry in entries], [], 0)
        assert scorer.score(None, [0, 1]).values == {0: 3.0, 1: 4.0}
    assert objects.task({"python": by_length, "items": numpy.int64(3)})["items"] == 3


def test_items_without_an_order_are_refused():
    with pytest.raises(ConfigError, match="items are a set, which has no order"):
        GivenObjects().task({"python": by_length, "items": {"a", "b"}})


def test_an_objective_stays_where_the_search_is_so_that_it_may_hold_on_to_anything():
    objects, lock = GivenObjects(), threading.Lock()
    assert objects.objective(lambda scores: float(lock.locked())) == "given:objective_lambda"
    with given(objects.functions, objects.staying):
        assert find_given("given:objective_lambda") is not None
        GivenFunctions().packed()
    with given(objects.functions), pytest.raises(TaskError, match="cannot be sent to workers"):
        GivenFunctions().packed()
