"""vLLM itself, in the environment that `make test-vllm` makes; elsewhere these tests are skipped."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tasks import TaskError
from backend_contract import MAX_LENGTH, BackendContract

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own imports warn
]

# vLLM's attention has no head dimension below 32.
SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": MAX_LENGTH}


@pytest.fixture(scope="module")
def models(make_model: Callable[..., Any]) -> list[Any]:
    return [make_model(seed=seed, **SHAPE) for seed in range(3)]


def open_engine(model: Any, tokenizer: Any, directory: Path, **options: Any) -> Any:
    from tasks.vllm_backend import VLLMBackend

    tokenizer.save_pretrained(directory)
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    return VLLMBackend(model.config.to_dict(), directory, layout, **options)


@pytest.fixture(scope="module")
def backend(models: list[Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # Blocks so small that the prompts of these tests fill several: only full ones are kept for later prompts.
    made = open_engine(models[0], tokenizer, tmp_path_factory.mktemp("tokenizer"), model_args={"block_size": 32})
    yield made
    made.close()


class TestVLLM(BackendContract):
    """The contract, in this process."""
