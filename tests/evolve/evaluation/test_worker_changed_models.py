"""Whatever a user's function does to the live model, what is scored after it is what was merged."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from zoo_requests import ITEMS, recipe, settings

from evolve.config.machines import BackendConfig
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker
from evolve.report.changed_models import ChangedModels
from evolve.scoring import ConstraintConfig, LmEvalTask, ScoringError
from evolve.scoring.scorers.python import PythonTask
from evolve.trials.events import TrialFinished
from evolve.trials.trial import Evaluation, Kind, Trial

pytestmark = pytest.mark.slow

# Between two tasks of lm-eval's, so that the second meets what the function left.
TASKS = (
    LmEvalTask(name="demo_sorting", alias="before"),
    PythonTask(python="meddling:score", items=3),
    LmEvalTask(name="demo_sorting", alias="after"),
)
MEDDLING = """
import random
import torch

change = None

def live(model):
    return model._backend._model.model

def score(model, items):
    if change is not None:
        change(live(model))
    return [0.5 for item in items]

def tally(model, items):
    # Fails on its second item, after it has changed the model; scores tell of the weights.
    score = float(live(model).model.norm.weight.double().sum())
    if 1 in items:
        no_grad(live(model), 0)
        live(model).model.norm.weight.data.add_(1.0)
        raise ValueError("not this one")
    return [score for item in items]

def any_tensor(model, seed):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    named = [one for one in tensors if one[1].is_floating_point() and not one[1].is_meta]
    return random.Random(seed).choice(named)[1]

def no_grad(model, seed):
    with torch.no_grad():
        any_tensor(model, seed).add_(0.25)

def data(model, seed):
    any_tensor(model, seed).data.mul_(1.5)

def one_number(model, seed):
    any_tensor(model, seed).data.view(-1)[0] += 1

def moved(model, seed):
    tensor = any_tensor(model, seed)
    tensor.data = tensor.data.clone() * 2

def replaced(model, seed):
    model.model.norm.weight = torch.nn.Parameter(torch.zeros_like(model.model.norm.weight))

def resized(model, seed):
    model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + 16)

def half(model, seed):
    model.double()

def train(model, seed):
    model.train()

def hook(model, seed):
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: output * 0)

def forward(model, seed):
    model.model.layers[1].mlp.forward = lambda hidden: hidden * 0

def of_the_class(model, seed):
    type(model.model.norm).forward = lambda self, hidden: hidden

def fewer_layers(model, seed):
    model.model.layers = model.model.layers[:1]

def raising(model, seed):
    no_grad(model, seed)
    raise RuntimeError("and away")
"""
CHANGES = (
    *("no_grad", "data", "one_number", "moved", "replaced", "resized", "half", "train", "hook", "forward"),
    *("of_the_class", "fewer_layers"),
)


@pytest.fixture
def meddling(tmp_path, monkeypatch):
    """The module of the functions; what it changes is set from here."""
    import importlib
    import sys

    (tmp_path / "meddling.py").write_text(MEDDLING)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("meddling", None)
    return importlib.import_module("meddling")


def worker(directory: Path, **changes):
    return Worker(settings(tasks=TASKS, task_search_path=(str(directory),), **changes))


def request(number, weight):
    items = ITEMS["demo_sorting"]
    return Request(number, recipe(weight), {"before": items, "score": (0, 1, 2), "after": items})


@pytest.fixture(params=["none", "8bit"], ids=["plain", "quantized"])
def undisturbed_and_meddled(request, meddling, tmp_path):
    backend = BackendConfig(quantization=request.param)
    return worker(tmp_path, backend=backend), worker(tmp_path, backend=backend)


def test_no_change_of_a_model_reaches_what_is_scored_next(undisturbed_and_meddled, meddling):
    undisturbed, meddled = undisturbed_and_meddled
    expected = {weight: undisturbed.evaluate(request(0, weight)) for weight in (0.3, 0.1)}
    assert all(one.failure is None and one.restored == {} for one in expected.values())
    order = random.Random(7).sample([*CHANGES, None], len(CHANGES) + 1)
    for number, name in enumerate(order):
        weight = (0.3, 0.1, 0.3)[number % 3]
        change = name and getattr(meddling, name)
        meddling.change = change and (lambda model, change=change, seed=number: change(model, seed))
        found = meddled.evaluate(request(number, weight))
        assert found.failure is None, name
        assert found.scores == expected[weight].scores, name
        assert list(found.restored) == (["task 'score'"] if name else []), name
    meddling.change = None
    assert undisturbed.fingerprint(recipe(0.2)) == meddled.fingerprint(recipe(0.2))


def test_a_function_that_changes_the_model_and_fails_is_a_failure_and_the_next_is_scored_right(meddling, tmp_path):
    one = worker(tmp_path)
    expected = one.evaluate(request(0, 0.3))
    meddling.change = lambda model: meddling.raising(model, 3)
    failed = one.evaluate(request(1, 0.3))
    assert "and away" in failed.failure
    assert list(failed.restored) == ["task 'score'"]
    meddling.change = None
    assert one.evaluate(request(2, 0.3)).scores == expected.scores


def test_who_changed_the_model_is_told_though_it_cannot_be_built_again(meddling, tmp_path, monkeypatch):
    def restore():
        raise ScoringError("no room")

    one = worker(tmp_path)
    one.start()
    monkeypatch.setattr(one.live, "restore", restore)
    meddling.change = lambda model: getattr(meddling, CHANGES[0])(model, 1)
    failed = one.evaluate(request(0, 0.3))
    assert (failed.failure, list(failed.restored)) == ("no room", ["task 'score'"])


def test_items_are_asked_one_by_one_of_the_model_that_was_merged(meddling, tmp_path):
    task = PythonTask(python="meddling:tally", items=4, on_item_error="skip")
    one = Worker(settings(tasks=(task,), task_search_path=(str(tmp_path),)))
    found = one.evaluate(Request(0, recipe(0.3), {"tally": (0, 1, 2, 3)}))
    assert set(found.skipped["tally"]) == {1}
    assert len(set(found.scores["tally"].values())) == 1
    sound = one.evaluate(Request(1, recipe(0.3), {"tally": (0, 2, 3)}))
    assert found.scores == sound.scores


def test_tasks_that_give_the_model_to_no_code_of_the_users_are_not_compared(monkeypatch):
    from evolve.scoring.backends import model_state

    def refuse(*_):
        pytest.fail("compared")

    monkeypatch.setattr(model_state.ModelState, "__init__", refuse)
    constraint = ConstraintConfig(python="answer_length", answers_of="demo_sorting", at_most=1e9)
    one = Worker(settings(constraints=(constraint,)))
    assert one.evaluate(Request(0, recipe(0.3), ITEMS)).failure is None


def test_it_is_said_once_who_changed_what(capsys):
    trial = Trial(0, Kind.CANDIDATE, "candidate 1", 0, {}, evaluation=Evaluation(0, restored={"task 'a'": "tensors x"}))
    events = []
    watch = ChangedModels(events.append)
    for number in range(3):
        watch(TrialFinished(replace(trial, number=number), None, None, None, 1, None, 1.0, None))
    said = capsys.readouterr().err
    assert said.count("task 'a' changed the live model (tensors x)") == 1
    assert len(events) == 3
    restarted = replace(trial, evaluation=Evaluation(0, restart="answers otherwise. Its engine was started anew"))
    watch(TrialFinished(restarted, None, None, None, 1, None, 1.0, None))
    assert "warning: answers otherwise." in capsys.readouterr().err
