"""Parts of a whole, which people write as 0.005 or as 0.5%."""

from __future__ import annotations


def share(value: object) -> object:
    """What stands for a number: of text that ends in a percent sign a hundredth of what is before it, else the value.

    >>> share("0.5%")
    0.005
    """
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value
