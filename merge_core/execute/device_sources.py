"""Source tensors on an accelerator: kept there while they fit, else copied ahead of their use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from merge_core.plan.tensor_job import JobInput

Read = Callable[[JobInput], Tensor]

SHARE = 0.5
"""Part of the device's free memory that sources may take; the rest is for the arithmetic and the model's own use."""


class DeviceSources:
    """Brings the inputs of jobs to a device.

    Inputs stay there until ``budget_bytes`` are used. All others are copied again for every candidate: read into
    pinned memory by a thread, and from there to the device on a stream of its own, while the job before is computed.

    Args:
        device: where to.
        read: gives an input in the host's memory.
        budget_bytes: for what is kept on the device; by default half of what is free there.
    """

    def __init__(self, device: torch.device, read: Read, budget_bytes: int | None = None) -> None:
        self._device = device
        self._read = read
        self._room = _free_bytes(device) if budget_bytes is None else budget_bytes
        self._kept: dict[JobInput, Tensor] = {}
        self._coming: dict[JobInput, Future[tuple[Tensor, Any]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sources")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # Two, so that one is filled while the other is copied from.
        self._buffers: list[tuple[Tensor, Any]] = [(torch.empty(0, dtype=torch.uint8), None) for _ in range(2)]

    def request(self, inputs: Iterable[JobInput]) -> None:
        """Begin to bring inputs that are soon asked for."""
        for source in inputs:
            key = _key(source)
            if key not in self._kept and key not in self._coming:
                self._coming[key] = self._thread.submit(self._bring, key)

    def read(self, source: JobInput) -> Tensor:
        """An input on the device; do not write to it."""
        key = _key(source)
        if key in self._kept:
            return self._kept[key]
        self.request([source])
        tensor, copied = self._coming.pop(key).result()
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            tensor.record_stream(stream)
        size = tensor.numel() * tensor.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[key] = tensor
        return tensor

    def close(self) -> None:
        """Let go of everything on the device."""
        self._thread.shutdown(cancel_futures=True)
        self._kept.clear()
        self._coming.clear()

    def _bring(self, source: JobInput) -> tuple[Tensor, Any]:
        stored = self._read(source).contiguous()
        if self._stream is None or stored.numel() == 0:
            return stored.to(self._device), None
        staged = self._staged(stored)
        with torch.cuda.stream(self._stream):
            tensor = torch.empty_like(stored, device=self._device)
            tensor.copy_(staged, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        self._buffers[-1] = (self._buffers[-1][0], copied)
        return tensor, copied

    def _staged(self, stored: Tensor) -> Tensor:
        """The tensor in the pinned buffer whose last copy is the longest ago; the last in the list afterwards."""
        buffer, copied = self._buffers.pop(0)
        if copied is not None:
            copied.synchronize()
        size = stored.numel() * stored.element_size()
        if buffer.numel() < size:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._buffers.append((buffer, None))
        staged = buffer[:size].view(stored.dtype).view(stored.shape)
        staged.copy_(stored)
        return staged


def _key(source: JobInput) -> JobInput:
    """An input without its parameters: a candidate's weights change nothing about the tensor."""
    return replace(source, parameters=())


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    with contextlib.suppress(RuntimeError):
        free, _ = torch.cuda.mem_get_info(device)
        return int(SHARE * free)
    return 0
