"""How candidates are run: what a user may choose of an engine, and what it does by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from evolve.scoring.backends.quantized_linear import Bits

BackendName = Literal["hf", "vllm"]

CPU_BATCH_TOKENS = 4096
"""Rows times padded length of an `hf` batch on a CPU, where more falls out of its caches."""

GPU_BATCH_TOKENS = 32768
"""The same elsewhere, where more is faster until memory ends."""


def default_batch_tokens(device: str) -> int:
    """The largest batch of an `hf` model that lives on a device such as cpu or cuda:1."""
    return CPU_BATCH_TOKENS if device.startswith("cpu") else GPU_BATCH_TOKENS


@dataclass(frozen=True)
class BackendOptions:
    """How candidates are run; what each means is said in `HFBackend` and `VLLMBackend`.

    Attributes:
        name: `hf` or `vllm`.
        dtype: Of the forward pass: float32, bfloat16 or float16.
        device: Where an `hf` model lives.
    """

    name: BackendName = "hf"
    dtype: str = "float32"
    device: str = "cpu"
    max_batch_tokens: int | None = None
    attention: str | None = None
    device_map: str | Mapping[str, Any] | None = None
    quantization: Bits | None = None
    compile: bool = False
    probe: bool = True
    model_args: Mapping[str, Any] = field(default_factory=dict)
