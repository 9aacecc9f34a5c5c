"""Constraints: what they measure, by how much a value is outside, and what is wrong with them before a search."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evolve.scoring import (
    AnswerRecorder,
    ConstraintConfig,
    ScoringError,
    TaskError,
    load_constraints,
    load_scorers,
    parse_task,
)
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.constraints import answer_length, empty_rate, refusal_rate, script_share
from evolve.scoring.scorers.feasibility import Constraint, rank_value

MODULE = """
def shortness(answers):
    return [1 / (1 + len(answer)) for answer in answers]

def one_number(answers):
    return 0.25

def asks(model, items):
    return [len(answer) for answer in model.generate(items, max_new_tokens=4)]

def trips(answers):
    return [1 / 0 for answer in answers]

def says_nan(answers):
    return [float("nan") for answer in answers]

def too_few(answers):
    return [1.0]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "my_constraints.py").write_text(MODULE)
    sys.modules.pop("my_constraints", None)
    return tmp_path


def constraint_of(directory: Path, **settings: Any) -> Constraint:
    if "items" not in settings:
        settings = {"answers_of": "task", **settings}
    (constraint,) = load_constraints([ConstraintConfig(**settings)], [], directory)
    return constraint


def bounded(at_most: float | None, at_least: float | None) -> Constraint:
    return Constraint("c", "task", lambda model, answers: [], "mean", at_most, at_least)


class TestBuiltIn:
    def test_answer_length_counts_in_units(self) -> None:
        answers = ["", "two words", "é"]
        assert answer_length(answers) == [0, 9, 1]
        assert answer_length(answers, unit="words") == [0, 2, 1]
        assert answer_length(answers, unit="bytes") == [0, 9, 2]
        with pytest.raises(ValueError, match="characters, words or bytes"):
            answer_length(answers, unit="tokens")  # type: ignore[arg-type]

    def test_refusals_are_told_by_how_they_begin(self) -> None:
        answers = ["I'm sorry, but I can't help.", "I\u2019M SORRY", "Paris.", "x" * 200 + " I cannot"]
        assert refusal_rate(answers) == [1, 1, 0, 0]
        assert refusal_rate(["Je refuse."], phrases=["je refuse"]) == [1]

    def test_the_share_of_a_script_is_over_letters_alone(self) -> None:
        assert script_share(["abc 123!", "aб", "漢字かな", ""], script="latin") == [1.0, 0.5, 0.0, 1.0]
        assert script_share(["漢字かな"], script="cjk") == [0.5]
        assert script_share(["漢字かな"], script="cjk+hiragana") == [1.0]

    def test_empty_answers_are_those_without_anything_to_see(self) -> None:
        assert empty_rate(["", " \n", "a"]) == [1, 1, 0]


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 10))
def test_a_value_within_its_bounds_violates_nothing_and_further_out_violates_more(
    first: float, second: float, further: float
) -> None:
    low, high = sorted((first, second))
    constraint = bounded(high, low)
    assert constraint.violation(low) == constraint.violation(high) == constraint.violation((low + high) / 2) == 0
    assert constraint.violation(high + further) <= constraint.violation(high + 2 * further)
    assert constraint.violation(low - further) <= constraint.violation(low - 2 * further)


def test_a_violation_is_a_share_of_the_bound() -> None:
    assert bounded(0.1, None).violation(0.31) == pytest.approx(2.1)
    assert bounded(None, 0.9).violation(0.45) == pytest.approx(0.5)
    assert bounded(0.0, None).violation(0.3) == pytest.approx(0.3)


def test_infeasible_candidates_rank_below_all_objectives_and_by_their_violation() -> None:
    generator = random.Random(0)
    violations = sorted(generator.uniform(0, 10) ** 3 for _ in range(200))
    told = [rank_value(violation) for violation in violations]
    assert told == sorted(told, reverse=True)
    assert len(set(told)) == len(told)
    assert max(told) < -1e20
    assert all(map(math.isfinite, [*told, rank_value(1e200)]))


def test_a_function_of_answers_is_measured_over_them(directory: Path, backend: HFBackend) -> None:
    answers = ["", "a", "abc"]
    settings = {"python": "my_constraints:shortness", "at_most": 1}
    expected = {"mean": (1 + 1 / 2 + 1 / 4) / 3, "max": 1.0, "min": 1 / 4}
    for over, value in expected.items():
        measured = constraint_of(directory, over=over, **settings).measure(backend, answers)
        assert measured == pytest.approx(value)
    assert constraint_of(directory, python="my_constraints:one_number", at_most=1).measure(backend, answers) == 0.25


def test_a_function_of_items_asks_the_model_itself(directory: Path, backend: HFBackend) -> None:
    (directory / "prompts.txt").write_text("one\ntwo\n")
    constraint = constraint_of(directory, python="my_constraints:asks", items="prompts.txt", at_least=1)
    from evolve.scoring.scorers.text_model import TextModel

    expected = [len(answer) for answer in TextModel(backend).generate(["one", "two"], max_new_tokens=4)]
    assert constraint.measure(backend, []) == pytest.approx(sum(expected) / 2)


def test_the_answers_of_a_task_are_those_that_it_scored(
    task_directory: Path, backend: HFBackend, lm_eval_results: Any
) -> None:
    (scorer,) = load_scorers([parse_task("generate")], [task_directory], 7)
    recorder = AnswerRecorder(backend)
    heard = scorer.score(recorder, scorer.item_ids())
    assert heard == scorer.score(backend, scorer.item_ids())
    samples = lm_eval_results(task_directory, "generate")["samples"]["generate"]
    theirs = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    assert recorder.answers == [theirs[item] for item in scorer.item_ids()]
    constraint = constraint_of(task_directory, python="answer_length", at_most=1, answers_of="generate", over="max")
    assert constraint.measure(backend, recorder.answers) == max(map(len, theirs.values()))


def test_a_task_that_generates_nothing_cannot_be_looked_at(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="task 'task' generates no answers"):
        constraint_of(directory, python="answer_length", at_most=1).measure(backend, [])


@pytest.mark.parametrize(
    ("function", "said"),
    [("trips", "constraint 'trips': ZeroDivisionError"), ("says_nan", "constraint 'says_nan': number 0: the score is")],
)
def test_a_function_without_a_number_fails_the_candidate(
    function: str, said: str, directory: Path, backend: HFBackend
) -> None:
    with pytest.raises(ScoringError, match=said):
        constraint_of(directory, python=f"my_constraints:{function}", at_most=1).measure(backend, ["a"])


def test_as_many_numbers_as_answers_are_needed(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="returned 1 result for 2 items"):
        constraint_of(directory, python="my_constraints:too_few", at_most=1).measure(backend, ["a", "b"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"python": "answer_lenght"}, "no constraint is called 'answer_lenght'. Did you mean 'answer_length'?"),
        ({"python": "my_constraints:absent"}, "constraint 'absent': module 'my_constraints' has no function"),
        ({"python": "answer_length", "arguments": {"untis": "words"}}, "unexpected keyword argument 'untis'"),
        ({"python": "answer_length", "items": 3}, "cannot be called as constraint\\(model, items"),
        ({"python": "my_constraints:asks", "items": "absent.txt"}, "constraint 'asks': no file 'absent.txt'"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(settings: dict[str, Any], said: str, directory: Path) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        constraint_of(directory, at_most=1, **settings)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"answers_of": "a"}, "bounds nothing"),
        ({"answers_of": "a", "at_most": 1, "at_least": 2}, "at_least 2 is above at_most 1"),
        ({"at_most": 1}, "exactly one of answers_of and items is needed, found neither"),
        ({"at_most": 1, "answers_of": "a", "items": 3}, "found both"),
        ({"at_most": math.inf, "answers_of": "a"}, "finite"),
        ({"atmost": 1, "answers_of": "a"}, "atmost"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ConstraintConfig(python="answer_length", **settings)
