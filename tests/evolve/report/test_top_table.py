"""The best models of a run."""

from __future__ import annotations

import dataclasses

import pytest
from run_records import empty_record, full_record

from evolve.report.beaten_parents import beaten_parents
from evolve.report.formatting import format_score
from evolve.report.run_record import Look
from evolve.report.top_table import nothing_scored, render_top, top_facts, top_models


def test_the_best_come_first_and_references_are_among_them():
    run = full_record()
    objectives = [trial.objective for trial in top_models(run, 100)]
    assert objectives == sorted(objectives, reverse=True)
    assert {"parent", "uniform", "candidate"} == {trial.kind.value for trial in top_models(run, 100)}
    assert len(top_models(run, 3)) == 3


def test_a_parent_beats_others_and_not_itself():
    run = full_record()
    first, second = run.parents
    assert beaten_parents(second, run.parents) == [first.label]
    assert beaten_parents(first, run.parents) == []
    assert top_facts(run, 1)[0]["beats"] == [first.label, second.label]


def test_the_table_fits_and_says_of_each_how_many_parents_it_beats():
    lines = render_top(full_record(), 20, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("candidate 14") and line.endswith("all 2") for line in lines)
    assert any(line.startswith("uniform merge") and line.endswith("1 of 2") for line in lines)
    wide = render_top(full_record(), 20, 120).splitlines()
    assert any(line.startswith("uniform merge") and line.endswith("1 of 2: not b") for line in wide)


@pytest.mark.parametrize("width", [30, 40, 60])
def test_on_a_narrow_screen_columns_go_below_one_another_and_no_number_is_cut(width):
    run = full_record()
    text = render_top(run, 3, width)
    assert max(map(len, text.splitlines())) <= width
    for trial in top_models(run, 3):
        for value in (trial.objective, *trial.task_scores.values()):
            assert format_score(value) in text
    assert ("(continued)" in " ".join(text.split())) == (width < 60)


def test_the_result_is_named_once_there_is_one():
    run = full_record()
    second = top_models(run, 2)[1]
    number = second.number
    done = dataclasses.replace(run, summary={"best": number, "held_out": {second.label: 0.75}})
    assert f"The result: {second.label}, 0.7500 on held-out items." in render_top(done, 1)
    assert [fact["number"] for fact in top_facts(done, 100) if fact["is_result"]] == [number]
    going_on = dataclasses.replace(run, summary={})
    assert "The result" not in render_top(going_on, 5)
    assert not any(fact["is_result"] for fact in top_facts(going_on, 100))


def test_nothing_scored_is_said():
    assert render_top(empty_record(), 5) == "nothing has been scored yet\n"
    way = [Look(24, 0.5, "a"), Look(48, 0.75, "step 8 from a"), Look(72, 0.25, "b")]
    looked = dataclasses.replace(empty_record(), way=way, looks=3, look_items=24)
    assert nothing_scored(looked) == (
        "no candidate has been scored yet; the gradient start has 3 points looked at on 24 items, the best step 8 from "
        "a: 0.7500 on these. It is not a candidate yet"
    )
    assert " ".join(render_top(looked, 5, 60).split()).startswith(nothing_scored(looked))
    assert render_top(dataclasses.replace(full_record(), trials=[]), 5) == "nothing has been scored yet\n"
