"""Bits per byte of the user's texts, against lm-eval's own and against the model by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evolve.scoring import TaskError, load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.text_windows import rolling_windows
from evolve.scoring.scorers.text_units import cut

TEXT = "The house stood at the end of the lane. Nobody had lived there for years, and it showed.\n\n" * 4
LONG = "It was cold; the wind came over the hill, down the road, through the door. " * 12  # 900 tokens, window 512


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.txt").write_text(LONG + "é", encoding="utf-8")
    return tmp_path


def scorer_of(directory: Path, **settings: Any) -> Any:
    (scorer,) = load_scorers([parse_task({"perplexity": "*.txt", **settings})], [], 0, directory)
    return scorer


def refusal(directory: Path, **settings: Any) -> str:
    with pytest.raises(TaskError) as caught:
        scorer_of(directory, **settings)
    return "\n".join(problem.message for problem in caught.value.problems)


def test_bits_per_byte_are_lm_evals(directory: Path, backend: HFBackend, model: Any, tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import bits_per_byte
    from lm_eval.models.huggingface import HFLM

    texts = [(directory / name).read_text(encoding="utf-8") for name in ("a.txt", "b.txt")]
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2).loglikelihood_rolling(requests)
    scorer = scorer_of(directory)
    scored = scorer.score(backend, scorer.item_ids())
    assert list(scored.values.values()) == pytest.approx([-value for value in theirs], rel=1e-5)
    pairs = [(value, len(text.encode())) for value, text in zip(theirs, texts, strict=True)]
    assert scorer.aggregate(scored.values).value == pytest.approx(bits_per_byte(pairs), rel=1e-5)
    assert (scorer.metric, scorer.direction) == ("bits_per_byte", "minimize")


@pytest.mark.parametrize(("window", "stride"), [(100, 100), (100, 30), (64, 1), (512, None)])
def test_windows_are_read_as_by_hand(directory: Path, backend: HFBackend, window: int, stride: int | None) -> None:
    from lm_eval.utils import get_rolling_token_windows

    text = (directory / "a.txt").read_text()
    tokens = list(backend.prepare_text(text).tokens)
    scorer = scorer_of(directory, perplexity="a.txt", window=window, stride=stride)
    (value,) = scorer.score(backend, [0]).values.values()
    expected = 0.0
    context_length = window - (stride or window) + 1
    prefix = backend.prepare_text(text).prefix_token
    for inputs, predicted in get_rolling_token_windows(tokens, prefix, window, context_length):
        with torch.no_grad():
            log_probabilities = backend.model(torch.tensor([inputs])).logits[0].double().log_softmax(-1)
        expected -= sum(
            float(log_probabilities[place, token]) for place, token in enumerate(predicted, -len(predicted))
        )
    assert value == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 20), st.data())
def test_every_token_is_predicted_once_and_no_input_is_longer_than_the_window(
    tokens: list[int], window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    windows = rolling_windows(tokens, 99, window, stride)
    assert [token for _, predicted in windows for token in predicted] == tokens
    for context, predicted in windows:
        assert context
        assert len(context) + len(predicted) - 1 <= window
    assert all(len(predicted) <= stride for _, predicted in windows[1:])


@given(st.text(alphabet="ab é\n\t", min_size=1).filter(str.strip), st.integers(1, 12))
def test_chunks_joined_are_the_text_and_none_is_too_long(text: str, chunk_bytes: int) -> None:
    chunks = cut(text, "chunk", chunk_bytes)
    assert "".join(chunks) == text
    assert all(len(chunk.encode()) <= chunk_bytes or len(chunk.split()) == 1 for chunk in chunks)
    assert all(chunk.strip() for chunk in chunks)


def test_paragraphs_are_what_stands_between_blank_lines() -> None:
    assert cut("one\ntwo\n\n \n three\n", "paragraph", 1) == ["one\ntwo", "three"]


def test_a_score_over_several_items_is_all_bits_over_all_bytes(directory: Path, backend: HFBackend) -> None:
    scorer = scorer_of(directory, unit="chunk", chunk_bytes=50)
    values = scorer.score(backend, scorer.item_ids()).values
    size = sum(len((directory / name).read_bytes()) for name in ("a.txt", "b.txt"))
    assert scorer.aggregate(values).value == pytest.approx(sum(values.values()) / math.log(2) / size)


def test_signals_are_the_probability_per_byte(directory: Path, backend: HFBackend) -> None:
    scorer = scorer_of(directory, perplexity=["a.txt"])
    scored = scorer.score(backend, [0])
    assert scored.signals[0] == pytest.approx(2 ** -scorer.aggregate(scored.values).value)


def test_files_named_twice_count_once_and_order_is_that_of_the_list(directory: Path) -> None:
    assert len(scorer_of(directory, perplexity=["b.txt", "*.txt", "a.txt"]).item_ids()) == 2


def test_names_with_special_characters_and_absolute_ones_are_found(directory: Path) -> None:
    odd = directory / "[odd] place"
    odd.mkdir()
    (odd / "c.txt").write_text("Something.")
    assert len(scorer_of(odd, perplexity="*.txt").item_ids()) == 1
    assert len(scorer_of(odd, perplexity=str(directory / "?.txt")).item_ids()) == 2


def test_a_window_longer_than_the_context_names_both(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="window 513 is longer than the model's context of 512 tokens"):
        scorer_of(directory, window=513).score(backend, [0])


def test_files_that_cannot_be_read_are_refused_all_at_once(directory: Path) -> None:
    (directory / "empty.txt").write_text(" \n")
    (directory / "latin.txt").write_bytes("é".encode("latin-1"))
    said = refusal(directory, perplexity=["absent/*.txt", "empty.txt", "latin.txt"])
    assert "no file 'absent/*.txt'" in said
    assert "empty.txt is empty" in said
    assert "latin.txt is not UTF-8 text" in said


def test_a_stride_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="stride 20 is longer than window 10"):
        parse_task({"perplexity": "a.txt", "window": 10, "stride": 20})
