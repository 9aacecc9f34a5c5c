"""What comes from outside: a plugin's registrations, and names of the form module:name; each used as a user would."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from finished_runs import trials
from warm_program import run_program

from evolve.actions.status import open_journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import Purpose
from evolve.trials.trial import Kind

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "configs" / "demo_zoo"

pytestmark = pytest.mark.slow

PLUGIN = '''
import random

from pydantic import Field

from evolve import commands, optimizers
from merge_core import Method, Parameter, SearchRange, methods
from evolve.scoring import TaskConfig, TaskKind, scorers
from evolve.scoring.scores.item_statistics import MeanOfItems
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.statistic_scorer import StatisticScorer

SHARE = Parameter("share", "number", "global", 0.5, SearchRange(0.0, 1.0), "of the way to the first other model")


def towards_first(inputs):
    return inputs.base_tensor.lerp(inputs.others[0], inputs.number("share"))


methods.register(Method("towards_first", "Towards the first", towards_first, (SHARE,), "required", "https://example.org"))


@optimizers.register
class Uniform(optimizers.Optimizer):
    name = "uniform"
    description = "Uniform in the unit cube"

    def __init__(self, problem):
        self._random, self._genes = random.Random(problem.seed), len(problem.start)

    def ask(self):
        return [tuple(self._random.random() for _ in range(self._genes)) for _ in range(2)]

    def tell(self, vectors, objectives):
        pass


class BrevityTask(TaskConfig):
    """How few tokens the model needs for a word."""

    brevity: tuple[str, ...] = Field(min_length=1, description="Words.")

    @property
    def default_label(self):
        return "brevity"


class BrevityScorer(StatisticScorer):
    def __init__(self, config):
        mean = MeanOfItems(lambda values: sum(values) / len(values))
        super().__init__(config.label, "tokens", "minimize", len(config.brevity), mean, list(config.brevity))
        self._words = config.brevity

    def score(self, model, item_ids):
        return ScoredItems({item: float(len(model.prepare_text(self._words[item]).tokens)) for item in item_ids})


load = scorers.one_by_one(lambda config, search_paths, seed: BrevityScorer(config))
scorers.register(TaskKind("brevity", BrevityTask, load))


@commands.register("hello")
def hello(name: str) -> None:
    """Say hello."""
    print(f"hello {name}")
'''
OWN = """
import random

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from evolve.optimizers import Optimizer


def towards(tensors: list[Tensor], base: Tensor, *, weight: list[float], strength: float = 1.0) -> Tensor:
    return base + strength * sum(share * (tensor - base) for tensor, share in zip(tensors, weight))


def words():
    return ["ab", "ba", "cc", "dd"]


def likes(model, items):
    return model.loglikelihood([(item, item[0]) for item in items])


def even(model, items):
    return [float(item % 2) for item in items]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: float = 1.0


class Narrow(Optimizer):
    options = Options

    def __init__(self, problem):
        self._random, self._genes = random.Random(problem.seed), len(problem.start)
        self._width = Options(**problem.options).width

    def ask(self):
        return [tuple(self._width * self._random.random() for _ in range(self._genes)) for _ in range(2)]

    def tell(self, vectors, objectives):
        pass
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A directory of installed packages with a plugin in it."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "plugged_in.py").write_text(PLUGIN)
    information = directory / "plugged_in-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[evolve.plugins]\nmine = plugged_in\n")
    return directory


def evolve(site, *arguments):
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    installed = f"import sys; sys.path.insert(1, {str(site)!r})"
    return run_program(*arguments, directory=site.parent, environment=environment, first=installed)


TASKS = [
    {"brevity": ["abc", "abcdef", "a", "ab"]},
    {"python": "own_parts:likes", "items": {"python": "own_parts:words"}, "weight": 0.1},
]


def search(directory, **changes):
    content = {
        "recipe": {
            "merge_method": {"choices": ["task_arithmetic", "towards_first", "own_parts:towards"]},
            "base_model": str(ZOO / "base"),
            "models": [{"model": str(ZOO / "sorting"), "parameters": {"weight": {"low": 0.0, "high": 1.0}}}],
            "parameters": {"share": {"low": 0.0, "high": 1.0}, "strength": 0.5},
            "dtype": "bfloat16",
        },
        "tasks": TASKS,
        "constraints": [{"python": "own_parts:even", "items": 2, "at_most": 0.5}],
        "items": {"search": 2, "held_out": 2},
        "budget": {"evaluations": 6},
        "optimizer": {"name": "own_parts:Narrow", "options": {"width": 0.9}},
        "workers": {"cpus": 1},
        **changes,
    }
    directory.mkdir(exist_ok=True)
    (directory / "own_parts.py").write_text(OWN)
    (directory / "search.yml").write_text(yaml.safe_dump(content))
    return directory / "search.yml"


@pytest.fixture(scope="module")
def finished(site):
    """A search that uses all of it and begins with a gradient, on two Ray workers; it tells its events as JSON."""
    file = search(site.parent / "own", tasks=[*TASKS, "demo_sorting"], start={"steps": 2})
    done = evolve(site, "run", file, "--output", site.parent / "run", "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    return site.parent / "run", done


def test_a_plugins_command_is_one_of_the_program(site):
    assert evolve(site, "hello", "you").stdout == "hello you\n"


def test_a_search_uses_a_plugins_method_and_task_and_the_users_own_method_optimizer_and_functions(finished):
    output, _ = finished
    recorded = open_journal(RunDirectory(output)).trials()
    methods = {trial.recipe["merge_method"] for trial in recorded if trial.kind is Kind.CANDIDATE}
    assert methods >= {"towards_first", "own_parts:towards"}
    rows = trials(output)
    assert all(row["state"] == "complete" and row["score.brevity"] and row["constraint.even"] == "0.5" for row in rows)
    assert len({row["score.likes"] for row in rows if row["kind"] == "candidate"}) > 1


def test_the_gradient_is_followed_on_workers(finished):
    assert open_journal(RunDirectory(finished[0])).spent[Purpose.STEPS]


def test_events_are_json_lines_and_nothing_else(finished):
    output, done = finished
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("preparing", "run_finished")
    assert "run_started" in names
    assert names.count("trial_finished") == len(trials(output))


def test_one_worker_makes_the_same_trials(site, finished):
    done = evolve(site, "run", site.parent / "own" / "search.yml", "--output", site.parent / "alone")
    assert done.returncode == 0, done.stderr
    assert trials(site.parent / "alone") == trials(finished[0])


def test_the_user_is_told_what_mergekit_does_not_know(finished):
    assert "own_parts:towards: mergekit does not know it" in finished[1].stderr


def test_the_runs_directory_has_the_module_and_its_search_and_recipe_work_there(site, finished):
    output, _ = finished
    assert (output / "own_parts.py").read_text() == OWN
    assert evolve(site, "check", output / "search.yml").returncode == 0
    assert evolve(site, "check", output / "best_recipe.yml").returncode == 0


def test_a_run_is_not_continued_with_another_text_of_the_users_method(site, finished):
    module = site.parent / "own" / "own_parts.py"
    module.write_text(OWN + "# changed\n")
    done = evolve(site, "run", site.parent / "own" / "search.yml", "--output", finished[0])
    module.write_text(OWN)
    assert done.returncode == 2
    assert "merge_method own_parts:towards: own_parts.py has changed" in done.stderr


def test_a_plugins_optimizer_is_found_by_its_name(site):
    file = search(site.parent / "own_too", optimizer={"name": "uniform"})
    done = evolve(site, "check", file, "--json")
    assert json.loads(done.stdout)["optimizer"] == "uniform"


WRONG = [
    ({"optimizer": {"name": "own_parts:Wide"}}, "optimizer.name: module 'own_parts' has no function 'Wide'"),
    ({"optimizer": {"name": "own_parts:towards"}}, "optimizer.name: own_parts:towards is no subclass of"),
    ({"optimizer": {"name": "unifrom"}}, "optimizer.name: no optimizer is called 'unifrom'. Did you mean 'uniform'?"),
    (
        {"optimizer": {"name": "own_parts:Narrow", "options": {"widht": 1}}},
        "optimizer.options: own_parts:Narrow has no option 'widht'. Did you mean 'width'?",
    ),
    ({"tasks": [{"brevitty": ["a"]}]}, "Did you mean 'brevity'?"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_wrong_names_are_one_line_with_the_fix(site, changes, expected):
    done = evolve(site, "check", search(site.parent / "wrong", **changes))
    assert done.returncode == 2
    assert expected in done.stderr.splitlines()[-1], done.stderr
