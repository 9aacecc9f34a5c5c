"""What the evaluator in this process does, on the demo zoo's models; Ray's is held to it in test_ray_crew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from zoo_requests import ITEMS, REQUESTS, SHALLOW, ZOO, recipe, settings

from evolve.config.machines import BackendConfig
from evolve.evaluation import live_model
from evolve.evaluation.evaluator import InProcessEvaluator
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def in_process():
    return {result.number: result for result in InProcessEvaluator(settings()).evaluate(REQUESTS)}


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


def test_models_of_any_depth_share_one_engine_and_failures_do_not_end_it(monkeypatch):
    opened = []
    open_backend = live_model.open_backend
    monkeypatch.setattr(
        live_model, "open_backend", lambda *arguments: opened.append(arguments) or open_backend(*arguments)
    )
    worker = Worker(settings())
    for name in ("base", "sorting"):
        parent = {"merge_method": "passthrough", "models": [{"model": f"{ZOO}/{name}"}], "dtype": "bfloat16"}
        assert worker.evaluate(Request(0, parent, ITEMS)).failure is None
    for number, request in enumerate(REQUESTS[0:2] + REQUESTS[3:]):
        worker.evaluate(replace(request, number=number))
    assert len(opened) == 1
    assert worker.evaluate(Request(9, SHALLOW, ITEMS)).failure is None
    assert len(opened) == 1
    worker.close()
    assert worker.evaluate(Request(10, recipe(0.3), ITEMS)).failure is None
    assert len(opened) == 2


def test_an_engine_that_does_not_start_ends_the_search_at_once():
    from evolve.scoring import TaskError

    refused = settings(backend=BackendConfig(model_args={"no_such_argument": 1}))
    with pytest.raises(TaskError, match="no_such_argument"):
        list(InProcessEvaluator(refused).evaluate(REQUESTS[:1]))
