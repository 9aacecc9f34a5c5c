"""Settings of torch that all arithmetic after them depends on: how each is read, and how it is put back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.modules import module as modules

_KERNELS = ("flash_sdp", "mem_efficient_sdp", "math_sdp")
_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks", "_global_backward_hooks")
# Names of torch's own, under which each kind of product has a precision since 2.9.
_PRECISIONS = [("generic", "all"), *((of, op) for of in ("mkldnn", "cuda") for op in ("all", "matmul", "conv", "rnn"))]


def torch_settings() -> Iterator[tuple[Callable[[], Any], Callable[[Any], object]]]:
    """How each is read, and how it is written."""
    yield torch.get_rng_state, torch.set_rng_state
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.get_default_device, _set_default_device
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.get_num_threads, torch.set_num_threads
    yield lambda: torch.backends.mkldnn.enabled, torch.backends.mkldnn.set_flags  # which has a precision set, too
    yield _float_precision, _set_float_precision
    yield _determinism, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])
    yield _flushes_denormals, torch.set_flush_denormal
    for device in ("cpu", "cuda"):
        yield partial(torch.is_autocast_enabled, device), partial(torch.set_autocast_enabled, device)
        yield partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device)
    for name in _KERNELS:
        yield getattr(torch.backends.cuda, f"{name}_enabled"), getattr(torch.backends.cuda, f"enable_{name}")
    for name in _HOOKS:
        hooks = getattr(modules, name)
        yield hooks.copy, partial(_set_hooks, hooks)


def _set_hooks(hooks: dict[int, Any], before: dict[int, Any]) -> None:
    hooks.clear()
    hooks.update(before)


def _set_default_device(device: Any) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)  # None ends the mode that any other begins


def _float_precision() -> tuple[Any, ...]:
    try:
        one_for_all = torch.get_float32_matmul_precision()
    except RuntimeError:  # each kind of product was given its own
        one_for_all = None
    if not hasattr(torch._C, "_get_fp32_precision_getter"):
        return (one_for_all,)
    return one_for_all, *(torch._C._get_fp32_precision_getter(*name) for name in _PRECISIONS)


def _set_float_precision(before: tuple[Any, ...]) -> None:
    one_for_all, *each = before
    if one_for_all is not None:
        torch.set_float32_matmul_precision(one_for_all)
    for name, value in zip(_PRECISIONS, each, strict=False):
        torch._C._set_fp32_precision_setter(*name, value)


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _flushes_denormals() -> bool:
    return sys.float_info.min * 0.5 == 0.0  # which torch does not say: Python computes on the same thread
