"""What follows a thought is the answer, as lm-eval has it, and nothing in the thought ends it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lm_eval.models.utils import postprocess_generated_text
from pydantic import ValidationError

from evolve.scoring import LmEvalTask
from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.language_model import GenerationSettings
from evolve.scoring.thinking import Thinking

STOPS = ("\n\n", "Q:")
TEXTS = ("a", "\n", "Q", ":", "</t>", " ", "b", "\n")
TOKENS = 12


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return found


@pytest.fixture
def texts() -> list[str]:
    generator = random.Random(0)
    return ["".join(generator.choices(TEXTS, k=TOKENS)) for _ in range(200)]


def test_an_answer_is_what_lm_eval_makes_of_the_same_text(texts: list[str], tokenizer: Any) -> None:
    matcher = StopStrings(tokenizer, STOPS, [tokenizer.eos_token_id], Thinking(end="</t>"))
    answers = [matcher.answer(ids(tokenizer, text)) for text in texts]
    assert answers == [postprocess_generated_text(text, list(STOPS), "</t>") for text in texts]
    assert len(set(answers)) > 50


def test_the_id_of_a_token_ends_a_thought_too(texts: list[str], tokenizer: Any) -> None:
    """As lm-eval's HFLM does it: what follows the last such token, without leading space, up to a stop string."""
    end = ids(tokenizer, "b")[0]
    matcher = StopStrings(tokenizer, STOPS, [tokenizer.eos_token_id], Thinking(end=end))
    for text in texts:
        expected = text.split("b")[-1].lstrip()
        assert matcher.answer(ids(tokenizer, text)) == postprocess_generated_text(expected, list(STOPS), None)


def test_a_special_token_ends_a_thought_by_its_text(tokenizer: Any) -> None:
    matcher = StopStrings(tokenizer, (), [tokenizer.eos_token_id], Thinking(end="<unk>"))
    tokens = [*ids(tokenizer, "thought"), tokenizer.unk_token_id, *ids(tokenizer, " 42")]
    assert matcher.answer(tokens) == "42"


def test_an_answer_ends_at_the_first_stop_string_after_the_thought(texts: list[str], tokenizer: Any) -> None:
    matcher = StopStrings(tokenizer, STOPS, [tokenizer.eos_token_id], Thinking(end="</t>"))
    ended = 0
    for text in texts:
        tokens = ids(tokenizer, text)
        found = next((n for n in range(1, len(tokens) + 1) if matcher.ends(tokens[:n])), None)

        def is_over(n: int, text: str = text) -> bool:
            _, thought, answer = text[:n].rpartition("</t>")
            return bool(thought) and any(stop in answer.lstrip() for stop in STOPS)

        assert found == next((n for n in range(1, len(text) + 1) if is_over(n)), None)
        ended += found is not None
    assert 20 < ended < 180
    assert matcher.ends([*ids(tokenizer, "ab"), tokenizer.eos_token_id])


def test_a_thought_can_be_kept(tokenizer: Any) -> None:
    matcher = StopStrings(tokenizer, STOPS, [tokenizer.eos_token_id], Thinking(end="</t>", strip=False))
    assert matcher.answer(ids(tokenizer, "Q:\n\na</t>b c\n\nd")) == "Q:\n\na</t>b c"


def test_requests_of_one_stop_text_with_and_without_thought_end_apart(backend: Any, tokenizer: Any) -> None:
    plain, thinking = GenerationSettings(("a",)), GenerationSettings(("a",), thinking=Thinking(end="b"))
    tokens = ids(tokenizer, "xaybzac")
    assert [backend.stop_strings(one).answer(tokens) for one in (plain, thinking)] == ["x", "z"]


def test_a_margin_of_answers_after_a_thought_is_refused() -> None:
    with pytest.raises(ValidationError, match="a thought comes first"):
        LmEvalTask(name="gsm8k_train", thinking=Thinking(), signal="margin")
