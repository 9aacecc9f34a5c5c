"""`evolve run` as its user runs it, on the demo zoo's real models.

In processes of its own where a process is what is tested; what is told apart by files and messages alone runs in this
one, which has the libraries loaded.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from finished_runs import trials
from warm_program import Program, run_program

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "tasks=[demo_sorting, demo_shift]",
    "items.search=20",
    "items.held_out=30",
    "budget={evaluations: 14}",
    "start.steps=2",
    "optimizer={name: cma, population_size: 6, sigma: 0.15}",
    "workers.cpus=1",
    "validation.finalists=2",
    "simplify=off",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries under the runs in this process
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def arguments_of(output, settings=()):
    sets = [text for setting in [*SMALL, *settings] for text in ("--set", setting)]
    return ["run", "configs/demo.yml", "--output", str(output), "--workers", "1", *sets]


@pytest.fixture
def run(evolve):
    """``run(output, settings=...)``: a run in this process."""
    return lambda output, settings=(): evolve(*arguments_of(output, settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = run_program(*arguments_of(output))
    assert done.returncode == 0, done.stderr
    return output, done


def test_everything_promised_is_in_the_output_directory(whole):
    output, done = whole
    names = {path.name for path in output.iterdir()}
    assert {
        "best_recipe.yml",
        "model",
        "README.md",
        "trials.csv",
        "journal.log",
        "search.yml",
        "run.json",
        "items.json",
    } <= names
    assert "best_recipe.yml" in done.stdout
    rows = trials(output)
    assert sum(row["kind"] == "candidate" for row in rows) == 14
    assert all(row["state"] == "complete" for row in rows)
    recipe = yaml.safe_load((output / "best_recipe.yml").read_text())
    assert recipe["base_model"] == "configs/demo_zoo/base"  # the reference as the user wrote it
    items = json.loads((output / "items.json").read_text())
    assert set(items) == {"demo_sorting", "demo_shift"}
    for split in items.values():
        assert (len(set(split["search"])), len(set(split["held_out"]))) == (20, 30)
        assert not set(split["search"]) & set(split["held_out"])


def test_the_saved_model_is_bit_for_bit_the_one_that_was_scored(whole):
    from safetensors.torch import load_file

    from merge_core import fingerprint

    output, _ = whole
    recorded = json.loads((output / "run.json").read_text())["fingerprint"]
    assert fingerprint(load_file(output / "model" / "model.safetensors").items()) == recorded


def test_transformers_loads_the_model_without_complaint(whole):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output, _ = whole
    _, report = AutoModelForCausalLM.from_pretrained(output / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert len(AutoTokenizer.from_pretrained(output / "model")) > 0


def test_killed_at_random_moments_and_started_again_it_is_the_same_run(whole, run, tmp_path):
    output = tmp_path / "killed"
    moments = random.Random(5)
    journal = output / "journal.log"
    kills = 0

    def size():
        return journal.stat().st_size if journal.exists() else 0

    while kills < 3:
        wanted = size() + 2000
        program = Program(*arguments_of(output))
        program.wait_for(lambda: size() > wanted)  # noqa: B023 - called before it changes
        time.sleep(moments.uniform(0, 0.3))
        finished = program.poll() is not None
        program.kill()
        if finished:
            break
        kills += 1
    assert kills == 3
    done = run(output)
    assert done.returncode == 0, done.stderr
    assert trials(output) == trials(whole[0])
    assert (output / "best_recipe.yml").read_bytes() == (whole[0] / "best_recipe.yml").read_bytes()
    fingerprints = [json.loads((path / "run.json").read_text())["fingerprint"] for path in (output, whole[0])]
    assert fingerprints[0] == fingerprints[1]


def test_interrupt_stops_softly_and_the_run_goes_on(whole, run, tmp_path):
    output = tmp_path / "interrupted"
    program = Program(*arguments_of(output))
    journal = output / "journal.log"
    program.wait_for(lambda: journal.exists() and journal.read_text().count('"result"') >= 7)
    program.send_signal(signal.SIGINT)
    ended = program.ended(timeout=60)
    assert ended.returncode == 130
    assert "Go on with: evolve run" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (output / "best_recipe.yml").exists()
    done = run(output)
    assert done.returncode == 0, done.stderr
    assert trials(output) == trials(whole[0])


def test_a_changed_search_is_refused_with_the_difference(whole, run):
    output, _ = whole
    done = run(output, settings=["optimizer.sigma=0.3", "items.search=10"])
    assert done.returncode == 2
    assert "optimizer.sigma: this run was begun with 0.15, the file now says 0.3" in done.stderr
    assert "items.search" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lowered_budget_is_refused_and_a_raised_one_goes_on(whole, run, tmp_path):
    output, _ = whole
    done = run(output, settings=["budget.evaluations=10"])
    assert done.returncode == 2
    assert "a budget can only be raised" in done.stderr
    first = tmp_path / "extended"
    assert run(first, settings=["budget.evaluations=6"]).returncode == 0
    assert run(first).returncode == 0
    assert trials(first) == trials(output)


def test_a_run_goes_on_from_its_directory_and_from_its_copy_of_the_search(whole, run, evolve, tmp_path):
    output = tmp_path / "run"
    assert run(output, settings=["budget.evaluations=6"]).returncode == 0
    for named, evaluations in ((output, 10), (output / "search.yml", 14)):
        done = evolve("run", named, "--set", f"budget.evaluations={evaluations}")
        assert done.returncode == 0, done.stderr
    assert trials(output) == trials(whole[0])


def test_status_and_best_read_the_run(whole, evolve):
    output, _ = whole
    for name, expected in (("status", "finished, 14 of 14"), ("best", "merge_method:")):
        done = evolve(name, output)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_mergekit_makes_the_same_model_of_the_best_recipe(whole, tmp_path):
    import torch
    from safetensors.torch import load_file

    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("MERGEKIT_PYTHON, the Python of an environment with mergekit 0.1.5, is not set")
    output, _ = whole
    made = subprocess.run(
        [Path(python).parent / "mergekit-yaml", output / "best_recipe.yml", tmp_path / "theirs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    ours = load_file(output / "model" / "model.safetensors")
    theirs = load_file(next((tmp_path / "theirs").glob("*.safetensors")))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # mergekit works in bf16 throughout, we round once: a few units in the last place.
        assert torch.allclose(tensor.float(), theirs[name].float(), rtol=2**-6, atol=2**-9), name


def test_several_objectives_on_the_parents_scale_end_with_a_recipe_for_every_member_of_the_front(run, tmp_path):
    from evolve.actions.status import open_journal
    from evolve.trials.pareto_front import dominates
    from evolve.trials.run_directory import RunDirectory

    output = tmp_path / "pareto"
    settings = ["tasks=[demo_sorting, demo_reversal, demo_shift, demo_swapping]", "normalize=parents"]
    settings += ["objectives=[[demo_sorting, demo_shift], [demo_reversal, demo_swapping]]"]
    settings += ["optimizer.name=nsga2", "optimizer.population_size=6", "budget.evaluations=12"]
    done = run(output, settings=settings)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
    summary = json.loads((output / "run.json").read_text())
    recipes = [output / member["recipe"] for member in summary["pareto_front"]]
    assert sorted((output / "pareto").glob("*.yml")) == sorted(recipes)
    trials = open_journal(RunDirectory(output)).trials()
    assert trials[0].objective_values == (0.0, 0.0)  # the base model
    for member, recipe in zip(summary["pareto_front"], recipes, strict=True):
        trial = trials[member["number"]]
        assert yaml.safe_load(recipe.read_text()) == trial.recipe
        assert tuple(member["objectives"].values()) == trial.objective_values
        assert not any(dominates(other, trial) for other in trials)
    assert summary["best"] in [member["number"] for member in summary["pareto_front"]]
    assert summary["objective"]["scales"].keys() == {"demo_sorting", "demo_reversal", "demo_shift", "demo_swapping"}
    again = run(output, settings=settings)  # nothing is left to do, and nothing changes
    assert again.returncode == 0, again.stderr
    assert json.loads((output / "run.json").read_text())["pareto_front"] == summary["pareto_front"]
