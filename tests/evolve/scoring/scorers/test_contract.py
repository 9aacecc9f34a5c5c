"""One contract, every kind of scorer."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_stand_in import completion, serving

from evolve.scoring import (
    KINDS,
    KnownAnswers,
    ScoringError,
    TaskError,
    TellsRequests,
    ask_together,
    content_keys,
    load_scorers,
    parse_task,
)
from evolve.scoring.backends.hf import HFBackend

CASES: dict[str, dict[str, Any]] = {
    "name": {"name": "choose"},
    "python": {"python": "contract_functions:preference", "items": "questions.jsonl"},
    "judge": {
        "judge": {"base_url": "set by the fixture", "model": "wise"},
        "items": "questions.jsonl",
        "prompt": "{{ question }} {{ answer }}",
        "parse": {"regex": r"(\d+)"},
        "range": {"low": 0, "high": 100},
        "max_new_tokens": 6,
        "cache": "answers.sqlite",
    },
    "needle": {"needle": {"lengths": [300, 400], "depths": [0, 0.5, 1], "needles": 2}},
    "perplexity": {"perplexity": "texts/*.txt", "unit": "paragraph"},
    "reasoning_gym": {"reasoning_gym": "letter_counting", "config": {"max_words": 6}, "items": 6, "max_new_tokens": 4},
}
ABSENT = {"reasoning_gym"} if importlib.util.find_spec("reasoning_gym") is None else set[str]()
FUNCTIONS = '''
def preference(model, items):
    """How much likelier the answer is than another one."""
    right = model.loglikelihood([(item["question"], item["answer"]) for item in items])
    wrong = model.loglikelihood([(item["question"], "no idea") for item in items])
    return [{"score": a > b, "signal": 1 / (1 + 2.718 ** ((b - a) / 40))} for a, b in zip(right, wrong, strict=True)]
'''


@pytest.fixture(scope="module", autouse=True)
def judge() -> Iterator[None]:
    """Marks a prompt by its letters."""
    with serving() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setitem(CASES["judge"]["judge"], "base_url", endpoint.url)
        endpoint.answer = lambda body: completion(str(sum(map(ord, body["messages"][-1]["content"])) % 101))
        yield


@pytest.fixture(scope="module")
def directory(task_directory: Path) -> Path:
    """lm-eval's tasks, and beside them what the other kinds need."""
    (task_directory / "contract_functions.py").write_text(FUNCTIONS)
    questions = [{"question": f"{a} and {b}? ", "answer": str(a + b)} for a in range(4) for b in range(3)]
    (task_directory / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in questions))
    (task_directory / "texts").mkdir(exist_ok=True)
    for name, count in (("one", 3), ("two", 5)):
        paragraphs = [f"{name} number {n}: " + "so it went on. " * (n * 3 + 1) for n in range(count)]
        (task_directory / "texts" / f"{name}.txt").write_text("\n\n".join(paragraphs))
    return task_directory


class Silent:
    """A model that prepares requests and answers none."""

    def __init__(self, backend: HFBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def generate_tokens(self, requests: Any) -> Any:
        raise AssertionError("asked")

    loglikelihood = loglikelihood_rolling = generate_tokens


def load(directory: Path, settings: dict[str, Any]) -> Any:
    (scorer,) = load_scorers([parse_task(settings)], [directory], 7, directory)
    return scorer


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.skipif(kind in ABSENT, reason="not installed")) for kind in CASES]
)
class TestContract:
    @pytest.fixture
    def scorer(self, kind: str, directory: Path) -> Any:
        return load(directory, CASES[kind])

    def test_items_are_numbered_the_same_every_time(self, kind: str, directory: Path, scorer: Any) -> None:
        ids = scorer.item_ids()
        assert len(ids) > 3
        assert ids == load(directory, CASES[kind]).item_ids() == tuple(sorted(set(ids)))

    def test_some_items_score_what_they_score_among_all(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        whole = scorer.score(backend, scorer.item_ids())
        some = list(scorer.item_ids())[::-2]
        part = scorer.score(backend, some)
        assert part.values == {item: pytest.approx(whole.values[item]) for item in sorted(some)}
        assert part.signals == {item: pytest.approx(whole.signals[item]) for item in sorted(some) if whole.signals}

    def test_what_it_tells_beforehand_is_all_that_it_asks(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        if not isinstance(scorer, TellsRequests):
            assert kind in ("python", "judge")
            return
        known = ask_together(backend, scorer.prepared_requests(backend, scorer.item_ids()))
        assert scorer.score(KnownAnswers(Silent(backend), known), scorer.item_ids()) == scorer.score(
            backend, scorer.item_ids()
        )

    def test_another_scorer_of_the_same_configuration_scores_the_same(
        self, kind: str, directory: Path, backend: HFBackend, scorer: Any
    ) -> None:
        again = load(directory, CASES[kind])
        assert again.score(backend, again.item_ids()) == scorer.score(backend, scorer.item_ids())

    def test_the_mean_of_the_contributions_is_the_score(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        values = scorer.score(backend, scorer.item_ids()).values
        for items in (scorer.item_ids(), scorer.item_ids()[1::2]):
            part = {item: values[item] for item in items}
            contributions = scorer.contributions(part)
            assert contributions.keys() == part.keys()
            assert math.fsum(contributions.values()) / len(part) == pytest.approx(scorer.aggregate(part).value)
            assert scorer.aggregate(part).items == len(part)

    def test_values_and_signals_survive_json(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        scored = scorer.score(backend, scorer.item_ids())
        assert json.loads(json.dumps(list(scored.values.values()))) == list(scored.values.values())
        assert all(0 < signal < 1 for signal in scored.signals.values())

    def test_all_items_have_a_signal_or_none_has(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        scored = scorer.score(backend, scorer.item_ids())
        assert scored.signals.keys() in (scored.values.keys(), set())

    def test_an_item_that_does_not_exist_is_refused(self, kind: str, backend: HFBackend, scorer: Any) -> None:
        with pytest.raises(TaskError, match="there is no item 1000"):
            scorer.score(backend, [1000])

    def test_no_values_make_no_score(self, kind: str, scorer: Any) -> None:
        with pytest.raises(ScoringError, match="no item"):
            scorer.aggregate({})

    def test_a_broken_model_fails_and_scores_nothing(
        self, kind: str, make_model: Any, tokenizer: Any, scorer: Any
    ) -> None:
        import torch

        model = make_model(seed=3)
        with torch.no_grad():
            model.lm_head.weight.fill_(math.nan)
        with pytest.raises(ScoringError):
            scorer.score(HFBackend(model, tokenizer, "cpu"), scorer.item_ids())

    def test_its_content_has_the_same_keys_wherever_it_is_loaded(self, kind: str, directory: Path, scorer: Any) -> None:
        keys = content_keys([scorer], {scorer.name: scorer.item_ids()})
        again = load(directory, CASES[kind])
        assert f"task {scorer.name!r}: items" in keys
        assert content_keys([again], {again.name: again.item_ids()}) == keys

    def test_the_configuration_travels_between_processes(self, kind: str) -> None:
        config = parse_task(CASES[kind])
        assert pickle.loads(pickle.dumps(config)) == config
        assert parse_task(config.model_dump(mode="json", exclude_none=True)) == config

    def test_it_says_what_it_measures_and_in_which_direction(self, kind: str, scorer: Any) -> None:
        assert scorer.name
        assert scorer.metric
        assert scorer.direction in ("maximize", "minimize")

    def test_the_user_may_turn_the_direction(self, kind: str, directory: Path, scorer: Any) -> None:
        other = "minimize" if scorer.direction == "maximize" else "maximize"
        assert load(directory, {**CASES[kind], "direction": other}).direction == other
