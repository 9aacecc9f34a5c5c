"""The `workers`, `ray` and `backend` sections of search.yml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from evolve import bounds
from evolve.config.section import Section
from evolve.problems import ConfigError, Problem
from evolve.scoring.backends.backend_options import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, BackendName, BackendOptions


class WorkersConfig(Section):
    """Who scores candidates. Has no influence on what is found, but with `optimizer.mode: steady_state`."""

    count: int = Field(
        default=1, ge=1, le=bounds.WORKERS, description="Number of workers, each with its own live model."
    )
    cpus: int | None = Field(
        default=None,
        ge=1,
        le=bounds.THREADS,
        description="CPU threads per worker; by default this machine's, divided among them.",
    )
    gpus: float | None = Field(
        default=None,
        ge=0,
        le=bounds.THREADS,
        description="GPUs per worker; by default 1 if there is one. 0.5 lets two workers share a GPU.",
    )
    resources: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="Further Ray resources per worker, which select nodes of a cluster: "
        '`{"accelerator_type:H100": 0.001}` puts workers on nodes with H100s.',
    )
    engine: Literal["auto", "ray", "in_process"] = Field(
        default="auto", description="auto: one worker runs in this process, several run as Ray actors."
    )

    time_limit: Annotated[float, Field(gt=0, le=bounds.SECONDS)] | Literal["auto", "none"] = Field(
        default="auto",
        description="Seconds after which a candidate counts as hanging and is abandoned. auto: ten times the slowest "
        "so far, per item, at least ten minutes, and six hours until one has been scored. none: no limit.",
    )

    @property
    def threads(self) -> int:
        """CPU threads of each; as many as torch would use, shared out, where the file leaves it open."""
        import torch

        return self.cpus or max(torch.get_num_threads() // self.count, 1)


class RayConfig(Section):
    """The Ray cluster to use."""

    address: str | None = Field(
        default=None,
        description="A running cluster: `auto` or `HOST:6379`; by default a local one is started.",
    )


class BackendConfig(Section):
    """How a candidate is run."""

    name: BackendName = Field(
        default="hf",
        description="hf: transformers, in the worker's process. vllm: one vLLM engine per worker, whose weights are "
        "replaced in place (pip install 'vllm>=0.32').",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Data type of the forward pass. auto: the recipe's on a GPU, float32 on a CPU."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; vllm chooses for itself.")
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description=f"Tokens per batch, padding included; by default {CPU_BATCH_TOKENS} on a CPU, "
        f"{GPU_BATCH_TOKENS} on a GPU. vllm: tokens computed at once (max_num_batched_tokens).",
    )
    attention: str | None = Field(
        default=None, description="hf: transformers' `attn_implementation`, such as sdpa or flash_attention_2."
    )
    device_map: str | dict[str, int | str] | None = Field(
        default=None,
        description="hf: spreads the model over several GPUs: auto, balanced, balanced_low_0, or a mapping from parts "
        "to devices. There is no gradient.",
    )
    quantization: Literal["none", "8bit", "fp8", "4bit"] = Field(
        default="none",
        description="hf: the live model's linear layers, except the head, are quantized, and merged tensors are "
        "rounded to it: 8bit (integers by row, as LLM.int8), fp8 (e4m3 by row), 4bit (NF4 in blocks of 64; needs "
        "bitsandbytes). This takes half or a quarter of the memory, and gives the scores of the quantized model; the "
        "result is saved unquantized. There is no gradient.",
    )
    compile: bool = Field(
        default=False,
        description="hf: torch.compile for all forward passes except generation. vllm: compile the model and record "
        "graphs instead of running eagerly.",
    )
    probe: bool = Field(
        default=True,
        description="vllm: compare the first candidate's log-probabilities with transformers' on the CPU, where the "
        "model must fit into memory once, and score it again after 2, 4, 8, … and every 64 candidates. If the engine "
        "then answers differently, it is restarted; the second time the search ends.",
    )
    model_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Passed on unchanged: to vllm.LLM (tensor_parallel_size, gpu_memory_utilization, max_model_len, …) "
        "or, with hf, to AutoModelForCausalLM.from_config. Both accept add_bos_token, hf also max_length.",
    )

    @model_validator(mode="after")
    def _of_one_backend(self) -> BackendConfig:
        if self.model_args.get("trust_remote_code"):
            message = "a search runs no Python code that comes with a model. Remove it"
            raise ConfigError(Problem(("model_args", "trust_remote_code"), message))
        if self.quantization != "none" and self.device_map is not None:
            message = "a quantised model is on one device. Remove it, or quantization"
            raise ConfigError(Problem(("device_map",), message))
        if self.name == "vllm":
            wrong = [name for name in ("attention", "device_map") if getattr(self, name) is not None]
            wrong += ["quantization"] if self.quantization != "none" else []
            if wrong:
                fix = "vLLM's own options go into model_args, such as model_args: {tensor_parallel_size: 2}"
                raise ConfigError(*(Problem((name,), f"only with name: hf. {fix}") for name in wrong))
        return self

    @property
    def gpus(self) -> int:
        """GPUs that one worker's model is spread over, as far as the file says so."""
        sizes = [self.model_args.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
        return math.prod(sizes) if self.name == "vllm" else 1

    def device_here(self) -> str:
        """What `device: auto` comes to on this machine."""
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def options(self, config: Mapping[str, Any], device: str) -> BackendOptions:
        """What the engine is told.

        Args:
            config: The merged model's config.json.
            device: What `device: auto` came to.
        """
        dtype: str = self.dtype
        if dtype == "auto":
            saved = str(config.get("dtype") or config.get("torch_dtype") or "float32")
            dtype = "float32" if device == "cpu" else saved
        return BackendOptions(
            name=self.name,
            dtype=dtype,
            device=device,
            max_batch_tokens=self.max_batch_tokens,
            attention=self.attention,
            device_map=self.device_map,
            quantization=None if self.quantization == "none" else self.quantization,
            compile=self.compile,
            probe=self.probe,
            model_args=self.model_args,
        )
