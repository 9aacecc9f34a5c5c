"""The requests of several tasks in the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolve.scoring import KnownAnswers, ask_together, load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.language_model import GenerationSettings, PreparedGeneration

ITEMS = range(6)


class Calls:
    """A model that counts what it is asked, by kind."""

    def __init__(self, backend: HFBackend) -> None:
        self._backend = backend
        self.sizes: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name not in ("generate_tokens", "loglikelihood", "loglikelihood_rolling"):
            return found

        def call(requests: Any) -> Any:
            self.sizes.setdefault(name, []).append(len(requests))
            return found(requests)

        return call


def test_tasks_are_asked_in_one_call_a_kind_and_score_the_same(backend: HFBackend, task_directory: Path) -> None:
    tasks = [parse_task(name) for name in ("generate", "choose", "complete", "read")]
    scorers = load_scorers(tasks, [task_directory], seed=7)
    model = Calls(backend)
    known = ask_together(model, [request for scorer in scorers for request in scorer.prepared_requests(model, ITEMS)])  # type: ignore[attr-defined,arg-type]
    assert {name: len(sizes) for name, sizes in model.sizes.items()} == {
        "generate_tokens": 1,
        "loglikelihood": 1,
        "loglikelihood_rolling": 1,
    }
    asked = {name: list(sizes) for name, sizes in model.sizes.items()}
    for scorer in scorers:
        found, alone = scorer.score(KnownAnswers(model, known), ITEMS), scorer.score(backend, ITEMS)  # type: ignore[arg-type]
        assert found.values.keys() == alone.values.keys() == set(ITEMS)
        for item in ITEMS:
            assert found.values[item] == pytest.approx(alone.values[item], rel=1e-4)
    assert model.sizes == asked


def test_each_answer_of_a_batch_ends_at_its_own_stop(backend: HFBackend) -> None:
    prompts = ["one plus", "x", "seven and eight", "one plus"]
    stops = [(), ("a", "e"), ("Q", "i"), ("o",)]
    requests = [
        backend.prepare_generation(prompt, GenerationSettings(stop, max_new_tokens=24))
        for prompt, stop in zip(prompts, stops, strict=True)
    ]
    together = backend.generate(requests)
    assert together == [backend.generate([request])[0] for request in requests]
    assert not any(end in answer for answer, stop in zip(together, stops, strict=True) for end in stop)


def test_answers_that_are_drawn_are_left_to_their_task(backend: HFBackend) -> None:
    greedy = backend.prepare_generation("one plus", GenerationSettings(max_new_tokens=4))
    drawn = PreparedGeneration(greedy.tokens, replace(greedy.settings, options=(("do_sample", True),)))
    model = Calls(backend)
    known = KnownAnswers(model, ask_together(model, [greedy, drawn]))  # type: ignore[arg-type]
    assert model.sizes == {"generate_tokens": [1]}
    assert known.generate([greedy]) == backend.generate([greedy])
    assert model.sizes == {"generate_tokens": [1]}
    known.generate([drawn, drawn])
    assert model.sizes == {"generate_tokens": [1, 2]}
