"""Several objectives: the front, its table and its files."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.report.intervals import TaskColumn
from evolve.report.model_card import model_card
from evolve.report.pareto_table import render_front
from evolve.report.score_table import score_table
from evolve.trials.pareto_front import Front, dominates, pareto_front
from evolve.trials.trial import Evaluation, Kind, Trial

NUMBERS = st.integers(0, 4).map(float)


def trial(number, objective_values, kind=Kind.CANDIDATE):
    return Trial(
        number=number,
        kind=kind,
        label=f"candidate {number}" if kind is Kind.CANDIDATE else f"org/parent_{number}",
        batch=0,
        recipe={"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]},
        evaluation=Evaluation(number, scores={"t": {0: 1.0, 1: 0.0}})
        if objective_values
        else Evaluation(number, failure="out of luck"),
        objective=sum(objective_values) if objective_values else None,
        objective_values=objective_values,
    )


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=12))
def test_a_trial_is_on_the_front_exactly_when_none_beats_it(points):
    trials = [trial(number, point) for number, point in enumerate(points)]
    front = pareto_front(trials)
    for one in trials:
        beaten = any(dominates(other, one) for other in trials)
        assert (one.objective_values in {member.objective_values for member in front}) == (not beaten)
    assert len({member.objective_values for member in front}) == len(front)
    assert not any(dominates(a, b) for a, b in itertools.permutations(front, 2))


def test_a_trial_beats_another_when_it_is_nowhere_worse_and_somewhere_better():
    assert dominates(trial(0, (1.0, 2.0)), trial(1, (1.0, 1.0)))
    assert not dominates(trial(0, (1.0, 1.0)), trial(1, (1.0, 1.0)))
    assert not dominates(trial(0, (2.0, 0.0)), trial(1, (1.0, 1.0)))


def test_references_compete_failures_do_not_and_of_equals_the_first_is_kept():
    trials = [
        trial(0, (0.9, 0.2), Kind.PARENT),
        trial(1, (0.5, 0.5)),
        trial(2, ()),
        trial(3, (0.5, 0.5)),
        trial(4, (0.4, 0.4)),
    ]
    assert [member.number for member in pareto_front(trials)] == [0, 1]


@pytest.fixture
def front():
    members = pareto_front([trial(0, (0.9, 0.2), Kind.PARENT), trial(1, (0.5, 0.6)), trial(2, (0.1, 0.7))])
    return Front(("maths", "code + prose"), members, {1: (0.45, 0.55)}, chosen=1)


def test_every_member_has_a_file_and_its_objectives(front):
    assert list(front.files()) == ["01-org-parent-0.yml", "02-candidate-1.yml", "03-candidate-2.yml"]
    facts = front.facts()
    assert facts[1] == {
        "number": 1,
        "label": "candidate 1",
        "recipe": "pareto/02-candidate-1.yml",
        "objectives": {"maths": 0.5, "code + prose": 0.6},
        "held_out": {"maths": 0.45, "code + prose": 0.55},
    }
    assert facts[0]["held_out"] is None


def test_the_table_and_the_card_list_the_front(front):
    text = render_front(front, width=100)
    assert "Pareto front: 3 recipes" in text
    assert "candidate 1 (best)" in text
    assert max(map(len, text.splitlines())) <= 100
    trials = list(front.trials)
    table = score_table(trials, {}, [TaskColumn("t", "acc")], chosen=1)
    card = model_card(table, trials, {}, seed=0, versions={}, wall_seconds=1.0, front=front)
    assert "## Pareto front" in card
    assert "| candidate 1 (best) | 0.5000 | 0.6000 | 0.4500 | 0.5500 |" in card
