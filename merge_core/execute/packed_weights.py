"""Weights that a live model holds in another form than a merge makes them in, such as fewer bits."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn


class HoldsPackedWeight(Protocol):
    """A module that packs its weight.

    Attributes:
        weight: its shape and dtype, on the meta device.
        codes: the memory that it is held in.
    """

    weight: Tensor
    codes: Tensor

    def pack(self, weight: Tensor) -> None:
        """Hold another weight, which is on the device of the codes and is not needed any more."""


class PackedWeight(Tensor):
    """Stands for the weight of such a module among live parameters: a shape and a dtype on the meta device."""

    holder: HoldsPackedWeight

    @classmethod
    def of(cls, weight: Tensor, holder: HoldsPackedWeight) -> PackedWeight:
        """A stand-in with a holder."""
        packed = weight.detach().as_subclass(cls)
        packed.holder = holder
        return packed


def packed_weights(model: nn.Module) -> dict[str, HoldsPackedWeight]:
    """Name of a weight -> the module that holds it."""
    return {f"{name}.weight": module for name, module in model.named_modules() if _holds_packed_weight(module)}


def _holds_packed_weight(module: object) -> TypeGuard[HoldsPackedWeight]:
    # Not by a protocol's isinstance, which from Python 3.12 on does not see a module's parameters and buffers.
    return all(hasattr(module, name) for name in ("weight", "codes", "pack"))


def memory_of(target: Tensor) -> Tensor:
    """What a live parameter lies in."""
    return target.holder.codes if isinstance(target, PackedWeight) else target


def device_of(target: Tensor) -> torch.device:
    """Where a live parameter is."""
    return memory_of(target).device
