"""One contract, both evaluators, on the demo zoo's models; and what only Ray actors can suffer."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from evolve.config.machines import BackendConfig
from evolve.evaluation.evaluator import InProcessEvaluator
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.scoring import LmEvalTask

ROOT = Path(__file__).resolve().parents[3]
ZOO = "configs/demo_zoo"
ITEMS = {"demo_sorting": tuple(range(12))}

pytestmark = pytest.mark.slow


def settings(**changes):
    values = {
        "models": (f"{ZOO}/sorting", f"{ZOO}/reversal", f"{ZOO}/base"),
        "relative_to": str(ROOT),
        "tokenizer_model": f"{ZOO}/base",
        "tasks": (LmEvalTask(name="demo_sorting"),),
        "task_search_path": (),
        "seed": 0,
        "backend": BackendConfig(),
        "threads": 1,
    }
    return WorkerSettings(**{**values, **changes})


def recipe(weight=0.3, **extra):
    models = [{"model": f"{ZOO}/{name}", "parameters": {"weight": weight}} for name in ("sorting", "reversal")]
    return {
        "merge_method": "task_arithmetic",
        "base_model": f"{ZOO}/base",
        "models": models,
        "dtype": "bfloat16",
        **extra,
    }


SHALLOW = {
    "merge_method": "passthrough",
    "slices": [{"sources": [{"model": f"{ZOO}/base", "layer_range": [0, 4]}]}],
    "dtype": "bfloat16",
}
REQUESTS = [
    Request(0, recipe(0.3), ITEMS),
    Request(1, recipe(0.3, merge_method="no_such_method"), ITEMS),
    Request(2, SHALLOW, ITEMS),  # a live model of another depth
    Request(3, recipe(0.1), ITEMS),
    Request(4, recipe(float("nan")), ITEMS),
    Request(5, recipe(0.3), ITEMS),
]


@pytest.fixture(scope="module")
def in_process():
    return {result.number: result for result in InProcessEvaluator(settings()).evaluate(REQUESTS)}


@pytest.fixture(scope="module")
def pool():
    from evolve.evaluation.ray_pool import RayPool

    made = RayPool(settings(threads=2), count=2, cpus=2, gpus=0)
    yield made
    made.close()


def test_a_candidate_that_fails_is_a_result_and_the_next_is_scored(in_process):
    assert [in_process[number].failure is None for number in range(6)] == [True, False, True, True, False, True]
    assert "no_such_method" in in_process[1].failure
    assert in_process[1].scores == {}


def test_scores_depend_on_the_recipe_alone_not_on_what_was_scored_before(in_process):
    assert in_process[0].scores == in_process[5].scores
    assert set(in_process[0].scores["demo_sorting"]) == set(range(12))


def test_times_add_up(in_process):
    for number in (0, 2, 3, 5):
        result = in_process[number]
        assert 0 < result.merge_seconds + result.forward_seconds <= result.total_seconds


def test_ray_gives_what_one_process_gives(in_process, pool):
    results = {result.number: result for result in pool.evaluate(REQUESTS)}
    assert {number: result.scores for number, result in results.items()} == {
        number: result.scores for number, result in in_process.items()
    }
    assert {number: result.failure for number, result in results.items()} == {
        number: result.failure for number, result in in_process.items()
    }


def test_an_actor_uses_the_threads_it_was_given(pool):
    import ray

    assert ray.get([actor.threads.remote() for actor in pool._actors]) == [2, 2]


def test_a_killed_actor_is_replaced_and_its_candidate_tried_again(in_process, pool):
    import ray

    processes = ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in pool._actors])
    results = []
    for result in pool.evaluate(REQUESTS):
        if not results:
            os.kill(processes[0], signal.SIGKILL)
        results.append(result)
    assert {result.number: result.scores for result in results} == {
        number: result.scores for number, result in in_process.items()
    }


def test_the_fingerprint_is_that_of_the_merged_files(pool, tmp_path, monkeypatch):
    from merge_core import Recipe, merge

    monkeypatch.chdir(ROOT)
    saved = merge(Recipe.from_mapping(recipe(0.2)), tmp_path / "model", seed=0)
    assert pool.fingerprint(recipe(0.2)) == saved.fingerprint


def test_a_model_that_cannot_be_opened_is_the_users_error_also_through_ray(pool):

    import ray

    from merge_core import MergeError

    actor = ray.remote(Worker).options(num_cpus=0).remote(settings(models=(f"{ZOO}/absent",)))
    with pytest.raises(MergeError, match="absent"):
        pool._start([actor])


def test_models_of_one_shape_share_one_live_model_and_failures_do_not_end_it(monkeypatch):
    from evolve.scoring.backends import factory as backends

    opened = []
    open_backend = backends.open_backend
    monkeypatch.setattr(
        backends, "open_backend", lambda *arguments: opened.append(arguments) or open_backend(*arguments)
    )
    worker = Worker(settings())
    for name in ("base", "sorting"):
        parent = {"merge_method": "passthrough", "models": [{"model": f"{ZOO}/{name}"}], "dtype": "bfloat16"}
        assert worker.evaluate(Request(0, parent, ITEMS)).failure is None
    for number, request in enumerate(REQUESTS[0:2] + REQUESTS[3:]):
        worker.evaluate(replace(request, number=number))
    assert len(opened) == 1
    worker.evaluate(Request(9, SHALLOW, ITEMS))
    assert len(opened) == 2
    worker.close()
    assert worker.evaluate(Request(10, recipe(0.3), ITEMS)).failure is None
    assert len(opened) == 3


def test_an_engine_that_does_not_start_ends_the_search_at_once():
    from evolve.scoring import TaskError

    refused = settings(backend=BackendConfig(model_args={"no_such_argument": 1}))
    with pytest.raises(TaskError, match="no_such_argument"):
        list(InProcessEvaluator(refused).evaluate(REQUESTS[:1]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_gpus_that_the_machine_has_not_are_said_and_not_waited_for():
    from evolve.evaluation.ray_pool import RayPool, RayUnavailableError

    with pytest.raises(RayUnavailableError, match=r"2 with 999 GPUs each want 1998, and this machine has"):
        RayPool(settings(), count=2, cpus=1, gpus=999)
