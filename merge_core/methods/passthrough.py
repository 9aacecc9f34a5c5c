"""One model's tensor, as it is or scaled: `passthrough`."""

from __future__ import annotations

from torch import Tensor


def passthrough(tensor: Tensor, scale: float | None) -> Tensor:
    """Return ``scale · x``, or ``x`` itself when there is no scale.

    Args:
        tensor: the one source.
        scale: None leaves every bit as it is.
    """
    return tensor if scale is None else tensor * scale
