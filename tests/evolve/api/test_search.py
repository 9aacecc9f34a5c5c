"""`evolve.search` and what stands beside it, on the demo zoo's real models."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy
import pytest
import yaml

import evolve
from evolve.actions.push import push_model
from evolve.actions.simplify import run_simplify
from evolve.actions.status import read_run
from evolve.problems import ConfigError
from evolve.scoring import TaskError
from evolve.trials.events import RunFinished, TrialFinished
from evolve.trials.trial import Kind, best_of
from merge_core import MergeError

ROOT = Path(__file__).resolve().parents[3]
ZOO = "configs/demo_zoo"
QUICK = {
    "items": {"search": 6, "held_out": 6},
    "start": "references",
    "optimizer": "random",
    "progress": "none",
    "validation": {"finalists": 1},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries under a search
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def recipe():
    return {
        "merge_method": "task_arithmetic",
        "base_model": Path(ZOO) / "base",
        "models": [
            {"model": f"{ZOO}/{name}", "parameters": {"weight": evolve.gene(0, 1.2, layers={"blocks": 2})}}
            for name in ("sorting", "shift")
        ],
        "dtype": "bfloat16",
    }


WORDS = [f"{letter}{letter}" for letter in "abcdefghijklmnop"]


def likes_repeats(model, items=WORDS):
    return model.loglikelihood([(item, item[0]) for item in items])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search by a built-in task and a function, with what it told."""
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("HF_HUB_OFFLINE", "1")
        directory = tmp_path_factory.mktemp("python") / "run"
        search = evolve.search(
            recipe(), tasks=["demo_sorting", likes_repeats], budget=3, directory=directory, watch=told.append, **QUICK
        )
    return search, told


def test_the_best_is_a_standard_recipe_with_its_scores(found):
    search, _ = found
    assert search.best.scores.keys() == {"demo_sorting", "likes_repeats"}
    assert search.best.recipe == yaml.safe_load((search.directory / "best_recipe.yml").read_text())
    assert search.best.model == search.directory / "model"
    assert search.best.held_out == pytest.approx(sum(search.best.held_out_scores.values()) / 2)
    assert not search.interrupted


def test_the_table_has_a_row_for_every_trial(found):
    search, told = found
    table = search.table()
    assert list(table["kind"]) == ["parent"] * 3 + ["uniform"] + ["candidate"] * 3
    events = {event.trial.number: event.trial.objective for event in told if isinstance(event, TrialFinished)}
    assert dict(table["objective"]) == pytest.approx(events)
    assert isinstance(told[-1], RunFinished)


def test_a_search_that_is_loaded_again_is_the_same(found):
    search, _ = found
    again = evolve.load(search.directory)
    assert again.best == search.best
    assert str(again) == str(search)
    with pytest.raises(ConfigError, match="holds no run"):
        evolve.load(search.directory / "model")


def test_a_search_in_a_directory_goes_on_there_with_a_raised_budget(found):
    search, _ = found
    before = search.trials
    more = evolve.search(recipe(), tasks=["demo_sorting", likes_repeats], budget=4, directory=search.directory, **QUICK)
    assert more.trials[: len(before)] == before
    assert len(more.trials) == len(before) + 1


def test_a_finished_search_that_goes_on_is_not_finished_until_it_ends_again(found):
    search, _ = found
    settings = {"tasks": ["demo_sorting", likes_repeats], "directory": search.directory, **QUICK}

    def stop_after(count):
        def stop(event):
            if isinstance(event, TrialFinished) and event.candidates_done >= count:
                os.kill(os.getpid(), signal.SIGINT)

        return stop

    done = sum(trial.kind is Kind.CANDIDATE for trial in search.trials)
    before = (search.directory / "run.json").read_bytes()
    idle = evolve.search(recipe(), budget=done, **settings)
    assert json.loads((search.directory / "run.json").read_bytes())["best"] == json.loads(before)["best"]
    assert not idle.interrupted

    more = evolve.search(recipe(), budget=50, watch=stop_after(done + 1), **settings)
    assert more.interrupted
    assert evolve.load(search.directory).interrupted
    assert more.best.model is None  # the one that is there is of the earlier end, and the recipe is not
    assert "not finished" in str(more)
    for command in (
        lambda: push_model(search.directory, "me/merged"),
        lambda: run_simplify(search.directory, 0, 1, print),
    ):
        with pytest.raises(ConfigError, match="no finished run"):
            command()
    record = read_run(search.directory)
    assert not record.finished
    assert record.best == best_of(record.candidates)
    assert "verdict" not in record.summary


def test_a_changed_function_is_another_search(found):
    search, _ = found

    def likes_repeats(model, items=WORDS):
        return [0.0 for _ in items]

    with pytest.raises(ConfigError, match="task 'likes_repeats': code has changed"):
        evolve.search(recipe(), tasks=["demo_sorting", likes_repeats], budget=50, directory=search.directory, **QUICK)


def test_a_function_of_the_scores_is_maximised_and_another_one_is_another_search(tmp_path):
    def least(scores):
        return min(scores.values())

    def most(scores):
        return max(scores.values())

    settings = {"tasks": ["demo_sorting", "demo_shift"], "budget": 2, "directory": tmp_path / "run", **QUICK}
    search = evolve.search(recipe(), objective=least, **settings)
    for trial in search.trials:
        assert trial.objective == min(trial.task_scores.values())
    assert search.best.objective == max(trial.objective for trial in search.trials if trial.kind is Kind.CANDIDATE)
    with pytest.raises(ConfigError, match=r"objective: this run was begun with .*objective_least.*objective_most"):
        evolve.search(recipe(), objective=most, **settings)

    def least(scores):
        return min(scores.values()) / 2

    with pytest.raises(ConfigError, match="objective given:objective_least: code has changed"):
        evolve.search(recipe(), objective=least, **settings)


def test_ray_workers_score_with_functions_that_are_in_no_file():
    calls = {"factor": 1.0}  # a closure, which travels by value
    search = evolve.search(
        recipe(),
        tasks=[{"python": lambda model, items: [calls["factor"] * item for item in items], "items": 12}],
        constraints=[{"python": lambda model, items: [1.0 for _ in items], "items": 1, "at_most": 2, "alias": "ok"}],
        budget=2,
        workers={"count": 2, "cpus": 1},
        **QUICK,
    )
    assert {trial.state.value for trial in search.trials} == {"complete"}
    assert search.directory.is_dir()


def test_a_function_that_cannot_travel_is_told_in_a_word():
    lock = threading.Lock()

    def locked(model, items=WORDS):
        return [float(lock.locked()) for _ in items]

    with pytest.raises(TaskError, match="locked cannot be sent to workers"):
        evolve.search(recipe(), tasks=locked, budget=2, workers={"count": 2, "cpus": 1}, **QUICK)


def test_a_soft_stop_returns_what_there_is(tmp_path):
    def stop(event):
        if isinstance(event, TrialFinished) and event.candidates_done == 2:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C, or a notebook's stop button

    search = evolve.search(recipe(), tasks="demo_sorting", budget=50, directory=tmp_path / "run", watch=stop, **QUICK)
    assert search.interrupted
    assert list(search.table()["state"]).count("complete") < 12
    assert search.best.objective is not None


def test_all_mistakes_are_told_at_once():
    broken = {**recipe(), "merge_method": "task_arithmetics"}
    with pytest.raises(ConfigError) as error:
        evolve.search(broken, tasks=["demo_sorting", {"python": likes_repeats, "wieght": 2}], bugdet=3)
    assert "merge_method" in str(error.value)
    assert "tasks[1].wieght" in str(error.value)
    assert "bugdet" in str(error.value)


ONE = {"merge_method": "linear", "models": [{"model": f"{ZOO}/base", "parameters": {"weight": 1}}]}


class Told(evolve.Callback):
    pass


def test_numbers_may_be_numpys_and_callbacks_a_generator(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "evolve.api.search.run", lambda prepared, *_, **more: seen.append((prepared.config, more)) or pytest.skip()
    )
    with pytest.raises(pytest.skip.Exception):
        evolve.search(
            "configs/demo.yml",
            budget=numpy.int64(5),
            workers=numpy.int64(1),
            callbacks=(one for one in (Told(), "tensorboard")),
            progress="none",
        )
    ((config, more),) = seen
    assert (config.budget.evaluations, config.workers.count) == (5, 1)
    assert [type(one) for one in more["callbacks"]] + [one.name for one in config.callbacks] == [Told, "tensorboard"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tasks": 5}, r"tasks\[0\]: .*got 5"),
        ({"tasks": [None]}, r"tasks\[0\]"),
        ({"objective": 5}, "objective: .*got 5"),
        ({"callbacks": Told}, r"callbacks: Told is a class. Give Told\(\)"),
        ({"recipe": None}, "recipe: expected a mapping or a file, got NoneType"),
    ],
)
def test_what_is_of_another_type_than_it_must_be_is_told(given, told):
    with pytest.raises(ConfigError, match=told):
        evolve.search(**{"recipe": "configs/demo.yml", "progress": "none", **given})


@pytest.mark.parametrize("callbacks", [Told(), "tensorboard", {"name": "tensorboard"}])
def test_a_single_callback_needs_no_list(monkeypatch, callbacks):
    seen = []
    monkeypatch.setattr(
        "evolve.api.search.run", lambda prepared, *_, **more: seen.append((prepared, more)) or pytest.skip()
    )
    with pytest.raises(pytest.skip.Exception):
        evolve.search("configs/demo.yml", callbacks=callbacks, progress="none")
    ((prepared, more),) = seen
    assert [type(one) for one in more["callbacks"]] + [one.name for one in prepared.config.callbacks] in (
        [Told],
        ["tensorboard"],
    )


def test_a_file_of_a_search_is_taken_with_what_is_given_beside_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("evolve.api.search.run", lambda prepared, *_, **__: seen.append(prepared) or pytest.skip())
    with pytest.raises(pytest.skip.Exception):
        evolve.search("configs/demo.yml", budget={"minutes": 1}, seed=3)
    config = seen[0].config
    assert (config.budget.minutes, config.budget.evaluations, config.seed) == (1, None, 3)
    assert [task.label for task in config.tasks][:1] == ["demo_sorting"]


def test_models_and_recipes_are_scored_on_the_same_items():
    half = {"merge_method": "linear", "name": "half", "models": [{"model": f"{ZOO}/base", "parameters": {"weight": 1}}]}
    scores = evolve.score([f"{ZOO}/base", half], likes_repeats, limit=5, progress=lambda _: None)
    assert scores.scores["half"]["likes_repeats"] == scores.scores[f"{ZOO}/base"]["likes_repeats"]
    assert "half" in str(scores)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: evolve.score([], likes_repeats), "models: none is given"),
        (lambda: evolve.score([None], likes_repeats), r"models\[0\]: expected a path or a name, got NoneType"),
        (lambda: evolve.score(f"{ZOO}/base", likes_repeats, limit=float("nan")), "limit: .*at least 1, got nan"),
        (lambda: evolve.score(f"{ZOO}/base", likes_repeats, limit=0), "limit: expected a whole number, at least 1"),
        (lambda: evolve.inspect(f"{ZOO}/base"), r"one model alone .*got configs/demo_zoo/base\."),
        (lambda: evolve.inspect([]), "one model alone .*got none"),
        (lambda: evolve.inspect([f"{ZOO}/base", f"{ZOO}/shift"], likes_repeats), r"tasks\[0\]: .*got function"),
        (lambda: evolve.merge(ONE, "out", threads=0), "threads: .*at least 1, got 0"),
        (lambda: evolve.merge(ONE, "out", shard_bytes="5GB"), "shard_bytes: .*got '5GB'"),
    ],
)
def test_what_models_are_asked_with_is_checked(call, told):
    with pytest.raises((ConfigError, MergeError), match=told):
        call()


def test_a_recipe_is_merged_and_one_with_genes_is_refused(tmp_path):
    result = evolve.merge({"merge_method": "passthrough", "models": [{"model": f"{ZOO}/base"}]}, tmp_path / "merged")
    assert (result.path / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match="is a range to search and not a value"):
        evolve.merge(recipe(), tmp_path / "other")


def test_models_are_inspected():
    found = evolve.inspect([f"{ZOO}/sorting", f"{ZOO}/shift"], base=f"{ZOO}/base", progress=lambda _: None)
    assert found.facts["base"] == f"{ZOO}/base"
    assert "How far from the base" in str(found)
