"""The best of an earlier run as a model of the next search: merged in memory, and part of a standard recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from evolve.actions.check_search import check_search
from evolve.config.machines import BackendConfig
from evolve.config.reader import read_search
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.preflight.fingerprints import fingerprints
from evolve.preflight.prepare import Prepared, prepare
from evolve.problems import ConfigError
from evolve.scoring import LmEvalTask
from evolve.search_loop.references import reference_trials
from evolve.trials.journal import Journal
from merge_core import documents_of, fingerprint, merge
from merge_core.checkpoint.reader import Checkpoint
from merge_core.execute.merged_checkpoint import MergedCheckpoint

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "configs" / "demo_zoo"


def merged(first: str, second: str, method: str = "task_arithmetic", weight: Any = 0.4) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": weight}} for name in (first, second)]
    return {"merge_method": method, "base_model": str(ZOO / "base"), "models": models, "dtype": "bfloat16"}


def earlier_run(path: Path, recipe: Any, seed: int = 0) -> Path:
    """As much of a run as its best needs."""
    path.mkdir()
    search = {"recipe": merged("a", "b"), "tasks": ["demo_sorting"], "seed": seed}
    (path / "search.yml").write_text(yaml.safe_dump(search), encoding="utf-8")
    if recipe is not None:
        written = yaml.safe_dump_all(recipe) if isinstance(recipe, list) else yaml.safe_dump(recipe)
        (path / "best_recipe.yml").write_text(written, encoding="utf-8")
    Journal.open(str(path / "journal.log"), create=True)
    return path


def search(directory: Path, *models: str, **more: Any) -> Path:
    recipe = merged(*models, weight={"low": 0, "high": 1})
    content = {"recipe": recipe, "tasks": ["demo_sorting"], "items": {"search": 4, "held_out": 2}, **more}
    file = directory / "next.yml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return earlier_run(tmp_path / "first", merged(str(ZOO / "sorting"), str(ZOO / "shift")))


def prepared_of(file: Path) -> Prepared:
    return prepare(read_search(file))


def test_a_candidate_is_a_standard_recipe_with_the_document_that_makes_the_run(first: Path) -> None:
    prepared = prepared_of(search(first.parent, "first", str(ZOO / "reversal")))
    nested, result = documents_of(prepared.space.decode([0.5, 0.5]))
    assert nested.name == "first"
    assert [str(entry.model) for entry in nested.models or ()] == [str(ZOO / "sorting"), str(ZOO / "shift")]
    assert [str(entry.model) for entry in result.models or ()] == ["first", str(ZOO / "reversal")]
    assert isinstance(prepared.checkpoints["first"], MergedCheckpoint)
    (label,) = [
        trial.label for trial in reference_trials(prepared.space, prepared.template, True) if "first" in trial.label
    ]
    assert label == "first"


def test_what_is_scored_is_what_is_written_and_no_file_of_the_run_is_touched(first: Path, tmp_path: Path) -> None:
    prepared = prepared_of(search(tmp_path, "first", str(ZOO / "reversal")))
    recipe = prepared.space.decode([0.7, 0.4])
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    worker = Worker(
        WorkerSettings(
            models=tuple(prepared.checkpoints),
            relative_to=str(tmp_path),
            tokenizer_model=prepared.tokenizer_model,
            tasks=(LmEvalTask(name="demo_sorting"),),
            task_search_path=(),
            seed=0,
            backend=BackendConfig(),
            threads=1,
            run_models=tuple(prepared.template.run_models.items()),
        )
    )
    live = worker.fingerprint(recipe)
    saved = merge(documents_of(recipe), tmp_path / "merged", relative_to=tmp_path)
    assert live == saved.fingerprint
    written = Checkpoint.open(tmp_path / "merged")
    assert fingerprint((name, written.read(name)) for name in written.tensors) == live
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_tensor_is_merged_once_and_is_the_one_that_would_be_written(first: Path, tmp_path: Path) -> None:
    model = prepared_of(search(tmp_path, "first", str(ZOO / "reversal"))).checkpoints["first"]
    saved = merge(first / "best_recipe.yml", tmp_path / "written")
    written = Checkpoint.open(saved.path)
    assert written.tensors.keys() == model.tensors.keys()
    for name in written.tensors:
        assert torch.equal(model.read(name), written.read(name))
        assert model.read(name).data_ptr() == model.read(name).data_ptr()
    assert model.held_bytes == written.stored_bytes


def test_its_memory_is_counted_and_its_recipe_is_what_scores_belong_to(first: Path, tmp_path: Path) -> None:
    file = search(tmp_path, "first", str(ZOO / "reversal"))
    report = check_search(file, {})
    size = Checkpoint.open(ZOO / "sorting").stored_bytes
    assert report.facts["bytes"]["run_models_per_worker"] == pytest.approx(size, rel=0.01)
    assert "models of earlier runs" in report.text
    before = fingerprints(prepared_of(file))
    (first / "best_recipe.yml").write_text(yaml.safe_dump(merged(str(ZOO / "sorting"), str(ZOO / "shift"), weight=0.5)))
    now = fingerprints(prepared_of(file))
    assert {what for what in before if before[what] != now[what]} == {"model first: recipe"}


def test_a_run_of_a_run_and_of_several_methods_keeps_all_its_documents_apart(tmp_path: Path) -> None:
    ties = {**merged(str(ZOO / "sorting"), str(ZOO / "shift"), "ties"), "name": "by_ties"}
    linear = {**merged(str(ZOO / "sorting"), str(ZOO / "shift"), "linear"), "name": "by_linear"}
    slices = [
        {"sources": [{"model": name, "layer_range": list(layers)}]}
        for name, layers in (("by_ties", (0, 3)), ("by_linear", (3, 6)))
    ]
    stacked = {"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16"}
    earlier_run(tmp_path / "first", [ties, linear, stacked])
    earlier_run(tmp_path / "second", [ties, linear, stacked])
    prepared = prepared_of(search(tmp_path, "first", "second"))
    documents = documents_of(prepared.space.decode([0.5, 0.5]))
    names = ["first_by_ties", "first_by_linear", "first", "second_by_ties", "second_by_linear", "second", None]
    assert [document.name for document in documents] == names


@pytest.mark.parametrize(
    ("recipe", "seed", "said"),
    [
        (None, 0, "the run first has found nothing yet"),
        ({"merge_method": "no_such"}, 0, "the best of the run first cannot be read"),
        (
            merged(str(ZOO / "sorting"), str(ZOO / "shift"), "dare_linear"),
            7,
            "was drawn with seed 7, and this search has 0",
        ),
        (merged(str(ZOO / "sorting"), str(ZOO / "nowhere")), 0, "nowhere"),
        (merged(str(ZOO / "sorting"), "x" * 300), 0, "no directory .*xxx"),
    ],
)
def test_what_cannot_stand_for_a_model_is_told(tmp_path: Path, recipe: Any, seed: int, said: str) -> None:
    earlier_run(tmp_path / "first", recipe, seed)
    with pytest.raises(ConfigError, match=said):
        prepared_of(search(tmp_path, "first", str(ZOO / "reversal")))
