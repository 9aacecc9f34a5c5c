"""What a wrong search.yml is told: everything at once, each with its place, what was found, and the fix."""

from __future__ import annotations

import copy
import errno
import json
import os
import re

import pytest
import yaml
from tiny_search import GOOD, write_models

from evolve.actions.check_recipe import check_recipe
from evolve.commands import cli
from evolve.config.reader import read_search
from evolve.evaluation.eval_models import read_models
from evolve.preflight.prepare import prepare
from evolve.problems import ConfigError
from evolve.sweep.prepare_sweep import prepare_sweep
from evolve.trials.run_directory import RunDirectory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("search"))


def change(path, value):
    wrong = copy.deepcopy(GOOD)
    node = wrong
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return wrong


BITS = {"name": "echo", "metric": "exact_match", "direction": "minimize"}
WEIGHT = ("recipe", "models", 0, "parameters", "weight")
WRONG = {
    "unknown objective": (
        change(("objective",), "median"),
        [r"objective: expected 'weighted_sum', 'worst' or 'geometric_mean' or a function, module:name, got \"median\""],
    ),
    "objectives of tasks that are not there": (
        {**change(("objectives",), [["echo"], ["ecco"]]), "optimizer": "cma"},
        [r"objectives: no task is called ecco; there are echo", r"objectives: cma has one objective"],
    ),
    "one objective among several": (
        {**change(("objectives",), [["echo"]]), "optimizer": {"name": "cma"}},
        [r"objectives: at least two are needed", r"objectives: cma has one objective"],
    ),
    "several objectives and cma": (
        {
            **change(("tasks",), ["echo", {"name": "echo", "alias": "again"}]),
            "objectives": ["echo", ["again"]],
            "optimizer": "cma",
        },
        [r"objectives: cma has one objective; set optimizer.name to one of auto, gp, grid, nsga2"],
    ),
    "geometric mean of what should go down": (
        {**change(("tasks",), [BITS]), "objective": "geometric_mean"},
        [r"objective: geometric_mean needs scores above 0, and lower is better for echo.*Set normalize: parents"],
    ),
    "settings of a task that do not fit together": (
        change(("tasks",), [{"perplexity": "a.txt", "window": 8, "stride": 9}]),
        [r"tasks\[0\]: stride 9 is longer than window 8"],
    ),
    "answers without tokens": (
        change(("tasks", 0, "gen_kwargs"), {"max_gen_toks": 0}),
        [r"tasks\[0\]: task 'echo': generation_kwargs: max_gen_toks must be at least 1, got 0"],
    ),
    "no tasks": (change(("tasks",), []), [r"tasks: expected at least 1, got \[\]"]),
    "a task that is nothing": (change(("tasks",), [None]), [r"tasks\[0\]: expected a task's name or its settings"]),
    "a target that is no number": (change(("budget", "target"), float("nan")), [r"budget\.target: .*finite"]),
    "unknown key": (
        change(("budget", "evalutions"), 3),
        [r"budget\.evalutions: unknown key\. Did you mean evaluations"],
    ),
    "unknown section": (change(("optimiser",), {}), [r"optimiser: unknown key\. Did you mean optimizer"]),
    "text for a number": (
        change(("tasks", 0, "weight"), "high"),
        [r"tasks\[0\]\.weight: expected a number, such as 0\.5, got \"high\""],
    ),
    "number out of range": (change(("budget", "evaluations"), 0), [r"budget\.evaluations: must be at least 1, got 0"]),
    "unknown optimizer, by name alone": (
        change(("optimizer",), "cmae"),
        [r"optimizer\.name: no optimizer is called 'cmae'\. Did you mean 'cma'"],
    ),
    "an optimizer that is a list": (
        change(("optimizer",), ["cma"]),
        [r"optimizer: expected a mapping, got \[\"cma\"\]"],
    ),
    "options of an optimizer that is not named": (
        change(("optimizer",), {"options": {"CMA_diagonal": True}}),
        [r"optimizer\.options: auto has no option 'CMA_diagonal'"],
    ),
    "an unknown mode of the optimizer": (
        change(("optimizer",), {"mode": "steady"}),
        [r"optimizer\.mode: expected 'generations' or 'steady_state', got \"steady\""],
    ),
    "too few points of a grid": (
        change(("optimizer",), {"name": "grid", "options": {"points": 1}}),
        [r"optimizer\.options\.points: .*greater than or equal to 2, got 1"],
    ),
    "a grid without end": (
        change(("optimizer",), {"name": "grid", "options": {"points": 5000}}),
        [r"optimizer\.options: the grid of 2 genes has 5000 x 5000 = 2.5e\+07 points, expected at most 1,000,000"],
    ),
    "a population too small": (
        change(("optimizer",), {"name": "lra_cma", "population_size": 3}),
        [r"optimizer\.population_size: lra_cma needs at least 4, got 3"],
    ),
    "unknown optimizer": (
        change(("optimizer",), {"name": "bayes"}),
        [r"optimizer\.name: no optimizer is called 'bayes'\. Known: auto, cat_cma, cma, gp"],
    ),
    "bounds the wrong way round": (
        change(WEIGHT, {"low": 2, "high": 1}),
        [r"models\[0\]\.parameters\.weight: low must be below high, got low 2 and high 1"],
    ),
    "misspelt gene": (
        change(WEIGHT, {"low": 0, "hihg": 1}),
        [r"weight\.high: missing", r"weight\.hihg: unknown key\. Did you mean high"],
    ),
    "more blocks than layers": (
        change(WEIGHT, {"low": 0, "high": 1, "layers": {"blocks": 3}}),
        [r"weight: layers\.blocks is 3, but the models have 2 layers; use at most 2"],
    ),
    "nothing to search": (
        change(("recipe", "models"), [{"model": "math", "parameters": {"weight": 1}}]),
        [r"recipe: holds no gene"],
    ),
    "unknown method": (change(("recipe", "merge_method"), "task_aritmetic"), [r"Did you mean \"task_arithmetic\""]),
    "unknown parameter": (
        change(("recipe", "models", 0, "parameters"), {"wieght": {"low": 0, "high": 1}}),
        [r"unknown parameter \"wieght\".*Did you mean \"weight\""],
    ),
    "missing model": (
        change(("recipe", "models", 0, "model"), "maths"),
        [r"models\[0\]\.model: model \"maths\": no directory"],
    ),
    "unknown task": (change(("tasks", 0, "name"), "ecko"), [r"tasks\[0\]: .*'ecko'.*Did you mean 'echo'"]),
    "metric that the task lacks": (
        change(("tasks", 0, "metric"), "acc"),
        [r"tasks\[0\]: .*no metric 'acc'.*exact_match,none"],
    ),
    "a task of no kind": (
        change(("tasks",), [{"weight": 2}]),
        [r"tasks\[0\]: says no task; one of these keys is needed: judge:, name:, needle:, perplexity:, python:"],
    ),
    "a task of two kinds": (
        change(("tasks", 0, "perplexity"), "a.txt"),
        [r"tasks\[0\]: one task cannot be name: and perplexity:; keep one of them"],
    ),
    "misspelt key of a task": (
        change(("tasks",), [{"perplexity": "*.txt", "windwo": 3}]),
        [r"tasks\[0\]\.windwo: unknown key\. Did you mean window"],
    ),
    "a key of another kind of task": (
        change(("tasks",), [{"perplexity": "*.txt", "metric": "acc"}]),
        [r"tasks\[0\]\.metric: unknown key\. Known here: .*stride"],
    ),
    "a function without a module": (
        change(("tasks",), [{"python": "score", "items": 3}]),
        [r"tasks\[0\]\.python: .*\"score\"\. `package\.module:function`"],
    ),
    "items that are neither a file nor a function nor a number": (
        change(("tasks",), [{"python": "a:b", "items": [1, 2]}]),
        [r"tasks\[0\]\.items: expected a file, a number, or \{python: package\.module:function\}, got \[1, 2\]"],
    ),
    "unknown backend": (
        change(("backend",), {"name": "vlm"}),
        [r"backend\.name: expected 'hf' or 'vllm', got \"vlm\""],
    ),
    "options of the other backend": (
        change(("backend",), {"name": "vllm", "attention": "sdpa", "quantization": "8bit"}),
        [r"backend\.attention: only with name: hf.*model_args", r"backend\.quantization: only with name: hf"],
    ),
    "bits on several devices": (
        change(("backend",), {"quantization": "8bit", "device_map": "auto"}),
        [r"backend\.device_map: a quantised model is on one device\. Remove it, or quantization"],
    ),
    "a sound task after a wrong one": (
        change(("tasks",), [{"name": "echo", "wieght": 1}, {"python": "nowhere:f", "items": 3}]),
        [r"tasks\[0\]\.wieght: unknown key", r"tasks\[1\]: task 'f': no module 'nowhere'"],
    ),
    "no items": (
        change(("tasks",), [{"python": "a:b", "items": 0}]),
        [r"tasks\[0\]\.items: must be at least 1, got 0"],
    ),
    "a function that is nowhere": (
        change(("tasks",), [{"python": "nowhere:f", "items": 3, "alias": "mine"}]),
        [r"tasks\[0\]: task 'mine': no module 'nowhere'"],
    ),
    "more items than there are": (
        change(("items",), {"search": 8, "held_out": 8}),
        [r"items: echo: .*the task has 10 items"],
    ),
    "missing tasks directory": (
        change(("task_search_path",), "taks"),
        [r"task_search_path.*taks is not a directory", r"'echo'"],
    ),
    "neither recipe nor tasks": ({"seed": 3}, [r"recipe: missing", r"tasks: missing"]),
    "recipe and genome": (
        change(("genome",), {"models": ["math", "code"], "merge_method": "linear"}),
        [r"exactly one of recipe and genome is needed, found both"],
    ),
    "an objective of no task": (
        {**change(("objectives",), [["echo"], ["ecko"]]), "optimizer": {"name": "nsga2"}},
        [r"wrong\.yml:\d+: objectives: no task is called ecko; there are echo"],
    ),
    "racing for certainty": (
        change(("racing",), {"confidence": 1.0}),
        [r"racing\.confidence: must be below 1, got 1\.0"],
    ),
    "racing for a coin's confidence": (
        change(("racing",), {"confidence": 0.5}),
        [r"racing\.confidence: must be above 0\.5, got 0\.5"],
    ),
    "racing with a tolerance below nothing": (
        change(("racing",), {"tolerance": -0.1}),
        [r"racing\.tolerance: expected a number of at least 0, or resolution"],
    ),
    "a misspelt key of racing": (
        change(("racing",), {"confidense": 0.9}),
        [r"racing\.confidense: unknown key\. Did you mean confidence"],
    ),
    "racing with an optimizer that learns from every score": (
        {**GOOD, "racing": {}, "optimizer": {"name": "tpe"}},
        [r"racing: tpe learns from every score.*Remove racing, or set optimizer\.name to one of auto, .*cma"],
    ),
    "racing where there are no batches": (
        {**GOOD, "racing": {}, "optimizer": {"name": "cma", "mode": "steady_state"}},
        [r"racing: in steady state there are no batches\. Remove racing, or set mode: generations"],
    ),
    "racing for a Pareto front": (
        {
            **change(("tasks",), ["echo", {"name": "echo", "alias": "again"}]),
            "objectives": ["echo", ["again"]],
            "optimizer": {"name": "nsga2"},
            "racing": {},
        },
        [r"racing: a Pareto search has no best half of a batch\. Remove racing, or objectives"],
    ),
    "racing for the worst task": (
        {**GOOD, "racing": {}, "objective": "worst"},
        [r"racing: worst is no mean over items.*Remove racing, or objective"],
    ),
    "racing with constraints": (
        {**GOOD, "racing": {}, "constraints": [{"python": "answer_length", "answers_of": "echo", "at_most": 9}]},
        [r"racing: constraints are measured on all of a candidate's answers\. Remove racing, or constraints"],
    ),
    "racing by a metric that is no mean": (
        {
            **change(("tasks",), [{"perplexity": "tasks/echo.jsonl"}]),
            "items": {"search": 1, "held_out": 0},
            "racing": {},
        },
        [r"racing: .* is no mean over items, of which some would tell\. Remove racing, or use another metric"],
    ),
    "racing with costs": (
        {**GOOD, "racing": {}, "cost": {"answer_tokens": {"weight": 0.1}}},
        [r"wrong\.yml:\d+: racing: costs are measured on all of a candidate's answers\. Remove racing, or cost"],
    ),
    "a misspelt cost": (
        change(("cost",), {"answer_token": {"weight": 0.1}}),
        [r"wrong\.yml:\d+: cost\.answer_token: unknown key\. Did you mean answer_tokens"],
    ),
    "a cost that is to be high": (
        change(("cost",), {"layers": {"weight": -0.1}}),
        [r"wrong\.yml:\d+: cost\.layers\.weight: must be at least 0, got -0\.1"],
    ),
    "a cost without its key": (
        change(("cost",), {"layers": 0.1}),
        [r"wrong\.yml:\d+: cost\.layers: expected a mapping, got 0\.1"],
    ),
    "no cost at all": (
        change(("cost",), {}),
        [r"wrong\.yml:\d+: cost: names none; there are answer_tokens, parameters, layers"],
    ),
    "a cost that counts nowhere": (
        change(("cost",), {"answer_tokens": {}}),
        [r"wrong\.yml:\d+: cost\.answer_tokens: counts nowhere; give it a weight, .* or name it in objectives"],
    ),
    "a cost among the objectives that is not measured": (
        {**change(("objectives",), [["echo"], ["answer_tokens"]]), "optimizer": {"name": "nsga2"}},
        [r"objectives: no task is called answer_tokens; there are echo\. .* add cost: \{answer_tokens: \{\}\}"],
    ),
    "a cost mixed with a task": (
        {**change(("objectives",), [["echo"], ["echo", "layers"]]), "cost": {"layers": {}}, "optimizer": "nsga2"},
        [r"wrong\.yml:\d+: objectives: layers is a cost, and an objective of its own: \[\.\.\., \[layers\]\]"],
    ),
    "a task with the name of a cost": (
        {**change(("tasks",), [{"name": "echo", "alias": "layers"}]), "cost": {"layers": {"weight": 1}}},
        [r"wrong\.yml:\d+: tasks\[0\]: layers is a cost of this search; give the task another alias"],
    ),
    "the length of answers where none are written": (
        {
            **change(("tasks",), [{"perplexity": "tasks/echo.jsonl"}]),
            "items": {"search": 1, "held_out": 0},
            "cost": {"answer_tokens": {"weight": 0.1}},
        },
        [r"wrong\.yml:\d+: cost\.answer_tokens: the model writes no answer in .*Add a task that generates, or remove"],
    ),
    "several at once": (
        {**change(("recipe", "models", 0, "model"), "maths"), "budget": {"minutes": -1}, "tasks": ["ecko"], "sed": 1},
        [r"budget\.minutes: must be above 0", r"sed: unknown key\. Did you mean seed", r"\"maths\"", r"'ecko'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_prints_every_mistake_and_exits_2(name, directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    written, expected = WRONG[name]
    (directory / "wrong.yml").write_text(yaml.safe_dump(written, sort_keys=False))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "wrong.yml"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in said
    assert all(line.startswith("error: ") for line in said.splitlines())
    assert len(said.splitlines()) == len(expected)
    for pattern in expected:
        assert any(re.search(pattern, line) for line in said.splitlines()), said


def test_the_file_that_the_others_are_changed_from_is_sound(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    (directory / "good.yml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "good.yml"])
    assert stopped.value.code == 0
    assert "2, searched by gp (auto: 2 numbers, 4 candidates)" in capsys.readouterr().out


def test_a_sweep_that_is_run_as_a_search_is_told_its_command(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    sweep = {
        **change(("recipe", "models"), [{"model": "math", "parameters": {"weight": 1}}]),
        "sweep": {"vary": {"recipe.models.0.parameters.weight": [0, 1]}},
    }
    (directory / "sweep.yml").write_text(yaml.safe_dump(sweep))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "sweep.yml"])
    assert stopped.value.code == 2
    assert "holds no gene, so there is nothing to search. To run its sweep: evolve sweep sweep.yml" in (
        capsys.readouterr().err
    )


def test_a_directory_that_is_run_and_holds_no_run_is_told_so(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "math"])  # a model
    assert stopped.value.code == 2
    assert "math: holds no run, and no bundle of one. Give SEARCH.YML" in capsys.readouterr().err


def test_a_bundle_or_a_run_is_checked_by_its_search(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    (directory / "search.yml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "."])
    assert stopped.value.code == 0
    assert "search.yml" in capsys.readouterr().out
    (directory / "search.yml").unlink()


def test_mistakes_carry_the_line_they_stand_in(directory):
    (directory / "lines.yml").write_text("seed: 1\nbudget:\n  evaluations: 5\n  minuts: 3\n")
    file = read_search(directory / "lines.yml")
    lines = [str(file.document.located(problem)) for problem in file.problems]
    assert any(line.startswith("lines.yml:4: budget.minuts: unknown key") for line in lines)


@pytest.mark.parametrize("text", ["recipe: {models: [a, b\n", "", "- a\n- b\n", "just words", "seed: !!int x"])
def test_what_is_no_mapping_or_no_yaml_is_one_line(tmp_path, text):
    (tmp_path / "search.yml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_search(tmp_path / "search.yml")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("key", ["merge_method: linear\nmodels: [a, b]", "slices: []"])
def test_a_recipe_is_told_to_be_one(tmp_path, key):
    (tmp_path / "half.yml").write_text(key)
    with pytest.raises(ConfigError, match="is a merge recipe, not a search") as caught:
        read_search(tmp_path / "half.yml")
    assert len(caught.value.problems) == 1


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_search(tmp_path / "absent.yml")


def test_set_reaches_into_sections_and_lists(directory):
    (directory / "good.yml").write_text(yaml.safe_dump(GOOD))
    file = read_search(directory / "good.yml", {"budget.evaluations": 7, "tasks.0.weight": 2, "optimizer.name": "tpe"})
    assert file.config is not None
    assert (file.config.budget.evaluations, file.config.tasks[0].weight, file.config.optimizer.name) == (7, 2.0, "tpe")
    as_errors_write_it = read_search(directory / "good.yml", {"tasks[0].weight": 2})
    assert as_errors_write_it.config is not None
    assert as_errors_write_it.config.tasks[0].weight == 2.0
    with pytest.raises(ConfigError, match="places 0 to 0"):
        read_search(directory / "good.yml", {"tasks.3.weight": 2})


def test_a_mergekit_evolve_file_means_the_same(directory):
    written = {
        "genome": {"models": ["math", "code"], "merge_method": "linear", "layer_granularity": 1},
        "tasks": [{"name": "echo", "weight": 0.5, "metric": "exact_match,none"}],
        "limit": 6,
        "num_fewshot": 0,
        "apply_chat_template": False,
        "task_search_path": "tasks",
    }
    (directory / "genome.yml").write_text(yaml.safe_dump(written))
    prepared = prepare(read_search(directory / "genome.yml"))
    assert prepared.splits["echo"].search == (0, 1, 2, 3, 4, 5)  # the first `limit`, as there
    assert len(prepared.space.coordinates) == 4
    assert prepared.config.optimizer.sigma == pytest.approx(1 / 6)
    assert prepared.config.tasks[0].num_fewshot == 0
    written["shuffle"] = True
    (directory / "genome.yml").write_text(yaml.safe_dump(written))
    shuffled = prepare(read_search(directory / "genome.yml")).splits["echo"].search
    assert len(shuffled) == 6
    assert shuffled != (0, 1, 2, 3, 4, 5)


def test_what_mergekit_evolve_ignores_is_told_and_refused_when_strict(directory):
    """Keys of files that people have; the same task with two metrics is two tasks there."""
    written = {
        "model_name": "ours",
        "genome": {"models": ["math", "code"], "merge_method": "linear", "seed": 1},
        "tasks": [
            {"name": "echo", "wiehgt": 2.0, "metric": "exact_match,none"},
            {"name": "echo", "weight": 5.0, "metric": "exact_match,none"},
            {"name": "echo", "metric": "acc"},
        ],
    }
    (directory / "genome.yml").write_text(yaml.safe_dump(written, sort_keys=False))
    file = read_search(directory / "genome.yml")
    assert file.config is not None
    assert [task.label for task in file.config.tasks] == ["echo exact_match", "echo exact_match 2", "echo acc"]
    assert [task.weight for task in file.config.tasks] == [1.0, 5.0, 1.0]
    told = [str(file.document.located(found)) for found in file.ignored]
    assert [line.split(". ")[0] for line in told] == [
        "genome.yml:1: model_name: unknown key",
        "genome.yml:7: genome.seed: unknown key",
        "genome.yml:10: tasks[0].wiehgt: unknown key",
    ]
    assert told[2].endswith("Did you mean weight?")
    assert read_search(directory / "genome.yml", strict=True).problems == file.ignored


@pytest.mark.parametrize("name", [{"low": 0, "high": 1}, ["a", 1, None], None, "absent"])
def test_a_task_of_mergekit_evolve_without_a_proper_name_is_a_problem(directory, name):
    """Found by fuzzing: names were counted before they were checked."""
    task = {"metric": "acc"} if name == "absent" else {"name": name, "metric": "acc"}
    written = {"genome": {"models": ["math", "code"], "merge_method": "linear"}, "tasks": [task, task]}
    (directory / "genome.yml").write_text(yaml.safe_dump(written))
    problems = [str(problem) for problem in read_search(directory / "genome.yml").problems]
    assert any(problem.startswith("tasks[0]") for problem in problems), problems


@pytest.mark.parametrize("entry", [1, 0.5, ["code"], "code"])
def test_an_entry_of_the_models_that_is_none_is_a_problem(directory, entry):
    """Found by fuzzing: models were left out of the recipe before they were checked."""
    gene = {"model": "math", "parameters": {"weight": {"low": 0, "high": 1}}}
    written = {"recipe": {"merge_method": "linear", "models": [gene, entry]}, "tasks": ["echo"]}
    (directory / "entries.yml").write_text(yaml.safe_dump(written))
    assert read_search(directory / "entries.yml").problems


def test_a_default_of_mergekit_evolve_that_no_model_can_meet_is_told_once_with_its_place(directory):
    echo = {"name": "echo", "metric": "exact_match,none"}
    genome = {"models": ["math", "code"], "merge_method": "linear", "layer_granularity": 1}
    written = {"genome": genome, "tasks": [echo, echo], "limit": 6, "task_search_path": "tasks"}
    (directory / "genome.yml").write_text(yaml.safe_dump(written))
    with pytest.raises(ConfigError) as caught:
        prepare(read_search(directory / "genome.yml"))
    told = [problem for problem in caught.value.problems if "apply_chat_template" in str(problem)]
    assert len(told) == 1
    assert "Write apply_chat_template: false at the top level" in str(told[0])


def test_what_every_candidate_would_fail_at_is_said_before_anything_is_loaded(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    wrong = change(["tasks"], [{"name": "echo", "apply_chat_template": True}, {"needle": {"lengths": [99]}}])
    config = json.loads((directory / "base" / "config.json").read_text())
    (directory / "base" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    (directory / "misfit.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(SystemExit) as caught:
        cli.main(["check", "misfit.yml"])
    lines = capsys.readouterr().err
    assert caught.value.code == 2
    assert "tasks[0]: apply_chat_template is on, and base has no chat template" in lines
    assert "tasks[1].needle.lengths: 99 is longer than the context of base, 64 tokens" in lines
    # A template makes the first right.
    (directory / "base" / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(SystemExit):
        cli.main(["check", "misfit.yml"])
    assert "chat template" not in capsys.readouterr().err
    (directory / "base" / "chat_template.jinja").unlink()
    (directory / "base" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("high", "warned"), [(1.0, True), (0.8, False)])
def test_densities_at_which_della_fails_are_not_searched_and_it_is_told(high, warned, directory):
    wrong = change(["recipe", "merge_method"], "della")
    for entry in wrong["recipe"]["models"]:
        entry["parameters"]["density"] = {"low": 0.2, "high": high}
    (directory / "della.yml").write_text(yaml.safe_dump(wrong))
    warnings = prepare(read_search(directory / "della.yml")).warnings
    assert any("density and 1 more: searched from 0.2 to 0.85, where della" in line for line in warnings) == warned


LAYER_RANGE = [{"sources": [{"model": "math", "layer_range": [0, {"low": 1, "high": 2}]}]}]


def test_a_layer_range_that_reaches_beyond_its_model_is_refused(directory):
    beyond = [{"sources": [{"model": "math", "layer_range": [0, {"low": 1, "high": 9}]}]}]
    recipe = {"merge_method": "passthrough", "slices": beyond}
    (directory / "beyond.yml").write_text(yaml.safe_dump({**GOOD, "recipe": recipe}))
    with pytest.raises(ConfigError, match="layers of math are counted from 0 to 2, got low 1 and high 9"):
        prepare(read_search(directory / "beyond.yml"))


def test_a_choice_with_which_nothing_can_be_merged_is_warned_of(directory):
    wrong = change(["recipe", "dtype"], {"choices": ["float32", "bfloat16", "float99"]})
    (directory / "choice.yml").write_text(yaml.safe_dump(wrong))
    (line,) = [line for line in prepare(read_search(directory / "choice.yml")).warnings if " fails with " in line]
    assert line.startswith("dtype: float99 fails")


def test_models_whose_ids_stand_for_other_tokens_are_told_by_all_that_merge(directory, monkeypatch):
    monkeypatch.chdir(directory)
    for model, words in (("base", "abcd"), ("math", "abdc"), ("code", "abcd")):
        tokens = {word: index for index, word in enumerate(words)}
        content = {"model": {"type": "BPE", "vocab": tokens, "merges": []}}
        (directory / model / "tokenizer.json").write_text(json.dumps(content))
    told = "vocabularies differ from that of \"base\": \"math\" has another token at 2 ids (2: 'd' for 'c'). Rows are"
    variants = change(
        ("recipe", "models"), [{"model": model, "parameters": {"weight": 1}} for model in ("math", "code")]
    )
    files = {
        "search": GOOD,
        "sweep": {**variants, "sweep": {"vary": {"recipe.parameters.lambda": [0.5, 1.0]}}},
        "recipe": variants["recipe"],
    }
    for name, content in files.items():
        (directory / f"{name}.yml").write_text(yaml.safe_dump(content))
    (model,) = read_models(["recipe.yml"], 0)
    for warnings in (
        prepare(read_search(directory / "search.yml")).warnings,
        prepare_sweep(directory / "sweep.yml", {}).warnings,
        check_recipe(directory / "recipe.yml").text.replace("warning: ", "").splitlines(),
        model.warnings,
    ):
        assert sum(line.startswith(told) for line in warnings) == 1, warnings
    for model in ("base", "math", "code"):
        (directory / model / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("recipe", "warned"),
    [(GOOD["recipe"], True), ({"merge_method": "passthrough", "slices": LAYER_RANGE}, False)],
)
def test_a_cost_that_no_gene_changes_is_warned_of(recipe, warned, directory):
    costs = {"layers": {"weight": 1}, "parameters": {"weight": 1}, "answer_tokens": {"weight": 1}}
    (directory / "layers.yml").write_text(yaml.safe_dump({**GOOD, "recipe": recipe, "cost": costs}))
    warnings = prepare(read_search(directory / "layers.yml")).warnings
    for cost in ("layers", "parameters"):
        assert any(line.startswith(f"cost.{cost} decides nothing: it was ") for line in warnings) == warned


def test_check_says_what_a_search_takes_in_item_evaluations(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    (directory / "items.yml").write_text(yaml.safe_dump({**GOOD, "start": "references"}))
    (directory / "steps.yml").write_text(yaml.safe_dump({**GOOD, "start": {"method": "gradient", "steps": 10}}))
    with pytest.raises(SystemExit):
        cli.main(["check", "items.yml"])
    # 4 items for each of three parents, their average and 4 candidates; 4 held-out items for those and 5 finalists.
    assert (
        "items       4 a candidate; 16 for parents and uniform merge, at most 16 for candidates, 36 for held-out items"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit):
        cli.main(["check", "steps.yml", "--json"])
    facts = json.loads(capsys.readouterr().out)["item_evaluations_at_most"]
    # 2 items of each task in a step; two ways for 8 steps and one for 2; an item of a step counts as three.
    assert facts["steps of the gradient"] == 3 * 2 * (2 * 8 + 2)


def test_a_benchmarks_test_set_is_refused_unless_it_is_allowed(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    monkeypatch.setattr("evolve.preflight.compatibility.is_benchmark_test", lambda scorer: scorer.name == "echo")
    for settings, code, expected in (
        ([], 2, "public benchmark's test set, and what is tuned on it cannot"),
        (["--set", "allow_benchmark_test=true"], 0, "the card will say so"),
    ):
        (directory / "benchmark.yml").write_text(yaml.safe_dump(GOOD))
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", "benchmark.yml", *settings])
        printed = capsys.readouterr()
        assert stopped.value.code == code
        assert expected in printed.err + printed.out


def test_check_says_what_is_maximised(directory, capsys, monkeypatch):
    monkeypatch.chdir(directory)
    written = {**change(("tasks",), ["echo", {"name": "echo", "alias": "again"}]), "objectives": ["echo", ["again"]]}
    (directory / "pareto.yml").write_text(yaml.safe_dump({**written, "optimizer": {"name": "nsga2"}}))
    settings = ["--set", "objective=geometric_mean", "--set", "normalize=parents"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "pareto.yml", *settings])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "objective   geometric mean of tasks, 0 and 1 of each set by the base model and the best parent" in said
    assert "kept apart for a Pareto front: echo, again" in said


def test_a_backend_that_is_not_installed_is_found_out_before_anything_is_loaded(directory, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    path = directory / "absent.yml"
    path.write_text(yaml.safe_dump({**GOOD, "backend": {"name": "vllm"}}))
    with pytest.raises(ConfigError) as caught:
        prepare(read_search(path))
    assert re.fullmatch(
        r"absent\.yml:\d+: backend\.name: vllm is not installed in this environment\. .*pip install.*",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("number", "file", "said"),
    [
        (errno.ENOSPC, None, r"out: cannot be written: No space left on device\. What .* is kept; free some space"),
        (errno.ENOSPC, "/tmp/x", r"/tmp/x: cannot be written: No space left on device\."),
        (errno.EIO, None, r"out: cannot be written: Input/output error\. What .* is kept; fix that"),
    ],
)
def test_a_disk_that_fails_ends_a_run_with_one_line_and_lets_the_directory_go(number, file, said, tmp_path):
    directory = RunDirectory(tmp_path / "out")
    with pytest.raises(ConfigError, match=said), directory.locked():
        raise OSError(number, os.strerror(number), file)
    assert not directory.in_use()


def test_other_errors_inside_a_run_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(ConnectionResetError), RunDirectory(tmp_path / "out").locked():
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_directory_is_in_use_while_a_run_holds_it(tmp_path):
    directory = RunDirectory(tmp_path / "out")
    assert not directory.in_use()
    with directory.locked():
        assert RunDirectory(tmp_path / "out").in_use()
    assert not directory.in_use()
