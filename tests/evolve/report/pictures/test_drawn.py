"""What the pictures show."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from run_records import empty_record, full_record, layered_record, record_for, trial

from evolve.problems import ConfigError
from evolve.report.intervals import Interval
from evolve.report.pictures.drawn import ORDER, all_pictures, draw
from evolve.report.pictures.history import histories
from evolve.report.run_record import Look, ShownScores
from evolve.trials.step import Step
from evolve.trials.trial import Kind


def test_every_picture_has_its_place_in_the_report():
    assert tuple(all_pictures()) == ORDER


def test_the_page_about_python_names_them_all():
    page = (Path(__file__).parents[4] / "docs" / "python.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `search\.plot\(name\)` \| a plotly figure: (.*) \|$", page, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", row)) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_each_picture_shows_a_full_run_and_nothing_of_an_empty_one(name):
    assert draw(record_for(name), name).data
    with pytest.raises(ConfigError, match="nothing to show"):
        draw(empty_record(), name)


@pytest.mark.parametrize("name", ORDER)
def test_no_name_is_a_tag(name):
    assert "<img" not in draw(record_for(name), name).to_json().replace("\\u003c", "<")


def test_a_picture_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(ConfigError, match="no picture is called 'histroy'; there are scores, front"):
        draw(full_record(), "histroy")


def test_the_history_counts_what_was_spent_before_the_first_candidate():
    run = full_record()
    candidates, best, *references = draw(run, "history").data
    # 30 of steps, 12 of looks, two items of each of three references, and two of the first candidate.
    assert candidates.x[0] == 30 + 12 + 3 * 2 + 2
    assert list(best.y) == sorted(best.y)
    assert best.y[-1] == max(trial.objective for trial in run.complete)
    assert [line.y[0] for line in references] == [0.4, 0.3, 0.35]


def test_parents_are_told_apart_by_name_colour_and_dashes():
    run = full_record()
    parents = [trial(number, Kind.PARENT, objective=0.3, label=f"zoo/{number}") for number in range(4)]
    lines = draw(dataclasses.replace(run, trials=[*parents, *run.trials[4:]]), "history").data[2:]
    assert [line.name for line in lines] == ["0", "1", "2", "3"]
    assert len({line.line.color for line in lines}) == len({line.line.dash for line in lines}) == 4


def test_seconds_are_those_of_the_steps_and_of_all_that_was_scored():
    to_seconds = draw(full_record(), "history").layout.updatemenus[0].buttons[1].args[0]["x"]
    assert to_seconds[0][0] == 4 * 1.0 + 4 * 2.0


def test_the_bars_have_the_intervals_of_the_score_table():
    held_out, search = draw(full_record(), "scores").data[:2]
    assert (held_out.name, search.name) == ("held-out items", "search items")
    assert list(held_out.x) == [0.6, 0.6, 0.6]
    assert held_out.error_x.array == pytest.approx((0.1, 0.1, 0.1))


def test_the_best_is_called_so_where_its_name_is_a_sentence():
    run = full_record()
    run.__dict__["scores"] = [
        dataclasses.replace(row, name=f"average of the steps from {row.name}") if row.role == "best" else row
        for row in run.scores
    ]
    assert draw(run, "scores").layout.yaxis.ticktext[0] == "best"


def test_names_that_end_alike_have_rows_of_their_own():
    run = full_record()
    one, other = ShownScores("one" + 60 * "x", "parent", {"": Interval(0.1)}, {}), run.scores[0]
    run.__dict__["scores"] = [one, dataclasses.replace(one, name="two" + 60 * "x"), other]
    bars = draw(run, "scores")
    assert list(bars.data[1].y) == pytest.approx([0.17, 1.17, 2.17])
    assert bars.layout.yaxis.ticktext[1] == bars.layout.yaxis.ticktext[2]
    genes = {f"{name}{60 * 'x'}.layers{layer}-{layer}": layer for name in ("one", "two") for layer in (0, 1)}
    run.__dict__["best"] = dataclasses.replace(run.best, genes=genes)
    (cells,) = draw(run, "genes").data
    assert [list(row) for row in cells.z] == [[0, 1], [0, 1]]
    assert list(cells.y) == [0, 1]


def test_a_bound_that_is_not_known_is_no_whisker():
    shift = draw(full_record(), "scores").data[-1]
    assert not shift.error_x.visible


def test_an_interrupted_run_shows_its_scores_without_intervals():
    run = dataclasses.replace(full_record(), summary={})
    bars = draw(run, "scores").data
    assert {bar.name for bar in bars} == {"search items"}
    assert list(bars[0].y) == [0, 1, 2, 3]
    assert run.best.label == "candidate 14"


def test_the_heat_maps_are_of_the_best_and_of_the_mean_of_the_ten_best():
    run = full_record()
    (best,) = draw(run, "genes").data
    assert list(best.z[0]) == list(run.best.genes.values())
    (mean,) = draw(run, "top_genes").data
    assert list(best.text[0]) == ["0.17", "0.34", "0.51", "0.68▲"]
    top = [trial.genes for trial in run.complete[:10]]
    assert list(mean.z[0]) == pytest.approx([sum(genes[name] for genes in top) / 10 for name in top[0]])
    with pytest.raises(ConfigError, match="nothing to show"):
        draw(dataclasses.replace(run, trials=run.complete[:9]), "top_genes")  # fewer tell little by what they share


def test_the_front_is_of_those_that_none_beats_and_shows_their_recipes():
    front = draw(full_record(), "front").data[-1]
    assert len(front.x) == 15  # one objective falls as the other rises, so that none beats another
    assert "merge_method:\u00a0linear" in front.hovertext[0]
    assert front.line.shape == "vh"  # what is between two members is beaten by one of them


def test_a_cost_is_drawn_as_it_was_measured_with_less_above():
    run = full_record()
    trials = [
        dataclasses.replace(one, objective_values=(one.objective, -7.5)) if one.task_scores else one
        for one in run.trials
    ]
    config = {**run.config, "objectives": [["sorting", "shift"], ["answer_tokens"]], "cost": {"answer_tokens": {}}}
    shown = draw(dataclasses.replace(run, trials=trials, config=config), "front")
    assert set(shown.data[0].y) == {7.5}
    assert "answer_tokens, lower is better: 7.5" in shown.data[0].hovertext[0]
    assert (shown.layout.xaxis.autorange, shown.layout.yaxis.autorange) == (None, "reversed")


def test_genes_without_layers_stand_in_their_ranges():
    run = full_record()
    run.__dict__["best"] = dataclasses.replace(run.best, genes={"weight[a]": 0.25, "density[a]": 10.0})
    run = dataclasses.replace(run, summary={}, trials=[run.best], ranges={"weight[a]": (0, 1), "density[a]": (0, 10)})
    ranges, inside, at_an_end = draw(run, "genes").data
    assert (list(inside.x), list(at_an_end.x)) == ([0.25], [1.0])
    assert [ranges.name, at_an_end.name] == ["its range", "at its high end"]
    assert at_an_end.marker.symbol == "triangle-up"
    with pytest.raises(ConfigError, match="nothing to show"):
        draw(run, "top_genes")


def test_weights_are_shown_where_a_path_through_the_layers_was_searched_with_them():
    run = full_record()
    path = {"layer0": 3, "layer1": 0, "repeat.first": 2}
    trials = [dataclasses.replace(one, genes=one.genes | path) if one.genes else one for one in run.trials]
    searched = dataclasses.replace(run, trials=trials)
    assert draw(searched, "genes").data[0].z == draw(run, "genes").data[0].z
    labels = [axis.label for axis in draw(searched, "parallel").data[0].dimensions]
    assert labels == ["objective", *(f"a<br>layer {layer}" for layer in range(4))]


def test_the_importance_of_many_genes_of_which_none_stands_out_is_summed_up():
    run = full_record()
    kinds = ("self_attn.q_proj", "mlp.up_proj")
    names = [f"weight[{model}].{kind}.layers{layer}-{layer}" for model in "ab" for kind in kinds for layer in range(12)]
    run.__dict__["importances"] = {name: (1.5 if "[a]" in name else 0.5) / len(names) for name in names}
    shares, alike = draw(run, "importances").data
    bars = dict(zip(draw(run, "importances").layout.yaxis.ticktext, zip(shares.x, alike.x, strict=True), strict=True))
    assert bars["weight a"] == pytest.approx((0.75, 0.5))
    assert bars["attention"] == pytest.approx((0.5, 0.5))
    assert bars["layers 2 to 3"] == pytest.approx((1 / 6, 1 / 6))
    run.__dict__["importances"] |= {names[0]: 0.3}
    assert draw(run, "importances").data[0].x[0] == 0.3


@pytest.mark.parametrize("name", ["history", "scores", "genes", "importances", "gradient", "front"])
def test_no_picture_has_only_one_point(name):
    run = full_record()
    only = dataclasses.replace(run.trials[3], genes={"weight[a]": 0.5})
    one = dataclasses.replace(run, trials=[only], summary={}, steps=run.steps[:1])
    with pytest.raises(ConfigError, match="nothing to show"):
        draw(one, name)


def test_races_show_how_many_items_each_candidate_saw():
    bars = {bar.name: bar for bar in draw(full_record(), "racing").data}
    assert bars.keys() == {"all items", "stopped early by a race", "failed"}
    assert list(bars["all items"].x) == list(range(1, 13))


def test_several_histories_stand_in_one_picture():
    assert [line.name for line in histories([full_record("one"), full_record("two")]).data] == ["one", "two"]
    assert histories([empty_record()]) is None


def test_the_map_of_blocks_says_what_each_does_to_the_model():
    (cells,) = draw(layered_record(), "blocks").data
    assert list(cells.z[0]) == pytest.approx([-0.05, 0.0, 0.05])
    assert list(cells.z[2][:2]) == [None, None]
    assert cells.z[2][2] == pytest.approx(0.2)


def test_the_path_of_the_best_goes_through_its_layers():
    first, second = draw(layered_record(), "path").data
    assert list(first.y) == [0, 1, 2]
    assert list(second.y) == [2]
    assert list(second.x) == [3]


def test_the_path_through_a_merge_is_one_line_and_no_map():
    record = layered_record()
    other = {"sources": [{"model": "other", "layer_range": [0, 3]}]}

    def with_other(recipe):
        return {"slices": [{"sources": [*part["sources"], *other["sources"]]} for part in recipe["slices"]]}

    trials = [
        dataclasses.replace(one, recipe=with_other(one.recipe)) if "slices" in one.recipe else one
        for one in record.trials
    ]
    merged = dataclasses.replace(record, trials=trials)
    lines = draw(merged, "path").data
    assert {line.name for line in lines} == {"the merge"}
    assert [list(line.y) for line in lines] == [[0, 1, 2], [2]]
    with pytest.raises(ConfigError, match="nothing to show"):
        draw(merged, "blocks")


def test_a_search_of_weights_has_no_layers_to_show():
    for name in ("blocks", "path"):
        with pytest.raises(ConfigError, match="nothing to show"):
            draw(full_record(), name)


def test_every_start_of_the_gradient_has_a_line_of_its_own():
    steps = [
        Step(number, probabilities={"sorting": number / 10, "shift": 0.0}, way="base" if number % 2 else "expert")
        for number in range(5)
    ]
    shown = draw(dataclasses.replace(full_record(), steps=steps), "gradient").data
    assert {line.name: list(line.y) for line in shown} == {
        "from expert": [0.0, 0.1, 0.2],
        "from base": [0.05, 0.15],
        "sorting": [0.0, 0.2, 0.4],
        "shift": [0.0, 0.0, 0.0],
    }


def test_the_way_of_the_gradient_is_shown_before_the_candidates():
    looks = [Look(40, 0.2, "base"), Look(90, 0.5, "step 3"), Look(120, 0.4, "step 6")]
    run = dataclasses.replace(full_record(), way=looks)
    way = draw(run, "history").data[2]
    assert list(way.x) == [40, 90, 120]
    assert list(way.y) == [0.2, 0.5, 0.5]
