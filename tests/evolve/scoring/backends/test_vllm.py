"""vLLM itself, in the environment that `make test-vllm` makes; elsewhere these tests are skipped."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from backend_contract import MAX_LENGTH, BackendContract, expected_logprob

from evolve.scoring import TaskError
from evolve.scoring.language_model import GenerationSettings

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own imports warn
]

# vLLM's attention has no head dimension below 32.
SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": MAX_LENGTH}


@pytest.fixture(scope="module")
def models(make_model: Callable[..., Any]) -> list[Any]:
    return [make_model(seed=seed, **SHAPE) for seed in range(3)]


def open_engine(model: Any, tokenizer: Any, directory: Path, without: Set[str] = frozenset(), **options: Any) -> Any:
    from evolve.scoring.backends.vllm import VLLMBackend

    tokenizer.save_pretrained(directory)
    tensors = model.state_dict().items()
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors if name not in without]
    return VLLMBackend(model.config.to_dict(), directory, layout, **options)


class TestVLLM(BackendContract):
    """The contract, as transformers keeps it."""

    @pytest.fixture(scope="class")
    def backend(self, models: list[Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        # Blocks so small that the prompts of these tests fill several: only full ones are kept for later prompts.
        made = open_engine(models[0], tokenizer, tmp_path_factory.mktemp("tokenizer"), model_args={"block_size": 32})
        yield made
        made.close()


def write(backend: Any, model: Any) -> None:
    for name, tensor in backend.model.state_dict().items():
        tensor.copy_(model.state_dict()[name])
    backend.weights_written()


def test_a_tied_head_follows_the_embeddings_and_everything_ends_with_the_engine(
    make_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    tied = [make_model(seed=seed, tie_word_embeddings=True, **SHAPE) for seed in range(2)]
    assert "lm_head.weight" in tied[0].state_dict()
    children = set(psutil.Process().children(recursive=True))
    backend = open_engine(tied[0], tokenizer, tmp_path, without={"lm_head.weight"})
    directory = backend.model.directory
    for model in (*tied, tied[0]):
        write(backend, model)
        request = backend.prepare_continuation("some context", "end")
        expected = expected_logprob(model, list(request.context), list(request.continuation))
        assert backend.loglikelihood([request])[0][0] == pytest.approx(expected[0], abs=2e-3)
    backend.close()
    backend.close()
    assert set(psutil.Process().children(recursive=True)) <= children
    assert not directory.exists()


def test_an_engine_that_computes_something_else_is_refused_before_anything_is_scored(
    models: list[Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_engine(models[0], tokenizer, tmp_path)
    # An engine that says yes and keeps the weights it has, here the zeros of its start.
    monkeypatch.setattr(backend._engine._llm, "collective_rpc", lambda *arguments, **options: [None])
    with pytest.raises(TaskError, match=r"vLLM does not compute what transformers does .* apart on average"):
        write(backend, models[0])
    monkeypatch.undo()
    write(backend, models[0])
    with pytest.raises(TaskError, match="vllm has no num_beams"):
        backend.generate([backend.prepare_generation("a", GenerationSettings((), 4, (("num_beams", 3),)))])
    with pytest.raises(TaskError, match="vllm has no option typical_p"):
        backend.generate([backend.prepare_generation("a", GenerationSettings((), 4, (("typical_p", 0.3),)))])
    backend.close()


def test_shorter_inputs_and_other_precisions_are_vllms_own_arguments(
    models: list[Any], tokenizer: Any, tmp_path: Path
) -> None:
    backend = open_engine(models[0], tokenizer, tmp_path, dtype="bfloat16", model_args={"max_model_len": 50})
    assert backend.max_length == 50
    write(backend, models[0])
    request = backend.prepare_continuation("some context", "q")
    expected = expected_logprob(models[0], list(request.context), list(request.continuation))
    assert backend.loglikelihood([request])[0][0] == pytest.approx(expected[0], abs=1.0)
    assert len(backend.generate([backend.prepare_generation("a" * 300, GenerationSettings((), 20))])) == 1
    backend.close()


def test_an_argument_that_vllm_does_not_take_is_the_users_mistake(
    models: list[Any], tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=r"vLLM does not start: .*no_such_argument"):
        open_engine(models[0], tokenizer, tmp_path, model_args={"no_such_argument": 1})


def test_weights_go_over_as_tensors_where_they_lie_on_the_engines_card(
    models: list[Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evolve.scoring.backends import vllm, vllm_engine

    monkeypatch.setattr(vllm, "card_for_weights", lambda size, arguments: torch.device("cpu"))
    monkeypatch.setattr(vllm, "engine_share", lambda: 0.5)
    backend = open_engine(models[0], tokenizer, tmp_path)
    monkeypatch.setattr(backend._engine, "reload", None)
    for model in (*models, models[0]):
        write(backend, model)
        request = backend.prepare_continuation("some context", "end")
        expected = expected_logprob(model, list(request.context), list(request.continuation))
        assert backend.loglikelihood([request])[0][0] == pytest.approx(expected[0], abs=2e-3)
    assert vllm_engine.card_for_weights(1, {}) is None  # on a CPU
    backend.close()
