"""Source tensors on an accelerator: kept there while they fit, else copied ahead of their use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from merge_core.plan.tensor_job import JobInput, SourceIdentity

Read = Callable[[JobInput], Tensor]

SHARE = 0.5
"""Part of the device's free memory that sources may take; the rest is for the arithmetic and the model's own use."""

BUFFER_BYTES = 64 * 2**20
"""Of each buffer that sources pass through, in the host's memory: enough that starting a copy costs nothing."""

BUFFERS = 2
"""One is filled while the other is copied from."""


class Copies(Protocol):
    """Copies to a device, which run in the order of their start beside what it computes."""

    def empty_like(self, stored: Tensor) -> Tensor:
        """Memory on the device."""

    def start(self, target: Tensor, staged: Tensor) -> Any:
        """Copy, and return at once an event whose ``synchronize`` waits until the copy is through."""

    def arrive(self, tensor: Tensor, copied: Any) -> None:
        """Have what is computed from now on wait for an event of this tensor's."""


class DeviceSources:
    """Brings the inputs of jobs to a device.

    Inputs stay there until ``budget_bytes`` are used, as long as nothing else needs the memory. All others are copied
    again for every candidate that needs them: a thread reads them piece by piece into pinned buffers, and from there
    they go to the device on a stream of its own, while the jobs before are computed.

    Args:
        device: where to.
        read: gives an input in the host's memory.
        budget_bytes: for what is kept on the device; by default half of what is free there.
        copies: how; by default on a stream where the device has any.
    """

    def __init__(
        self, device: torch.device, read: Read, budget_bytes: int | None = None, copies: Copies | None = None
    ) -> None:
        self._device = device
        self._read = read
        self._room = _free_bytes(device) if budget_bytes is None else budget_bytes
        self._copies = copies or (_StreamCopies(device) if device.type == "cuda" else _CopiesAtOnce(device))
        self._kept: dict[SourceIdentity, Tensor] = {}
        self._at_hand: dict[SourceIdentity, Tensor] = {}  # of the present job
        self._coming: dict[SourceIdentity, Future[tuple[Tensor, Any]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sources")
        self._buffers: list[tuple[Tensor, Any]] = []  # the one whose copy is the longest ago first

    def begin(self, inputs: Iterable[JobInput], following: Iterable[JobInput] = ()) -> None:
        """Begin with a job: let go of what only the one before needed, and have its inputs brought.

        Args:
            inputs: of the job.
            following: of those after it, to be brought ahead.
        """
        wanted = {source.identity: source for source in inputs}
        self._at_hand = {key: tensor for key, tensor in self._at_hand.items() if key in wanted}
        for source in (*wanted.values(), *following):
            self._request(source)

    def read(self, source: JobInput) -> Tensor:
        """An input on the device; do not write to it."""
        key = source.identity
        for there in (self._kept, self._at_hand):
            if key in there:
                return there[key]
        self._request(source)
        tensor, copied = self._coming.pop(key).result()
        if copied is not None:
            self._copies.arrive(tensor, copied)
        size = tensor.numel() * tensor.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[key] = tensor
        else:
            self._at_hand[key] = tensor
        return tensor

    def give_way(self) -> bool:
        """Let go of the inputs that stay, and keep none from now on. Returns whether there were any."""
        held, self._room = bool(self._kept), 0
        self._kept.clear()
        return held

    def close(self) -> None:
        """Let go of everything on the device."""
        self._thread.shutdown(cancel_futures=True)
        for held in (self._kept, self._at_hand, self._coming):
            held.clear()

    def _request(self, source: JobInput) -> None:
        key = source.identity
        if key not in self._kept and key not in self._at_hand and key not in self._coming:
            self._coming[key] = self._thread.submit(self._bring, source)

    def _bring(self, source: JobInput) -> tuple[Tensor, Any]:
        stored = self._read(source).contiguous()
        tensor, copied = self._copies.empty_like(stored), None
        target, origin = (one.view(-1).view(torch.uint8) for one in (tensor, stored))
        for start in range(0, origin.numel(), BUFFER_BYTES):
            buffer, copied = self._buffers.pop(0) if len(self._buffers) == BUFFERS else (self._new_buffer(), None)
            if copied is not None:
                copied.synchronize()
            staged = buffer[: min(BUFFER_BYTES, origin.numel() - start)]
            staged.copy_(origin[start : start + BUFFER_BYTES])
            copied = self._copies.start(target[start : start + BUFFER_BYTES], staged)
            self._buffers.append((buffer, copied))
        return tensor, copied

    def _new_buffer(self) -> Tensor:
        return torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=self._device.type == "cuda")


class _StreamCopies:
    """On a stream of CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def empty_like(self, stored: Tensor) -> Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty_like(stored, device=self._device)

    def start(self, target: Tensor, staged: Tensor) -> Any:
        with torch.cuda.stream(self._stream):
            target.copy_(staged, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        return copied

    def arrive(self, tensor: Tensor, copied: Any) -> None:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        tensor.record_stream(current)


class _CopiesAtOnce:
    """Where there are no streams: through when they are started."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def empty_like(self, stored: Tensor) -> Tensor:
        return torch.empty_like(stored, device=self._device)

    def start(self, target: Tensor, staged: Tensor) -> Any:
        target.copy_(staged)

    def arrive(self, tensor: Tensor, copied: Any) -> None:
        pass


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    with contextlib.suppress(RuntimeError):
        free, _ = torch.cuda.mem_get_info(device)
        return int(SHARE * free)
    return 0
