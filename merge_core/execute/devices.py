"""The device that arithmetic runs on, from what a user wrote."""

from __future__ import annotations

import torch

from merge_core.errors import MergeError

KINDS = ("cpu", "cuda", "xpu", "mps")


def find_device(name: torch.device | str) -> torch.device:
    """Read a device: ``cpu``, ``cuda``, ``cuda:1``, ``xpu``, ``mps``, or ``auto`` for a GPU where there is one.

    Raises:
        MergeError: no such kind of device, or none at hand.
    """
    if name == "auto":
        return find_device(_accelerator() or "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in KINDS:
        raise MergeError(f'device "{name}": expected auto, {", ".join(KINDS)}, or one with a number: cuda:1')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts that it was built for it
        raise MergeError(f'device "{name}": there is none here that torch can use. Use device cpu') from error
    return device


def _accelerator() -> str | None:
    current = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if current is None else current.type
