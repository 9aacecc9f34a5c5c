"""A shorter form of a recipe: numbers that tensors share, and what the recipe says for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolve.problems import Place
from evolve.simplify.metric import Floats
from evolve.simplify.sites import Cell, Site
from merge_core.recipe.parameters import interpolate


@dataclass(frozen=True)
class Share:
    """Numbers that tensors share.

    Attributes:
        word: what their names have in them, and none of the shares before; None: whatever is none of these.
        knots: one number for all, or those of a gradient over the layers, from the first layer to the last.
    """

    word: str | None
    knots: tuple[float, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """As it stands in a recipe's list."""
        value = self.knots[0] if len(set(self.knots)) == 1 else list(self.knots)
        return {"value": value} if self.word is None else {"filter": self.word, "value": value}


@dataclass(frozen=True)
class ShortForm:
    """Few numbers for every site.

    Attributes:
        shares: of each site, the special before the general: of a recipe, the first that fits decides. None of a site
            that is left to its default, or whose model is left out.
        loss: by the metric, against the long recipe.
    """

    shares: tuple[tuple[Share, ...], ...]
    loss: float = 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """Its numbers, site after site."""
        return tuple(number for own in self.shares for share in own for number in share.knots)

    @property
    def numbers(self) -> int:
        """How many there are."""
        return len(self.values)

    def with_values(self, values: Sequence[float]) -> ShortForm:
        """The form with other numbers."""
        left = iter(values)
        shares = tuple(
            tuple(replace(share, knots=tuple(itertools.islice(left, len(share.knots)))) for share in own)
            for own in self.shares
        )
        return replace(self, shares=shares)

    def mixture(self, sites: Sequence[Site]) -> Floats:
        """How much of each of its numbers is in each number of the long recipe, shape (long, short)."""
        found = np.zeros((sum(len(site.cells) for site in sites), self.numbers))
        row = column = 0
        for site, own in zip(sites, self.shares, strict=True):
            ends = list(itertools.accumulate((len(share.knots) for share in own), initial=column))
            for cell in site.cells:
                for share, first, end in zip(own, ends, ends[1:], strict=False):
                    if share.word is None or share.word in cell.tensor:
                        found[row, first:end] = hats([cell], end - first)
                        break
                row += 1
            column = ends[-1]
        return found

    def settings(self, sites: Sequence[Site]) -> dict[Place, Any]:
        """What a recipe says in the place of each site."""
        found: dict[Place, Any] = {}
        for site, own in zip(sites, self.shares, strict=True):
            entries = [share.entry for share in own]
            if not own:
                found[site.place] = site.clip(0.0) if site.default is None else site.default
            elif len({number for share in own for number in share.knots}) == 1:
                found[site.place] = own[0].knots[0]
            else:
                found[site.place] = entries if len(entries) > 1 or own[0].word else entries[0]["value"]
        return found


def hats(cells: Sequence[Cell], knots: int) -> Floats:
    """How much of each knot a gradient has at the depth of each number, as a merge reads it; shape (numbers, knots)."""
    columns = [[float(number == knot) for number in range(knots)] for knot in range(knots)]
    return np.array([[interpolate(column, cell.depth) for column in columns] for cell in cells])
