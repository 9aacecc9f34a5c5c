"""Decoding as on a card, on the CPU: a few tokens between looks, and steps that always use the same memory."""

from __future__ import annotations

import copy
import random
import string
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from evolve.scoring import ScoringError
from evolve.scoring.backends.greedy_decoding import Record, decode_greedily
from evolve.scoring.backends.kv_cache import CacheFactory
from evolve.scoring.backends.recorded_steps import RecordedSteps, Run
from evolve.scoring.backends.stop_strings import StopStrings

NEW = 40


class Tape:
    """A record that is no faster; what it is asked to do again must work on the memory that it had."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        self.recorded += 1

        def again() -> None:
            self.replayed += 1
            step()

        return again


def decode(model: Any, tokenizer: Any, prompts: list[str], stop: tuple[str, ...] = (), **options: Any) -> Any:
    tokens = [tuple(tokenizer.encode(prompt)) for prompt in prompts]
    cache = CacheFactory(model.config).make(max(map(len, tokens)) + NEW)
    matcher = StopStrings(tokenizer, stop, [tokenizer.eos_token_id])
    with torch.inference_mode():
        return decode_greedily(
            lambda **inputs: model(use_cache=True, **inputs).logits[:, -1],
            *(tokens, NEW, [matcher] * len(tokens), cache, torch.device("cpu")),
            **options,
        )


def prompts(count: int) -> list[str]:
    generator = random.Random(count)
    return ["".join(generator.choices(string.ascii_letters, k=generator.randint(1, 20))) for _ in range(count)]


@pytest.mark.parametrize("stop", [(), ("a", "e"), ("Q",)])
def test_looks_and_records_change_no_token(model: Any, tokenizer: Any, stop: tuple[str, ...]) -> None:
    asked = prompts(8)
    expected = decode(model, tokenizer, asked, stop)
    for every in (3, 8, 100):
        tape = Tape()
        assert decode(model, tokenizer, asked, stop, look_every=every) == expected
        assert decode(model, tokenizer, asked, stop, look_every=every, record=tape) == expected
        assert tape.recorded or every == 100 or stop == ("a", "e")
        tape = Tape()
        assert decode(model, tokenizer, asked, stop, look_every=every, look_first=1, record=tape) == expected
        assert tape.recorded
    equal = ["abc", "xyz"]  # no padding, hence no mask
    assert decode(model, tokenizer, equal, stop, look_every=8, record=Tape()) == decode(model, tokenizer, equal, stop)


def test_a_step_is_recorded_anew_where_most_rows_are_over(model: Any, tokenizer: Any) -> None:
    tape = Tape()
    lengths = [
        len(answer) for answer in decode(model, tokenizer, prompts(12), tuple(string.digits), look_every=2, record=tape)
    ]
    assert len(set(lengths)) > 3  # they end one after the other
    assert 2 <= tape.recorded < tape.replayed


def test_logits_that_are_not_finite_are_found_at_their_token_and_not_after_the_last_answer(
    model: Any, tokenizer: Any
) -> None:
    model, calls = copy.deepcopy(model), 0

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls >= 5:
            output.fill_(float("nan"))

    model.lm_head.register_forward_hook(spoil)
    with pytest.raises(ScoringError, match="at token 5 of"):
        decode(model, tokenizer, ["abc", "de"], look_every=8)
    calls = 0
    first = decode(model, tokenizer, ["abc"], tuple(string.printable), look_every=8)[0]
    assert (len(first), calls) == (1, 8)  # over before the logits are spoilt, which steps up to the look run into


def run_of(plain: list[list[int]], recorded: list[list[int]] | Exception) -> Run:
    def run(record: Record | None, at_once: bool) -> list[list[int]]:
        if record is None:
            return plain
        record(lambda: None)
        if isinstance(recorded, Exception):
            raise recorded
        return recorded

    return run


def test_recorded_steps_are_trusted_after_one_batch_that_is_the_same() -> None:
    steps = RecordedSteps(Tape())
    assert steps.decode(run_of([[1]], [[1]])) == [[1]]
    assert steps.decode(run_of([[1]], [[2]])) == [[2]]  # not decoded twice any more


@pytest.mark.parametrize("recorded", [[[2]], RuntimeError("operation not permitted when stream is capturing")])
def test_others_are_given_up_with_a_line(recorded: Any, caplog: pytest.LogCaptureFixture) -> None:
    tape = Tape()
    steps = RecordedSteps(tape)
    assert steps.decode(run_of([[1]], recorded)) == [[1]]
    assert steps.decode(run_of([[3]], [[4]])) == [[3]]
    assert tape.recorded == 1
    (line,) = caplog.messages
    assert "not by recorded steps" in line


def test_a_batch_without_a_recorded_step_compares_nothing_and_errors_of_a_model_are_its_own() -> None:
    steps = RecordedSteps(Tape())
    assert steps.decode(lambda record, at_once: [[5]]) == [[5]]
    assert steps.decode(run_of([[1]], [[2]])) == [[1]]
    with pytest.raises(ScoringError):
        RecordedSteps(Tape()).decode(run_of([[1]], ScoringError("not finite")))


def test_long_answers_of_a_kind_are_recorded_from_the_first_token_on_next_time() -> None:
    steps, asked = RecordedSteps(Tape()), []

    def run(length: int, record: Record | None, at_once: bool) -> list[list[int]]:
        asked.append(at_once)
        return [[0] * length] * 3

    for kind, length in (("proof", 90), ("proof", 3), ("word", 3), ("proof", 90), ("proof", 90)):
        steps.decode(partial(run, length), kind)
    assert asked == [False, True, False, False, True]
