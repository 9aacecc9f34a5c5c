"""Cards that searches run on, by what their makers publish of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evolve.problems import ConfigError, Problem
from merge_core.errors import did_you_mean

_GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A card as its data sheet has it.

    Attributes:
        name: as the driver says it, without the maker.
        memory_bytes: all of it.
        bytes_per_second: of its memory.
        operations_per_second: of dense matrix products of bfloat16, summed in float32.
        link_bytes_per_second: of its PCIe link, one way.
    """

    name: str
    memory_bytes: int
    bytes_per_second: float
    operations_per_second: float
    link_bytes_per_second: float

    @property
    def key(self) -> str:
        """What `--card` takes: ``rtx4090``."""
        return re.sub(r"\W", "", self.name.removeprefix("GeForce ")).lower()


_PCIE_4, _PCIE_5 = 31.5e9, 63.0e9

CARDS = tuple(
    Card(name, memory * _GIB, bandwidth * 1e9, operations * 1e12, link)
    for name, memory, bandwidth, operations, link in (
        ("GeForce RTX 3090", 24, 936, 71, _PCIE_4),
        ("GeForce RTX 4090", 24, 1008, 165.2, _PCIE_4),
        ("GeForce RTX 5090", 32, 1792, 209.5, _PCIE_5),
        ("A10", 24, 600, 125, _PCIE_4),
        ("L4", 24, 300, 121, _PCIE_4),
        ("L40S", 48, 864, 362, _PCIE_4),
        ("RTX 6000 Ada", 48, 960, 364.2, _PCIE_4),
        ("A100 40GB", 40, 1555, 312, _PCIE_4),
        ("A100 80GB", 80, 2039, 312, _PCIE_4),
        ("H100 PCIe", 80, 2000, 756, _PCIE_5),
        ("H100", 80, 3350, 989, _PCIE_5),
        ("H200", 141, 4800, 989, _PCIE_5),
    )
)
"""Those that are known; the more often rented ones."""


def find_card(key: str) -> Card:
    """The card that a user names.

    Raises:
        ConfigError: not one of `CARDS`.
    """
    known = {card.key: card for card in CARDS}
    wanted = re.sub(r"\W", "", key).lower()
    if wanted not in known:
        found = f'expected one of {", ".join(known)}, got "{key}".{did_you_mean(wanted, known)}'
        raise ConfigError(Problem((), found, "--card"))
    return known[wanted]


def recognise_card(name: str) -> Card | None:
    """The card of a name that a driver gives: ``NVIDIA A100-SXM4-80GB``; None where it is not known."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    if words & {"laptop", "mobile", "d", "ti", "super"}:
        return None  # another card under a similar name
    fitting = [card for card in CARDS if words >= set(card.name.removeprefix("GeForce ").lower().split())]
    return max(fitting, key=lambda card: len(card.name.split()), default=None)
