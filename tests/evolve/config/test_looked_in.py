"""Names in a file mean what they meant where it was written, wherever it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from evolve.config.looked_in import beside_or_here, looked_in, looked_in_by_recipe, seed_of_recipe
from evolve.config.schema import SearchConfig
from evolve.trials.journal import Journal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's directory, whose search is in another one."""
    (tmp_path / "project").mkdir()
    directory = tmp_path / "runs" / "one"
    for inner in ("pareto", "simple", "model"):
        (directory / inner).mkdir(parents=True)
    Journal.open(str(directory / "journal.log"), create=True).write_header({"config": {}})
    (directory / "search.yml").write_text("relative_to: ../../project\n", encoding="utf-8")
    return directory


@pytest.mark.parametrize("name", ["best_recipe.yml", "pareto/1.yml"])
def test_a_recipe_that_a_run_left_names_models_as_its_search_does(run: Path, name: str) -> None:
    assert looked_in_by_recipe(run / name) == run.parents[1] / "project"


@pytest.mark.parametrize("name", ["mine.yml", "model/recipe.yml", "simple/recipe.yml", "best_recipe.yml"])
@pytest.mark.parametrize("spoilt", ["journal.log", "search.yml"])
def test_any_other_recipe_names_models_from_its_own_place(run: Path, name: str, spoilt: str) -> None:
    if name == "best_recipe.yml":
        (run / spoilt).write_text("[", encoding="utf-8")
    assert looked_in_by_recipe(run / name) == (run / name).parent


@pytest.mark.parametrize(
    ("name", "seed"), [("best_recipe.yml", 7), ("pareto/1.yml", 7), ("simple/recipe.yml", 7), ("model/recipe.yml", 0)]
)
def test_a_recipe_that_a_run_left_is_merged_by_its_seed(run: Path, name: str, seed: int) -> None:
    (run / "search.yml").write_text("seed: 7\n", encoding="utf-8")
    assert seed_of_recipe(run / name) == seed
    (run / "search.yml").write_text("seed: seven\n", encoding="utf-8")
    assert seed_of_recipe(run / name) == 0


def test_a_place_that_is_gone_is_passed_over(run: Path) -> None:
    assert looked_in(run / "search.yml", {"relative_to": "../../elsewhere"}) == run
    assert looked_in(run / "search.yml", {"relative_to": 5}) == run
    assert looked_in(run / "search.yml", {"relative_to": "x" * 300}) == run
    assert looked_in(run / "search.yml", {}) == run


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "search.yml"])
def test_a_name_that_no_directory_has_means_none(run: Path, name: str) -> None:
    assert beside_or_here("..", run) == run / ".."
    assert beside_or_here(name, run) is None


def test_an_output_at_home_is_made_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written = {"recipe": {"merge_method": "linear"}, "tasks": [{"name": "task"}], "output": "~/runs/one"}
    assert SearchConfig.model_validate(written).output == str(tmp_path / "runs" / "one")


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:///?timeout=5"])
def test_a_storage_that_no_run_could_be_gone_on_from_is_refused(storage: str) -> None:
    written = {"recipe": {"merge_method": "linear"}, "tasks": [{"name": "task"}], "storage": storage}
    with pytest.raises(ValidationError, match="gone with the process"):
        SearchConfig.model_validate(written)
