"""Docs, schema and shipped configurations say what the code does."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evolve.commands.cli import make_app
from evolve.config.docs_page import reference
from evolve.config.json_schema import search_schema
from evolve.config.reader import read_search

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yml"))
BEDS = sorted((ROOT / "benchmarks" / "search").glob("*/search.yml"))


def test_the_page_on_search_files_is_the_one_that_the_code_makes():
    assert (ROOT / "docs" / "search-file.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_is_sound_and_opens_with_its_command(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert shlex.split(first.removeprefix("#")) == ["evolve", "run", f"configs/{path.name}"]
    assert read_search(path).problems == ()


@pytest.mark.parametrize("path", BEDS, ids=lambda path: path.parent.name)
def test_every_bed_of_the_benchmark_is_a_sound_search(path):
    assert read_search(path).problems == ()


@pytest.mark.parametrize("path", [*CONFIGS, *BEDS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_configuration_fits_the_schema(path):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), search_schema())


def test_the_schema_refuses_what_the_reader_refuses():
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"recipe": {}, "tasks": ["a"], "budgets": {}}, search_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"recipe": {}, "tasks": ["a"], "budget": {"evaluations": 0}}, search_schema())


def test_the_schema_command_prints_json():
    assert json.loads(CliRunner().invoke(make_app(), ["schema"]).stdout)["title"] == "search.yml"


@pytest.mark.parametrize("name", ["run", "merge", "check", "best", "status", "schema"])
def test_the_page_of_commands_names_it_and_it_has_a_help(name):
    assert f"evolve {name}" in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(make_app(), [name, "--help"]).exit_code == 0


def test_the_search_over_published_models_decodes_to_a_recipe_of_their_28_layers():
    from evolve.space.recipe_space import RecipeSpace
    from merge_core import Recipe

    template = read_search(ROOT / "configs" / "qwen2.5-1.5b.yml").recipe
    space = RecipeSpace.from_template(template, layer_count=28)
    recipe = Recipe.from_mapping(space.decode(space.start(None)))
    assert len(space.coordinates) == 3 * (4 + 1)
    assert [output.sources[0].layer_range for output in recipe.slices] == [(0, 7), (7, 14), (14, 21), (21, 28)]
    assert {str(reference) for reference in recipe.references()} == set(space.models)
