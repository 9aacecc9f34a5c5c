"""What an earlier run found is where the next begins: by the names of genes, or by the places that they set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.config.reader import read_search
from evolve.preflight.prepare import Prepared, prepare
from evolve.problems import ConfigError
from evolve.search_loop.opening import choose_start
from evolve.search_loop.warm_start import WarmStart, warm_starts
from evolve.trials.journal import Journal
from evolve.trials.journal_lines import JournalError
from evolve.trials.trial import Evaluation, Kind, Trial

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "configs" / "demo_zoo"


def written(
    path: Path, gene: dict[str, Any], experts: tuple[str, ...] = ("sorting", "shift"), layers: Any = None, **more: Any
) -> Path:
    models = [{"model": str(ZOO / name), "parameters": {"weight": gene}} for name in experts]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(ZOO / "base"), "models": models}
    if layers is not None:
        recipe["layers"] = layers
    content = {"recipe": recipe, "tasks": ["demo_sorting"], "items": {"search": 4, "held_out": 2}, **more}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def prepared_of(path: Path) -> Prepared:
    return prepare(read_search(path))


def earlier_run(
    directory: Path, gene: dict[str, Any], values: list[float], recipe: dict[str, Any] | None = None, **options: Any
) -> Prepared:
    """A run whose best has these genes, as its files tell it; or a recipe of another search."""
    directory.mkdir()
    prepared = prepared_of(written(directory / "search.yml", gene, **options))
    space = prepared.space
    vector = tuple(axis.gene.unit(value) for axis, value in zip(space.coordinates, values, strict=True))  # type: ignore[arg-type]
    trial = Trial(
        number=0,
        kind=Kind.CANDIDATE,
        label="candidate 1",
        batch=0,
        recipe=recipe or space.decode(vector),
        vector=vector,
        genes={axis.name: value for axis, value in zip(space.coordinates, values, strict=True) if recipe is None},
    )
    journal = Journal.open(str(directory / "journal.log"), create=True)
    journal.begin([trial], {axis.name: axis.gene.distribution() for axis in space.coordinates})
    from dataclasses import replace

    scored = replace(trial, evaluation=Evaluation(0, scores={"demo_sorting": {0: 1.0}}), objective=1.0, fitness=1.0)
    journal.finish(replace(scored, task_scores={"demo_sorting": 1.0}))
    (directory / "run.json").write_text(json.dumps({"best": 0}), encoding="utf-8")
    return prepared


def warm(prepared: Prepared) -> list[WarmStart]:
    sensitivity = choose_start(prepared).sensitivity
    assert sensitivity is not None
    return warm_starts(prepared, sensitivity)


RANGE = {"low": -0.5, "high": 1.5}


def test_genes_of_the_same_name_carry_over_as_they_are(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    (found,) = warm(prepared_of(written(tmp_path / "next.yml", RANGE, warm_start="run")))
    assert found.carried == 2
    assert found.vector == pytest.approx([0.4, 0.8])


def test_held_out_items_that_steered_the_earlier_run_are_counted(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    prepared = prepared_of(written(tmp_path / "next.yml", RANGE, warm_start=["run"], seed=3))
    (task,) = prepared.splits
    split = prepared.splits[task]
    for steered, seen in (([split.held_out[0], split.search[0]], 1), (list(split.search), 0)):
        items = {task: {"search": steered, "held_out": []}, "another": {"search": list(split.held_out)}}
        (tmp_path / "run" / "items.json").write_text(json.dumps(items), encoding="utf-8")
        (found,) = warm(prepared)
        assert found.seen == seen


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("items.json", b"{", "which items steered that run"),
        ("items.json", b"[1]", None),
        ("items.json", b'{"demo_sorting": [1]}', "which items steered that run"),
        ("search.yml", b"\tx: [", None),  # its journal is beside it all the same
        ("search.yml", b"- a", None),
        ("journal.log", b"other words\n", "is no journal"),
    ],
)
def test_damage_of_the_earlier_run_is_told_where_it_matters(
    tmp_path: Path, file: str, text: bytes, said: str | None
) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    (tmp_path / "run" / file).write_bytes(text)
    prepared = prepared_of(written(tmp_path / "next.yml", RANGE, warm_start=["run"]))
    if said is None:
        assert warm(prepared)[0].carried == 2
        return
    with pytest.raises((ConfigError, JournalError), match=said):
        warm(prepared)


def test_a_coarse_run_starts_a_finer_one_at_the_same_model(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    finer = {**RANGE, "layers": "each", "filters": ["self_attn"]}
    prepared = prepared_of(written(tmp_path / "next.yml", finer, warm_start=["run"]))
    (found,) = warm(prepared)
    assert found.carried == len(prepared.space.coordinates) == 2 * 2 * 6
    half = len(found.vector) // 2
    assert found.vector == pytest.approx([0.4] * half + [0.8] * half)


def test_a_fine_run_starts_a_coarser_one_at_means(tmp_path: Path) -> None:
    values = [0.1 * layer for layer in range(6)] + [0.5] * 6
    earlier_run(tmp_path / "run", {**RANGE, "layers": "each"}, values)
    (found,) = warm(prepared_of(written(tmp_path / "next.yml", RANGE, warm_start=["run"])))
    first, second = ((2.0 * unit - 0.5) for unit in found.vector)
    assert 0.0 < first < 0.5
    assert second == pytest.approx(0.5)


def test_a_path_is_where_weights_on_it_begin_at_the_same_model(tmp_path: Path) -> None:
    each = {**RANGE, "layers": "each"}
    taken = [("sorting", 0, 2), ("shift", 1, 4), ("base", 4, 6)]
    slices = [{"sources": [{"model": str(ZOO / name), "layer_range": [low, high]}]} for name, low, high in taken]
    earlier_run(tmp_path / "run", each, [0.0] * 12, {"merge_method": "passthrough", "slices": slices})
    prepared = prepared_of(written(tmp_path / "next.yml", each, layers="any", warm_start=["run"]))
    (found,) = warm(prepared)
    values = [axis.gene.value(unit) for axis, unit in zip(prepared.space.coordinates, found.vector, strict=True)]
    assert values[:9] == [1, 2, 2, 3, 4, 5, 6, 0, 0]
    weights = dict(zip([axis.name for axis in prepared.space.coordinates[9:]], values[9:], strict=True))
    assert weights["weight[sorting].layers0-0"] == 1.0
    assert weights["weight[sorting].layers1-1"] == 0.5, "layer 1 is passed twice, as two models have it"
    assert [weights[f"weight[shift].layers{layer}-{layer}"] for layer in range(6)] == [0.0, 0.5, 1.0, 1.0, 0.0, 0.0]


def test_values_beyond_the_new_range_come_to_its_end(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.4])
    (found,) = warm(prepared_of(written(tmp_path / "next.yml", {"low": 0.0, "high": 1.0}, warm_start=["run"])))
    assert found.vector == pytest.approx([0.3, 1.0])


def test_a_model_that_is_new_begins_as_the_file_says(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    more = ("sorting", "shift", "reversal")
    (found,) = warm(prepared_of(written(tmp_path / "next.yml", {**RANGE, "init": 0.0}, more, warm_start=["run"])))
    assert found.carried == 2
    assert found.vector == pytest.approx([0.4, 0.8, 0.25])


def test_what_is_no_run_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "is not a directory"), ("empty", "holds no run")):
        with pytest.raises(ConfigError, match=message):
            warm(prepared_of(written(tmp_path / "next.yml", RANGE, warm_start=[name])))


def test_a_run_over_other_models_carries_nothing(tmp_path: Path) -> None:
    earlier_run(tmp_path / "run", RANGE, [0.3, 1.1])
    other = prepared_of(written(tmp_path / "next.yml", RANGE, ("reversal", "swapping"), warm_start=["run"]))
    with pytest.raises(ConfigError, match="carries over"):
        warm(other)
