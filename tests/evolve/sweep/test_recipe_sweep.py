"""Recipes in rounds, with made-up scores: who is dropped, what is kept, and what a killed sweep scores again."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from made_up_search import Killed, MeanTask

from evolve.config.sweep import Variant
from evolve.evaluation.request import Request
from evolve.problems import ConfigError
from evolve.scoring import Objective, ObjectiveTerm
from evolve.sweep.recipe_sweep import RecipeSweep
from evolve.sweep.score_store import FILE_NAME, ScoreStore
from evolve.sweep.table import sweep_csv, sweep_facts, sweep_rows, sweep_text
from evolve.trials.trial import Evaluation

ITEMS = tuple(range(200))
HELD_OUT = tuple(range(200, 400))


def coin(item: int, chance: float) -> float:
    """A number in [0, 1) of its own for each; a random generator takes eight times as long to seed."""
    return int.from_bytes(blake2b(f"{item} {chance}".encode(), digest_size=8).digest(), "big") / 2**64


class MadeUp:
    """Right with the probability that a recipe names, by a coin of its own for each item."""

    workers = 1

    def __init__(self, die_after: int | None = None) -> None:
        self.die_after, self.requests = die_after, list[Request]()

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        for request in filter(None, requests):
            if self.die_after is not None and len(self.requests) >= self.die_after:
                raise Killed
            self.requests.append(request)
            chance = request.recipe["chance"]
            if chance is None:
                yield Evaluation(request.number, failure="no such tensor")
            else:
                values = {item: float(coin(item, chance) < chance) for item in request.items["task"]}
                yield Evaluation(request.number, scores={"task": values}, total_seconds=1.0)

    @property
    def items(self) -> int:
        return sum(len(request.items["task"]) for request in self.requests)


def sweep(directory: Path, evaluator: MadeUp, chances: dict[str, float | None], content: str = "one") -> Any:
    variants = [Variant(name, {"chance": chance}) for name, chance in chances.items()]
    found = RecipeSweep(
        evaluator=evaluator,  # type: ignore[arg-type]
        scorers=[MeanTask()],  # type: ignore[list-item]
        objective=Objective({"task": ObjectiveTerm(1.0, "maximize")}),
        search={"task": ITEMS},
        held_out={"task": HELD_OUT},
        finalists=2,
        seed=0,
        store=ScoreStore(directory, {"content": content}),
    )
    return found.run(variants, {name: {"chance": chance} for name, chance in chances.items()})


CHANCES: dict[str, float | None] = {"bad": 0.1, "good": 0.9, "broken": None, "fair": 0.85, "poor": 0.3}


def test_the_beaten_see_no_more_items_and_the_best_of_the_rest_are_held_out(tmp_path: Path) -> None:
    evaluator = MadeUp()
    results = {result.variant.name: result for result in sweep(tmp_path, evaluator, CHANCES)}
    assert [name for name, result in results.items() if result.dropped] == ["bad", "poor"]
    assert {len(results[name].search["task"]) for name in ("bad", "poor")} == {50}
    assert {name for name, result in results.items() if result.held_out} == {"good", "fair"}
    assert results["broken"].failure == "no such tensor"
    assert evaluator.items < len(CHANCES) * len(ITEMS)


def test_equals_are_not_dropped_more_often_than_is_stated(tmp_path: Path) -> None:
    """The best by truth is dropped in at most 5 % of sweeps; here, of 60 with five variants that differ by a hair."""
    dropped = 0
    for trial in range(60):
        directory = tmp_path / str(trial)
        directory.mkdir()
        chances: dict[str, float | None] = {f"v{k}": 0.5 + 0.001 * k + 1e-6 * trial for k in range(5)}
        dropped += next(result.dropped for result in sweep(directory, MadeUp(), chances) if result.variant.name == "v4")
    assert dropped <= 6  # P(more | 5 %) < 0.04


@pytest.mark.parametrize("die_after", [1, 3, 6, 8, 10])
def test_a_killed_sweep_goes_on_and_ends_the_same(tmp_path: Path, die_after: int) -> None:
    whole, first, second = tmp_path / "whole", tmp_path / "first", MadeUp()
    whole.mkdir()
    first.mkdir()
    undisturbed = MadeUp()
    expected = sweep(whole, undisturbed, CHANCES)
    with pytest.raises(Killed):
        sweep(first, MadeUp(die_after), CHANCES)
    with (first / FILE_NAME).open("a") as file:
        file.write('{"key": "search good", "eval')  # torn by the kill
    assert sweep(first, second, CHANCES) == expected
    failures = sum(request.recipe["chance"] is None for request in second.requests)
    assert len(second.requests) - failures <= len(undisturbed.requests) - die_after
    assert sweep(first, third := MadeUp(), CHANCES) == expected
    assert all(request.recipe["chance"] is None for request in third.requests)


@pytest.mark.parametrize(
    ("found", "left"),
    [(r'"values": [', r'"values": [7.0, '), ('"evaluation": {', '"evaluation": 5, "e": {'), ('{"key"', "\x00\xff")],
)
def test_a_damaged_line_is_said_and_its_result_scored_again(
    tmp_path: Path, found: str, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = sweep(tmp_path, MadeUp(), CHANCES)
    head, first, *others = (tmp_path / FILE_NAME).read_text().split("\n")
    (tmp_path / FILE_NAME).write_text("\n".join([head, first.replace(found, left, 1), *others]))
    assert sweep(tmp_path, again := MadeUp(), CHANCES) == expected
    assert "1 damaged line, of which the results are scored again" in capsys.readouterr().err
    assert {request.recipe["chance"] for request in again.requests} > {None}


def test_results_of_an_earlier_version_had_no_checksum(tmp_path: Path) -> None:
    expected = sweep(tmp_path, MadeUp(), CHANCES)
    kept = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(re.sub(r', "crc32": "[0-9a-f]{8}"', "", kept))
    assert sweep(tmp_path, again := MadeUp(), CHANCES) == expected
    assert {request.recipe["chance"] for request in again.requests} == {None}


def test_scores_of_other_tasks_are_not_mixed_in(tmp_path: Path) -> None:
    sweep(tmp_path, MadeUp(), CHANCES)
    with pytest.raises(ConfigError, match="other models, tasks, items"):
        sweep(tmp_path, MadeUp(), CHANCES, content="other")


def test_the_table_is_ordered_by_held_out_scores_and_tells_everything(tmp_path: Path) -> None:
    results = sweep(tmp_path, MadeUp(), CHANCES)
    rows = sweep_rows(results, Objective({"task": ObjectiveTerm(1.0, "maximize")}))
    names = [row.result.variant.name for row in rows]
    held_out = [row.result for row in rows if row.held_out]
    means = {result.variant.name: statistics.fmean(result.held_out["task"].values()) for result in held_out}
    assert names[0] == max(means, key=lambda name: means[name])
    assert set(names[:2]) == {"good", "fair"}
    assert names[2:4] == ["poor", "bad"]
    assert rows[0].difference is None
    second = rows[1].difference
    assert second is not None
    assert second.value == pytest.approx(means[names[1]] - means[names[0]])
    text = sweep_text(rows, 120)
    assert "broken failed: no such tensor" in text
    lines = sweep_csv(rows).splitlines()
    assert len(lines) == 1 + len(CHANCES)
    assert lines[0].startswith("variant,chance,held_out,held_out.low")
    assert [facts["beaten_early"] for facts in sweep_facts(rows)] == [False, False, True, True, False]


def test_seeds_are_told_together(tmp_path: Path) -> None:
    results = []
    for seed in range(3):
        (found,) = sweep(tmp_path, MadeUp(), {"a": 0.5 + seed / 10})
        results.append(found)
        (tmp_path / FILE_NAME).unlink()
    results = [replace(one, seed=k, variant=Variant(f"seed={k}", {"seed": k})) for k, one in enumerate(results)]
    rows = sweep_rows(results, Objective({"task": ObjectiveTerm(1.0, "maximize")}))
    assert all(row.difference is None for row in rows)  # other items, so that none is paired with another
    values = [row.held_out.value for row in rows if row.held_out is not None]
    assert f"{statistics.fmean(values):.4f} ± {1.96 * statistics.stdev(values) / 3**0.5:.4f}" in sweep_text(rows, 120)


def test_a_recipe_that_was_changed_under_its_name_is_scored_anew(tmp_path: Path) -> None:
    sweep(tmp_path, MadeUp(), {"a": 0.5, "b": 0.6})
    sweep(tmp_path, again := MadeUp(), {"a": 0.5, "b": 0.7})
    assert {request.recipe["chance"] for request in again.requests} == {0.7}
