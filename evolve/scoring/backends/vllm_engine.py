"""The home of `vllm`: an engine in this process, and the processes that it starts.

Only documented interfaces are used: `collective_rpc("reload_weights", weights_iterator=…)`, where engine and weights
are on one card, and `weights_path=…` elsewhere, which also reaches the processes of a tensor-parallel engine; and
`reset_prefix_cache`. vLLM's weight transfer over CUDA IPC is for weights of another process: CUDA opens no handle in
the process that exported it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from evolve.scoring.errors import Problem, ScoringError, TaskError, first_line

_LOG = logging.getLogger(__name__)

# Of vLLM itself, unless the user has set them: the log on stderr, threads left to the worker, and one position more
# than the model has: for the token that every request must be allowed to generate, whose position is never looked up.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
}
_END_SECONDS = 10.0  # for the engine's processes to end by themselves
_CARD_SHARE = 1 / 3  # of what is free, that weights to be handed over may take there
_ENGINE_SHARE = 0.85  # of what they leave, for the engine; the rest is for merging


class VLLMEngine:
    """Answers prompts of token ids.

    Args:
        directory: The model's; its weights are read now and at every `reload`.
        arguments: Of `vllm.LLM`.

    Attributes:
        seconds: Time spent on prompts so far.

    Raises:
        TaskError: vLLM is not installed or does not start.
    """

    def __init__(self, directory: Path, arguments: Mapping[str, Any]) -> None:
        self._vllm = _import_vllm()
        self._directory = directory
        self.seconds = 0.0
        self._llm: Any = None
        before = _children()
        try:
            with _hidden("llvmlite.binding.ffi"):
                self._llm = self._vllm.LLM(model=str(directory), **arguments)
        except (ValueError, RuntimeError, TypeError, AttributeError, OSError, ImportError) as error:
            self._processes = _children() - before
            self.close()
            raise TaskError(Problem(("backend",), f"vLLM does not start: {first_line(error)}")) from error
        self._processes = _children() - before

    def sampling(self, **options: Any) -> Any:
        """What `answer` is told of one prompt."""
        return self._vllm.SamplingParams(**options)

    def answer(self, prompts: Sequence[tuple[int, ...]], sampling: Sequence[Any]) -> list[Any]:
        """vLLM's output for each prompt."""
        if not prompts:
            return []
        started = time.perf_counter()
        outputs: list[Any] = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts], list(sampling), use_tqdm=False
        )
        self.seconds += time.perf_counter() - started
        return outputs

    def reload(self) -> None:
        """Read the weights again and forget everything that is known of those before."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(self._directory)})
        self._forget_prompts()

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """As `reload`, with tensors that are on the engine's card."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})
        self._forget_prompts()

    def _forget_prompts(self) -> None:
        # Keys and values of the weights before must not be found by the next prompts.
        if not self._llm.reset_prefix_cache():
            raise ScoringError("vLLM did not reset its prefix cache; some request is still running")

    def close(self) -> None:
        """End the engine and its processes. Can be called twice."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
        gc.collect()
        _end(self._processes)
        self._processes = set()


def runs_on_cpu() -> bool:
    """Whether the vLLM that is installed is built for CPUs.

    Raises:
        TaskError: vLLM cannot be imported.
    """
    _import_vllm()
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def card_for_weights(size: int, arguments: Mapping[str, Any]) -> torch.device | None:
    """The card on which weights are handed over: the engine's, where it has one, in this process, with room for them.

    Args:
        size: Of the weights, in bytes.
        arguments: Of `vllm.LLM`.
    """
    _import_vllm()
    from vllm.platforms import current_platform

    parallel = any(arguments.get(f"{kind}_parallel_size", 1) != 1 for kind in ("tensor", "pipeline", "data"))
    elsewhere = parallel or arguments.get("distributed_executor_backend") not in (None, "uni")
    if not current_platform.is_cuda() or elsewhere:
        return None
    free, total = torch.cuda.mem_get_info()
    share = arguments.get("gpu_memory_utilization")
    fits = size <= free * _CARD_SHARE if share is None else size + share * total <= free
    return torch.device("cuda", torch.cuda.current_device()) if fits else None


def engine_share() -> float:
    """The part of a card that an engine takes (vLLM's `gpu_memory_utilization`), where weights lie there already."""
    free, total = torch.cuda.mem_get_info()
    return _ENGINE_SHARE * free / total


def _import_vllm() -> Any:
    # Whatever the user has set: an engine in a process of its own outlives a worker that is killed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm
    except (ImportError, RuntimeError, OSError) as error:
        raise TaskError(
            Problem(("backend",), f"vLLM is installed but cannot be imported: {first_line(error)}")
        ) from error
    return vllm


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Take a loaded module out of sight while an engine starts.

    vLLM's CPU build looks at every object of every loaded module, and fails on one that llvmlite (of numba, which
    merges run on) has: whatever attribute it is asked for, it has one.
    """
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


def _children() -> set[psutil.Process]:
    """Every process below this one, but Python's own that counts shared memory: it ends with this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if not any("resource_tracker" in part for part in process.cmdline()):
                found.add(process)
    return found


def _end(processes: set[psutil.Process]) -> None:
    """What does not end by itself is ended, so that nothing outlives the engine."""
    _, alive = psutil.wait_procs(processes, timeout=_END_SECONDS)
    for process in alive:
        _LOG.warning("vLLM's process %d did not end by itself and is killed", process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_END_SECONDS)
