"""Score table, verdict, model card and CSV."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats  # type: ignore[import-untyped]

from evolve.report.degenerate import degenerate_notes
from evolve.report.formatting import (
    format_bytes,
    format_cost,
    format_count,
    format_duration,
    format_interval,
    format_score,
)
from evolve.report.intervals import Interval, TaskColumn, mean_interval, objective_interval, weighted_sum
from evolve.report.model_card import model_card
from evolve.report.score_page import render_table
from evolve.report.score_table import ScoreTable, score_table
from evolve.report.short_recipe import ShortRecipe
from evolve.report.trials_csv import trials_csv
from evolve.report.verdict import verdict
from evolve.scoring import Objective, ObjectiveTerm, Scale
from evolve.trials.costs import Cost, CostTerms
from evolve.trials.run_directory import dump_recipe
from evolve.trials.trial import Evaluation, ItemScores, Kind, Trial
from merge_core import Recipe
from merge_core.checkpoint.card_metadata import Licence

SUMS = TaskColumn("sums", "acc")
LOSS = TaskColumn("loss", "nll", "minimize", weight=3.0)
RECIPE: Mapping[str, Any] = {
    "merge_method": "task_arithmetic",
    "base_model": "org/base",
    "models": [
        {"model": "org/addition", "parameters": {"weight": 0.6}},
        {"model": "org/|subtraction|", "parameters": {"weight": [0.2, 0.5]}},
    ],
}


def trial(
    number: int, kind: Kind, label: str, scores: ItemScores | None = None, recipe: Mapping[str, Any] = RECIPE
) -> Trial:
    means = {name: sum(items.values()) / len(items) for name, items in (scores or {}).items()}
    return Trial(
        number=number,
        kind=kind,
        label=label,
        batch=-1 if kind is not Kind.CANDIDATE else 0,
        recipe=recipe,
        genes={} if kind is not Kind.CANDIDATE else {"weight": 1 / 3, "layers": [1, 2]},
        evaluation=Evaluation(number, failure='boom,\n"quoted"')
        if scores is None
        else Evaluation(number, scores=scores),
        task_scores=means,
        objective=None if scores is None else sum(means.values()),
    )


def coin(probability: float, ids: range, seed: int) -> dict[int, float]:
    draw = random.Random(seed)
    return {item: float(draw.random() < probability) for item in ids}


def trials(best: float = 0.9) -> list[Trial]:
    return [
        trial(0, Kind.PARENT, "org/addition", {"sums": coin(0.5, range(100), 0)}),
        trial(1, Kind.PARENT, "org/|subtraction|", {"sums": coin(0.6, range(100), 1)}),
        trial(2, Kind.UNIFORM, "uniform merge", {"sums": coin(0.4, range(100), 2)}),
        trial(3, Kind.CANDIDATE, "candidate 0", {"sums": coin(best, range(100), 3)}),
        trial(4, Kind.CANDIDATE, "candidate 1", None),
    ]


def held_out(addition: float = 0.6, subtraction: float = 0.5, best: float = 0.9) -> dict[int, ItemScores]:
    rates = [addition, subtraction, 0.4, best]
    return {number: {"sums": coin(rate, range(100, 300), 10 + number)} for number, rate in enumerate(rates)}


def table(**rates: float) -> ScoreTable:
    return score_table(trials(), held_out(**rates), [SUMS], chosen=3)


# --- intervals ----------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_scipys() -> None:
    draw = random.Random(4)
    values = {item: draw.gauss(1.0, 2.0) for item in range(80)}
    sample = np.array(list(values.values()))
    low, high = stats.norm.interval(0.95, loc=sample.mean(), scale=stats.sem(sample))
    interval = mean_interval(values, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize("right", [0, 1, 37, 79, 80])
def test_the_interval_of_a_share_is_scipys_score_interval_and_stays_in_range(right: int) -> None:
    interval = mean_interval({item: float(item < right) for item in range(80)}, 0.95)
    expected = stats.binomtest(right, 80).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert 0.0 <= interval.low <= right / 80 <= interval.high <= 1.0
    assert interval.high - interval.low > 0.02  # all right is no proof of always right


def test_scores_between_0_and_1_have_intervals_between_0_and_1() -> None:
    interval = mean_interval({0: 0.97, 1: 1.0, 2: 0.4, 3: 1.0}, 0.95)
    assert interval.high == 1.0
    assert 0.0 < interval.low < 0.8425


def test_the_objective_turns_tasks_where_lower_is_better_and_weighs_them() -> None:
    scores = {"sums": {0: 1.5, 1: 0.5}, "loss": {0: 2.0, 1: 4.0}}
    interval = objective_interval(scores, weighted_sum([SUMS, LOSS]), 0.95)
    assert interval is not None
    assert interval.value == pytest.approx(0.25 * 1.0 - 0.75 * 3.0)
    error = math.sqrt(0.25**2 * 0.5 / 2 + 0.75**2 * 2.0 / 2)
    assert interval.high - interval.value == pytest.approx(stats.norm.ppf(0.975) * error)


def test_the_objective_of_shares_stays_between_0_and_1() -> None:
    tasks = [TaskColumn(name, "acc", weight=weight) for name, weight in (("a", 1.0), ("b", 2.0))]
    for rate in (0.02, 0.98, 1.0):
        scores = {task.name: coin(rate, range(60), seed) for seed, task in enumerate(tasks)}
        interval = objective_interval(scores, weighted_sum(tasks), 0.95)
        assert interval is not None
        assert 0.0 <= interval.low < interval.high <= 1.0


def test_the_interval_of_a_scaled_task_is_scaled_with_it() -> None:
    contributions = {"loss": {item: float(item % 7) for item in range(50)}}
    plain = mean_interval(contributions["loss"], 0.95)
    objective = Objective({"loss": ObjectiveTerm(2.0, "minimize")}, scales={"loss": Scale(-4.0, -2.0)})
    found = objective_interval(contributions, objective, 0.95)
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx(
        tuple((4.0 - end) / 2.0 for end in (plain.high, plain.value, plain.low))
    )


def test_a_task_of_weight_zero_is_shown_and_does_not_count() -> None:
    silent = TaskColumn("loss", "nll", "minimize", weight=0.0)
    interval = objective_interval({"sums": {0: 1.0, 1: 0.0}}, weighted_sum([SUMS, silent]), 0.95)
    assert interval is not None
    assert interval.value == 0.5


def test_the_objective_of_the_search_is_the_tables_objective() -> None:
    tasks = [SUMS, TaskColumn("words", "acc")]
    scores = {
        number: {"sums": coin(rate, range(200), number), "words": coin(0.6, range(200), 9)}
        for number, rate in ((0, 0.3), (1, 0.9))
    }
    run = [trial(0, Kind.PARENT, "p", scores[0]), trial(1, Kind.CANDIDATE, "candidate 0", scores[1])]
    worst = Objective({task.name: ObjectiveTerm(1.0, "maximize") for task in tasks}, "worst")
    found = score_table(run, {}, tasks, chosen=1, objective=worst)
    means = [{name: float(np.mean(list(items.values()))) for name, items in one.items()} for one in scores.values()]
    values = [min(mean.values()) for mean in means]
    shown = [row.search.objective for row in found.rows]
    assert [interval.value for interval in shown if interval] == pytest.approx(values)
    difference = found.comparisons[0].difference
    assert difference.value == pytest.approx(values[1] - values[0])
    assert difference.low < difference.value < difference.high
    assert "worst task" in render_table(found)


def test_a_single_item_leaves_the_interval_unknown() -> None:
    assert mean_interval({3: 1.0}, 0.95) == Interval(1.0)
    assert format_interval(Interval(1.0)) == "1.000 [?]"


def test_the_paired_interval_is_scipys_bootstrap() -> None:
    found = table().comparisons[0]
    ours, theirs = held_out()[3]["sums"], held_out()[0]["sums"]
    differences = np.array([ours[item] - theirs[item] for item in ours])
    expected = stats.bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(5))
    assert found.difference.value == pytest.approx(differences.mean())
    assert found.difference.low == pytest.approx(expected.confidence_interval.low, abs=0.015)
    assert found.difference.high == pytest.approx(expected.confidence_interval.high, abs=0.015)


def test_the_paired_interval_over_tasks_has_the_closed_forms_width() -> None:
    draw = random.Random(0)
    ours = {"sums": coin(0.8, range(400), 1), "loss": {item: draw.gauss(1.0, 0.5) for item in range(300)}}
    theirs = {"sums": coin(0.6, range(400), 2), "loss": {item: draw.gauss(1.2, 0.5) for item in range(300)}}
    run = [trial(0, Kind.PARENT, "p", theirs), trial(1, Kind.CANDIDATE, "candidate 0", ours)]
    found = score_table(run, {0: theirs, 1: ours}, [SUMS, LOSS], chosen=1).comparisons[0].difference
    deltas = [np.array([ours[name][item] - theirs[name][item] for item in ours[name]]) for name in ours]
    error = math.sqrt(0.25**2 * deltas[0].var() / deltas[0].size + 0.75**2 * deltas[1].var() / deltas[1].size)
    assert found.value == pytest.approx(0.25 * deltas[0].mean() - 0.75 * deltas[1].mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_equal_models_differ_by_exactly_nothing() -> None:
    same = held_out()
    same[3] = same[0]
    found = score_table(trials(), same, [SUMS], chosen=3)
    assert found.comparisons[0].difference == Interval(0.0, 0.0, 0.0)
    assert "Best scores exactly as the best parent (org/addition) on every item." in verdict(found)


# --- table and verdict --------------------------------------------------------------------------------------


def test_the_best_parent_is_the_best_on_held_out_items() -> None:
    assert table(addition=0.7, subtraction=0.3).comparisons[0].reference == "the best parent (org/addition)"
    assert "subtraction" in table(addition=0.3, subtraction=0.7).comparisons[0].reference


def test_a_clear_gain_is_said_in_one_sentence() -> None:
    parent, uniform = (format_interval(one.difference, signed=True) for one in table().comparisons)
    assert verdict(table()) == (
        f"Best beats the best parent (org/addition) by {parent} and the uniform merge by {uniform} "
        "on 200 held-out items."
    )


def test_no_gain_is_said_honestly() -> None:
    text = verdict(table(best=0.6))
    assert text.startswith("Best beats the uniform merge by ")
    assert "No evidence that the best is better than the best parent (org/addition): " in text
    assert "the interval contains 0." in text


def test_a_loss_is_said_to_be_one() -> None:
    text = verdict(table(addition=0.95, best=0.1))
    assert text.startswith("Best is worse than the best parent (org/addition): -0.")
    assert text.endswith("(200 held-out items).")


def test_without_held_out_items_the_verdict_says_that_it_flatters() -> None:
    text = verdict(score_table(trials(), {}, [SUMS], chosen=3))
    assert "on 100 search items." in text
    assert "No items were held out" in text


def test_a_reference_that_wins_is_not_sold_as_a_candidate() -> None:
    text = verdict(score_table(trials(), held_out(), [SUMS], chosen=0))
    assert text.startswith("No candidate was chosen: the best model is the parent org/addition itself.")
    assert "the best other parent" in text


def test_one_common_item_is_too_few() -> None:
    one = {number: {"sums": {100: float(number == 3)}} for number in range(4)}
    assert "Too few items to tell the best from the uniform merge" in verdict(
        score_table(trials(), one, [SUMS], chosen=3)
    )


def test_nothing_comparable_is_said() -> None:
    lone = [trial(0, Kind.CANDIDATE, "candidate 0", {"sums": {0: 1.0, 1: 0.0}})]
    assert "Nothing to compare the best with" in verdict(score_table(lone, {}, [SUMS], chosen=0))


def test_a_trial_that_does_not_exist_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="trial 9 was chosen"):
        score_table(trials(), {}, [SUMS], chosen=9)


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_keeps_to_its_width_with_many_tasks_and_long_names(width: int) -> None:
    names = [f"a_task_with_quite_a_long_name_{number}" for number in range(5)]
    scores = {name: coin(0.5, range(50), seed) for seed, name in enumerate(names)}
    run = [
        trial(0, Kind.PARENT, "./models/" + "deep/" * 20 + "[bold]parent", scores),
        trial(1, Kind.CANDIDATE, "candidate 0", scores),
    ]
    tasks = [TaskColumn(name, "acc", "minimize") for name in names]
    text = render_table(score_table(run, {0: scores, 1: scores}, tasks, chosen=1), width)
    assert max(map(len, text.splitlines())) <= width
    assert "[bold]parent" in text
    assert "Warning: the search saw 250 of the held-out items." in text


def test_the_table_has_every_row_and_marks_failures() -> None:
    run = trials()
    run[1] = trial(1, Kind.PARENT, "org/broken", None)
    text = render_table(score_table(run, {0: held_out()[0], 3: held_out()[3]}, [SUMS], chosen=3))
    lines = text.splitlines()
    assert lines[0] == "sums, 95 % intervals"
    assert [line.split("  ")[0] for line in lines[3:7]] == [
        "parent org/addition",
        "parent org/broken",
        "uniform merge",
        "best candidate 0",
    ]
    assert lines[4].split()[-2:] == ["failed", "failed"]


def test_a_narrow_interval_is_not_rounded_to_nothing() -> None:
    assert format_interval(Interval(0.0004, 0.0001, 0.0007), signed=True) == "+0.00040 [0.00010, 0.00070]"
    assert format_interval(Interval(1.0, 0.9915, 1.0)) == "1.000 [0.992, 1.000]"
    assert format_interval(Interval(0.8123, 0.8119, 0.8127)) == "0.8123 [0.8119, 0.8127]"


def test_numbers_read_well_at_every_size() -> None:
    scores = [format_score(score) for score in (None, 0.5, 12.3456, 54321.0)]
    assert scores == ["-", "0.5000", "12.35", "54321"]
    durations = [format_duration(seconds) for seconds in (0.4, 59, 185, 7440, 273600)]
    assert durations == ["0 s", "59 s", "3 min 05 s", "2 h 04 min", "3 d 04 h"]
    assert [format_duration(seconds, fine=True) for seconds in (0.0042, 59)] == ["0.0042 s", "59 s"]
    assert [format_bytes(count) for count in (7, 2_690_000, 5e12)] == ["7 B", "2.69 MB", "5 TB"]
    assert [format_count(number) for number in (7, 2_690_000, 5e12)] == ["7", "2.69M", "5T"]


# --- degenerate recipes -------------------------------------------------------------------------------------


def with_weights(method: str, *weights: Any, **top: Any) -> dict[str, Any]:
    models = [{"model": f"m{i}", "parameters": {"weight": weight}} for i, weight in enumerate(weights)]
    return {"merge_method": method, "models": models, **top}


def layers(model: str) -> dict[str, Any]:
    return {"model": model, "layer_range": [0, 2]}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (with_weights("linear", 0.3, 0.7), []),
        (
            with_weights("linear", 1.0, 0.0),
            ["m1 has weight 0", "Only m0 is left"],
        ),
        (with_weights("linear", 1.0, 0.004), ["m1 has hardly any part: its largest weight is 0.004"]),
        (
            with_weights("ties", 0.0, [0.0, 0.0], base_model="b"),
            ["m0 has", "m1 has", "No model"],
        ),
        (with_weights("ties", 0.5, [{"filter": "mlp", "value": 0}, {"value": 0.1}], base_model="b"), []),
        ({"merge_method": "passthrough", "models": [{"model": "m0"}]}, ["The recipe names a single model"]),
        (
            {
                "merge_method": "slerp",
                "base_model": "a",
                "parameters": {"t": [1, 1]},
                "models": [{"model": "b"}],
            },
            ["t is 1 everywhere: the best is b itself."],
        ),
        (
            {
                "merge_method": "linear",
                "slices": [
                    {"sources": [{**layers("a"), "parameters": {"weight": 0}}, layers("b")]},
                    {"sources": [layers("a"), layers("b")], "parameters": {"weight": 0.5}},
                ],
            },
            [],
        ),
        # A filter list without a rest leaves the other tensors to the next level.
        (with_weights("linear", [{"filter": "mlp", "value": 0}], 0.5, parameters={"weight": 0.5}), []),
        (
            with_weights("linear", [{"filter": "mlp", "value": 0}], 0.5, parameters={"weight": 0}),
            ["m0 has weight 0", "Only m1 is left"],
        ),
        # These need no weight, and take none for the base model.
        (with_weights("slerp", 0, base_model="b", parameters={"t": 0.5}), []),
        (with_weights("multislerp", 0, 0.5, base_model="m0"), []),
    ],
)
def test_a_recipe_that_is_no_merge_is_said_so(recipe: dict[str, Any], expected: list[str]) -> None:
    notes = degenerate_notes(Recipe.from_mapping(recipe))
    assert len(notes) == len(expected)
    assert all(note.startswith(start) for note, start in zip(notes, expected, strict=True))


# --- model card ---------------------------------------------------------------------------------------------


def card(chosen: int = 3) -> str:
    found = score_table(trials(), held_out(), [SUMS], chosen=chosen)
    return model_card(found, trials(), held_out(), seed=7, versions={"torch": "2.9"}, wall_seconds=185.0)


def test_the_card_opens_with_front_matter_the_hub_reads() -> None:
    _, front_matter, _ = card().split("---\n", 2)
    front = yaml.safe_load(front_matter)
    front.pop("model-index")
    assert front == {
        "base_model": ["org/base", "org/addition", "org/|subtraction|"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["mergekit", "merge"],
    }


def test_the_hub_reads_the_scores_of_the_best_on_held_out_items() -> None:
    from huggingface_hub import ModelCard

    found = score_table(trials(), held_out(), [SUMS], chosen=3)
    (result,) = ModelCard(card()).data.eval_results
    assert (result.dataset_name, result.metric_type) == (SUMS.name, SUMS.metric.partition(",")[0])
    assert result.metric_value == round(found.best_row.held_out.tasks[SUMS.name].value, 6)
    assert "held-out items" in result.metric_name


def test_the_card_calls_models_of_this_machine_by_the_ends_of_their_paths() -> None:
    def here(text: str) -> str:
        return text.replace("org/", "/home/me/org/")

    every = [
        replace(trial, label=here(trial.label), recipe=json.loads(here(json.dumps(trial.recipe)))) for trial in trials()
    ]
    found = score_table(every, held_out(), [SUMS], chosen=3)
    text = model_card(found, every, held_out(), seed=7, versions={}, wall_seconds=1.0)
    assert "/home/me" not in text
    assert "- model: addition\n" in text
    assert "(addition)" in text


def test_the_card_says_how_to_get_the_model_its_scores_and_the_search_again_and_shows_it() -> None:
    found = score_table(trials(), held_out(), [SUMS], chosen=3)
    settings = {"seed": 7, "versions": {}, "wall_seconds": 1.0, "fingerprint": "0123456789abcdef01", "picture": "a.png"}
    text = model_card(found, trials(), held_out(), **settings)
    commands = text.partition("```bash\n")[2].partition("```")[0].splitlines()
    assert [line.partition("  #")[0].rstrip() for line in commands] == [
        "evolve merge best_recipe.yml merged --seed 7",
        "evolve eval merged --tasks-from search.yml --held-out",
        "evolve run search.yml --output again",
    ]
    assert "0123456789abcdef…" in commands[0]
    assert "](a.png)" in text
    assert "](a.png)" not in card()


OWN = Licence("other", "model-licence", "https://example.org/licence")


@pytest.mark.parametrize(
    ("licences", "said", "word"),
    [
        ([Licence("mit"), Licence("mit")], {"license": "mit"}, None),
        ([Licence("mit"), Licence("cc-by-nc-4.0")], {"license": "other"}, "The licences differ"),
        ([Licence("mit"), None], {}, "not known"),
        (
            [OWN, OWN],  # of which the hub takes no name as its own
            {"license": "other", "license_name": "model-licence", "license_link": "https://example.org/licence"},
            "model-licence",
        ),
    ],
)
def test_licences_of_the_parents_are_said_and_so_is_that_they_differ(licences, said, word) -> None:
    found = score_table(trials(), held_out(), [SUMS], chosen=3)
    of_models = dict(zip(("org/base", "org/addition"), licences, strict=True))
    text = model_card(found, trials(), held_out(), seed=7, versions={}, wall_seconds=1.0, licences=of_models)
    front = yaml.safe_load(text.split("---\n", 2)[1])
    assert {key: value for key, value in front.items() if key.startswith("license")} == said
    assert word is None or word in text.split("---\n", 2)[2]


def test_the_card_holds_the_recipe_as_yaml() -> None:
    block = card().split("```yaml\n")[1].split("```")[0]
    recipe = yaml.safe_load(block)
    assert recipe["models"][1] == {"model": "org/|subtraction|", "parameters": {"weight": [0.2, 0.5]}}


def test_the_card_writes_recipes_as_their_files_are_and_says_of_a_shorter_one_where_it_is() -> None:
    found = score_table(trials(), held_out(), [SUMS], chosen=3)
    recipe, interval = found.best.recipe, Interval(0.9, 0.8, 1.0)
    short = ShortRecipe(recipe, Path("simple/r.yml"), 2, 224, 9, 450, interval, interval, interval, None, 100)
    text = model_card(found, trials(), held_out(), seed=7, versions={}, wall_seconds=1.0, short=short)
    assert text.count(f"```yaml\n{dump_recipe(recipe)}```") == 2
    assert "450: simple/ in the run's directory. It scores 0.9" in text


def test_the_card_says_how_it_was_searched() -> None:
    text = card()
    for sentence in (
        "Candidates: 2, of which 1 failed; parents and uniform merge: 3",
        "Wall time: 3 min 05 s",
        "Seed: 7",
        "https://arxiv.org/abs/2212.04089",
        "evolve merge best_recipe.yml merged --seed 7",
        "| sums | acc | higher | 1 | 100 | 200 |",
        "Search scores flatter the best model",
        verdict(table()),
        "Versions: torch 2.9",
    ):
        assert sentence in text


def test_markup_in_names_breaks_neither_the_cards_table_nor_its_text() -> None:
    rows = [line for line in card().splitlines() if line.startswith("| ") and "objective" not in line]
    row = next(line for line in rows if "subtraction" in line)
    assert "org/\\|subtraction\\|" in row
    assert row.replace("\\|", "").count("|") == 4  # model, search, held-out


# --- CSV ----------------------------------------------------------------------------------------------------


def test_the_csv_gives_back_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(trials_csv(trials()))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, one in zip(rows, trials(), strict=True):
        assert int(row["number"]) == one.number
        assert (row["kind"], row["label"], row["state"]) == (one.kind, one.label, one.state)
        assert row["failure"] == (one.measured.failure or "")
        assert (float(row["objective"]) if row["objective"] else None) == one.objective
        assert (float(row["score.sums"]) if row["score.sums"] else None) == one.task_scores.get("sums")
    assert float(rows[3]["gene.weight"]) == 1 / 3
    assert rows[3]["gene.layers"] == "[1, 2]"
    assert rows[0]["gene.weight"] == ""


def test_the_card_says_what_was_tuned_on_public_test_data() -> None:
    arguments = {"seed": 0, "versions": {}, "wall_seconds": 1.0}
    silent = model_card(table(), trials(), held_out(), **arguments)
    said = model_card(table(), trials(), held_out(), **arguments, benchmark_tests=["gsm8k"])
    assert "public test data" not in silent
    assert "**Tuned on public test data:** gsm8k." in said


def test_objectives_that_are_kept_apart_have_columns_of_their_own(tmp_path: Path) -> None:
    kept_apart = [
        replace(trial, objective_values=(0.25, 1 / 3)) if trial.measured.scores else trial for trial in trials()
    ]
    (tmp_path / "trials.csv").write_text(trials_csv(kept_apart))
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["objective.1"], row["objective.2"]) for row in rows] == [("0.25", repr(1 / 3))] * 4 + [("", "")]


@pytest.mark.parametrize(
    ("value", "relative", "text"),
    [(24.0, None, "24"), (24.06, -0.48, "24.1 (-48 %)"), (6.99, -0.001, "7.0 (+0 %)"), (14.0, 1.0, "14 (+100 %)")],
)
def test_a_cost_is_shown_beside_the_best_parents(value: float, relative: float | None, text: str) -> None:
    assert format_cost(value, relative) == text


def costly(number: int, *, layers: int, tokens: int) -> Trial:
    kind = Kind.PARENT if number < 2 else Kind.CANDIDATE
    evaluation = Evaluation(
        number,
        scores={"sums": coin(0.5, range(100), 0)},
        answer_counts={"sums": 100},
        answer_tokens={"sums": tokens},
        layers=layers,
    )
    return replace(trial(number, kind, f"model {number}", {"sums": {0: 1.0}}), evaluation=evaluation)


def test_costs_shift_objective_and_differences_and_have_columns_of_their_own(tmp_path: Path) -> None:
    terms = CostTerms({Cost.LAYERS: 0.2, Cost.ANSWER_TOKENS: 0.0}, {Cost.LAYERS: 8.0, Cost.ANSWER_TOKENS: 20.0})
    found = [costly(0, layers=8, tokens=2000), costly(1, layers=12, tokens=2000), costly(2, layers=6, tokens=1050)]
    with_costs = score_table(found, {}, [SUMS], chosen=2, cost_terms=terms)
    without = score_table(found, {}, [SUMS], chosen=2)
    for row, plain, penalty in zip(with_costs.rows, without.rows, (0.0, 0.1, -0.05), strict=True):
        assert row.search.objective is not None
        assert plain.search.objective is not None
        for end in ("value", "low", "high"):
            expected = getattr(plain.search.objective, end) - penalty
            assert getattr(row.search.objective, end) == pytest.approx(expected)
    # The items are answered the same, so all of the difference is what the layers save.
    (comparison,) = with_costs.comparisons
    assert comparison.reference == "the best parent (model 0)"
    assert comparison.difference.value == pytest.approx(0.05)
    text = render_table(with_costs, 100)
    assert "layers (lower is better; against the best parent)" in text
    assert "6 (-25 %)" in text
    assert "10.5 (-48 %)" in text
    assert "minus 0.2 x (layers / 8 - 1)" in text
    shown = model_card(with_costs, found, {}, seed=0, versions={}, wall_seconds=1.0)
    assert "10.5 (-48 %)" in shown
    (tmp_path / "trials.csv").write_text(trials_csv(found, terms))
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["cost.layers"]) for row in rows] == [8, 12, 6]
    assert [float(row["cost.answer_tokens"]) for row in rows] == [20, 20, 10.5]
