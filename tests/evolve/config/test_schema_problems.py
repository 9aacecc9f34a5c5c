"""What a schema refuses is said once, at its place, with what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.config.reader import read_search
from evolve.config.yaml_document import read_document
from evolve.problems import ConfigError, Problem

SEARCH: dict[str, Any] = {
    "recipe": {
        "merge_method": "linear",
        "models": [
            {"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}},
            {"model": "b", "parameters": {"weight": 1}},
        ],
    },
    "tasks": ["one"],
}


def problems(directory: Path, content: dict[str, Any]) -> list[str]:
    (directory / "s.yml").write_text(yaml.safe_dump(content))
    return list(map(str, read_search(directory / "s.yml").problems))


@pytest.mark.parametrize(
    ("key", "value", "write"),
    [
        ("workers", 8, "workers: {count: 8}"),
        ("budget", 44, "budget: {evaluations: 44}"),
        ("items", 100, "items: {search: 100}"),
        ("ray", "auto", 'ray: {address: "auto"}'),
        ("backend", "vllm", 'backend: {name: "vllm"}'),
        ("validation", 3, "validation: {finalists: 3}"),
    ],
)
def test_a_value_in_the_place_of_a_section_is_told_as_one_of_its_settings(
    tmp_path: Path, key: str, value: object, write: str
):
    (found,) = problems(tmp_path, {**SEARCH, key: value})
    assert found.startswith(f"{key}: expected a mapping, got ")
    assert found.endswith(f". Write {write}")


@pytest.mark.parametrize(
    ("gene", "said"),
    [
        ({"low": 0, "high": 1, "filters": "self_attn"}, "weight.filters: expected a list or 'each_tensor', got"),
        (
            {"low": 0, "high": 1, "layers": 4},
            "weight.layers: expected a mapping or 'each', got 4. Write layers: {blocks: 4}",
        ),
        ({"low": 0, "high": 1, "layers": {"blocks": 0}}, "weight.layers.blocks: must be at least 1, got 0"),
        ({"low": 0, "high": 1, "layers": {"knots": 1}}, "weight.layers.knots: must be at least 2, got 1"),
        (
            {"low": 0, "high": 1, "layers": {"knots": 3_000_000}},
            "weight.layers.knots: must be at most 1000, got 3",
        ),
        ({"low": 0, "high": 1, "layers": {"blocks": 3, "knots": 2}}, "weight.layers.knots: unknown key"),
        ({"min": 0, "max": 2}, "weight: a gene has low and high, got min and max. Write {low: 0, high: 2}"),
    ],
)
def test_a_gene_is_told_without_the_names_of_our_classes(tmp_path: Path, gene: dict[str, Any], said: str):
    first, second = SEARCH["recipe"]["models"]
    recipe = {**SEARCH["recipe"], "models": [{**first, "parameters": {"weight": gene}}, second]}
    (found,) = problems(tmp_path, {**SEARCH, "recipe": recipe})
    assert f"recipe.models[0].parameters.{said}" in found


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"simplify": {"allow": -1}}, "simplify.allow: must be at least 0, got -1"),
        ({"backend": {"device_map": {"a": [1]}}}, "backend.device_map.a: expected a whole number, such as 100 or text"),
        ({"optimizer": {"population_size": 10**5}}, "optimizer.population_size: must be at most 10000"),
        ({"workers": {"count": 10**15}}, "workers.count: must be at most 100000"),
        ({"workers": {"cpus": 10**15}}, "workers.cpus: must be at most 65536"),
        (
            {"workers": {"time_limit": 1e308}},
            "workers.time_limit: expected a number at most 1e+08 or 'auto' or 'none', got 1e+308",
        ),
    ],
)
def test_of_several_forms_that_a_setting_may_have_the_nearest_is_told(
    tmp_path: Path, section: dict[str, Any], said: str
):
    (found,) = problems(tmp_path, {**SEARCH, **section})
    assert found.startswith(said)


def test_a_setting_below_a_value_says_how_both_are_set(tmp_path: Path):
    (tmp_path / "s.yml").write_text("start: gradient\n")
    with pytest.raises(
        ConfigError, match=r"start is 'gradient', not a section\. Set it as one: --set 'start=\{step: 3"
    ):
        read_document(tmp_path / "s.yml", {"start.step": 3})


def test_what_is_found_after_reading_has_its_line_too(tmp_path: Path):
    (tmp_path / "s.yml").write_text("seed: 1\nstart: gradient\n")
    document = read_document(tmp_path / "s.yml", {})
    with pytest.raises(ConfigError, match=r"^s\.yml:2: start\.method: there is no gradient$"), document.locating():
        raise ConfigError(Problem(("start", "method"), "there is no gradient"))
