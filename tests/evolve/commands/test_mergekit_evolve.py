"""The options of mergekit-evolve, given to `evolve run`."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.commands.mergekit_evolve import OPTIONS, settings_of
from evolve.config.reader import read_search

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "configs" / "demo_zoo"
BY_NAME = {option.name.partition("/")[0]: option for option in OPTIONS}


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    file = tmp_path / "genome.yml"
    content = {
        "genome": {
            "models": [str(ZOO / "sorting"), str(ZOO / "shift")],
            "base_model": str(ZOO / "base"),
            "merge_method": "task_arithmetic",
            "layer_granularity": 3,
        },
        "tasks": [{"name": "demo_sorting", "weight": 1.0, "metric": "exact_match,none"}],
        "limit": 8,
        "apply_chat_template": False,
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_every_option_that_means_something_becomes_a_sound_setting(genome: Path, tmp_path: Path) -> None:
    typed = {
        "--max-fevals": 7,
        "--timeout": 90.0,
        "--sigma0": 0.25,
        "--force-population-size": 6,
        "--task-search-path": [str(tmp_path)],
        "--storage-path": str(tmp_path / "out"),
        "--num-gpus": 2,
        "--vllm": False,
        "--load-in-4bit": True,
        "--strategy": "serial",
        "--i-understand-the-depths-of-the-evils-i-am-unleashing": True,
    }
    settings, notes = settings_of({BY_NAME[name]: value for name, value in typed.items()})
    assert notes == []
    config = read_search(genome, settings).config
    assert config is not None
    assert (config.budget.evaluations, config.budget.minutes) == (7, 1.5)
    assert (config.optimizer.name, config.optimizer.sigma, config.optimizer.population_size) == ("cma", 0.25, 6)
    assert (config.output, config.task_search_path) == (str(tmp_path / "out"), (str(tmp_path),))
    assert (config.workers.count, config.workers.gpus) == (1, 1)  # serial, with one GPU
    assert (config.backend.name, config.backend.quantization) == ("hf", "4bit")
    assert config.allow_benchmark_test


def test_a_population_size_alone_leaves_the_first_step_as_it_is_there(genome: Path) -> None:
    config = read_search(genome, settings_of({BY_NAME["--force-population-size"]: 6})[0]).config
    assert config is not None
    assert (config.optimizer.name, config.optimizer.sigma) == ("cma", 1 / 6)


def test_a_project_of_wandb_counts_beside_wandb_alone(genome: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    project = {BY_NAME["--wandb-project"]: "merges"}
    assert settings_of(project) == ({}, [])
    config = read_search(genome, settings_of({BY_NAME["--wandb"]: True, **project})[0]).config
    assert config is not None
    assert [(one.name, one.options) for one in config.callbacks] == [("wandb", {"project": "merges"})]


def test_a_command_line_of_mergekit_evolve_runs_and_says_what_has_no_effect(
    evolve: Any, genome: Path, tmp_path: Path
) -> None:
    line = (
        f"--max-fevals 2 --storage-path {tmp_path / 'out'} --in-memory --batch-size 8 --no-merge-cuda --random-seed 3"
    )
    done = evolve("run", genome, *line.split(), "-s", "pool", "--set", "start=references")
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^(--\S+) has no effect: \S", done.stderr, re.MULTILINE)
    assert sorted(said) == ["--batch-size", "--in-memory", "--merge-cuda", "--strategy"]
    run = yaml.safe_load((tmp_path / "out" / "search.yml").read_text(encoding="utf-8"))
    assert (run["seed"], run["budget"]["evaluations"]) == (3, 2)


def test_an_option_that_neither_has_is_refused(evolve: Any, genome: Path) -> None:
    done = evolve("run", genome, "--max-feval", 3)
    assert (done.returncode, "--max-fevals" in done.stderr) == (2, True)


def test_no_option_of_mergekit_evolve_is_forgotten() -> None:
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("MERGEKIT_PYTHON names no Python with mergekit")
    find = "import importlib.util; print(importlib.util.find_spec('mergekit.scripts.evolve').origin)"
    source = Path(subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip())
    theirs = set(re.findall(r'"(--[a-z0-9-]+)[/"]', source.read_text(encoding="utf-8")))
    run = inspect.getsource(__import__("evolve.commands.run", fromlist=["run"]))
    ours = {*BY_NAME, *re.findall(r'"(--[a-z0-9-]+)"', run)}
    assert theirs - ours == set()
