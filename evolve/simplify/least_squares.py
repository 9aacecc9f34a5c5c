"""Numbers for a form: as near to the long recipe's as the metric can tell, by weighted least squares."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.simplify.metric import Floats, Metric
from evolve.simplify.short_form import Share, ShortForm, hats
from evolve.simplify.sites import Site

DECIMALS = range(1, 7)
WORTH_A_DECIMAL = 0.02  # of what the form loses
UNSEEN = 1e-5  # of what all numbers together do

Words = Mapping[str, frozenset[int]]
"""Substring of tensor names → which numbers of a site have it in the name of their tensor."""

Chosen = Mapping[str | None, int]
"""Filter, or None for the rest → how many numbers its tensors share: one, or the knots of a gradient."""


@dataclass(frozen=True)
class Part:
    """One site's share of the problem.

    Attributes:
        chosen: its filters as they stand in a recipe, with how many numbers each has.
        columns: what moving each of its numbers by 1 does to the rows of the metric, shape (rows, numbers).
        prior: what it costs beside, shape (numbers, numbers).
        pulled: that cost's part of the right-hand side, shape (numbers,).
        target: what the numbers are to do to the rows, shape (rows,).
        constant: the prior's cost where all of them are 0.
    """

    chosen: tuple[tuple[str | None, int], ...]
    columns: Floats
    prior: Floats
    pulled: Floats
    target: Floats
    constant: float

    @property
    def count(self) -> int:
        """Its numbers."""
        return len(self.pulled)


class Fit:
    """The problem.

    Args:
        sites: their numbers in the order of the metric.
        metric: what it costs to move numbers.
    """

    def __init__(self, sites: Sequence[Site], metric: Metric) -> None:
        self._sites, self._metric = sites, metric
        ends = list(itertools.accumulate((len(site.cells) for site in sites), initial=0))
        self._own = [slice(first, end) for first, end in itertools.pairwise(ends)]
        self._shapes: dict[tuple[int, int], Floats] = {}
        self._unsaid: dict[tuple[int, float | None], tuple[Floats, Floats, float]] = {}
        values = [cell.value for site in sites for cell in site.cells]
        self._all = float(((metric.rows @ values) ** 2).sum() + (metric.prior * np.square(values)).sum())

    def part(self, number: int, words: Words, chosen: Chosen, unsaid: float | None = 0.0) -> Part | None:
        """A site's, with some of its words as filters; None where it has more knots than its layers can tell.

        Args:
            number: of the site.
            words: of its tensors' names.
            chosen: nothing for a site of which a recipe says nothing.
            unsaid: what holds for such a site; None: it does nothing, whatever it is.
        """
        cells, own = self._sites[number].cells, self._own[number]
        left = set(range(len(cells)))
        groups: list[tuple[str | None, list[int]]] = []
        for word in sorted(filter(None, chosen), key=lambda word: (len(words[word]), word)):
            if fitting := sorted(left & words[word]):
                groups.append((word, fitting))
                left -= words[word]
        if left and chosen:
            groups.append((None, sorted(left)))
        rows, prior = self._metric.rows[:, own], self._metric.prior[own]
        target, weighted, constant = self._away(number, None if unsaid is None else 0.0 if chosen else unsaid)
        columns, curvature, pulled = [], [], []
        for name, fitting in groups:
            shape = self._hats(number, chosen[name])[fitting]
            if chosen[name] > 1 and np.linalg.matrix_rank(shape) < chosen[name]:
                return None
            columns.append(rows[:, fitting] @ shape)
            curvature.append(shape.T @ (prior[fitting][:, None] * shape))
            pulled.append(shape.T @ weighted[fitting])
        return Part(
            tuple((word, chosen[word]) for word, _ in groups),
            _joined(columns, len(rows)),
            _diagonal(curvature),
            np.concatenate([np.zeros(0), *pulled]),
            target,
            constant,
        )

    def loss(self, parts: Sequence[Part]) -> float:
        """The least of any numbers, whether or not they are in their ranges."""
        curvature, pull, constant = _normal(parts)
        return max(0.0, constant - float(pull @ np.linalg.solve(curvature, pull)))

    def form(self, parts: Sequence[Part]) -> ShortForm:
        """With its numbers, in the ranges of their sites and rounded."""
        curvature, pull, constant = _normal(parts)
        counts = [part.count for part in parts]
        low, high = (np.repeat([getattr(site, name) for site in self._sites], counts) for name in ("low", "high"))
        values = _least_within(curvature, pull, low, high)

        def loss_of(numbers: Floats) -> float:
            return max(0.0, constant + float(numbers @ (curvature @ numbers - 2 * pull)))

        least = loss_of(values)
        most = max((1 + WORTH_A_DECIMAL) * least, least + UNSEEN * self._all)
        for decimals in DECIMALS:
            rounded = np.clip(np.round(values, decimals) + 0.0, low, high)  # no minus zero
            loss = loss_of(rounded)
            if loss <= most:
                break
        empty = tuple(tuple(Share(word, (0.0,) * knots) for word, knots in part.chosen) for part in parts)
        return ShortForm(empty, loss).with_values([float(number) for number in rounded])

    def _hats(self, number: int, knots: int) -> Floats:
        if (number, knots) not in self._shapes:
            self._shapes[number, knots] = hats(self._sites[number].cells, knots)
        return self._shapes[number, knots]

    def _away(self, number: int, unsaid: float | None) -> tuple[Floats, Floats, float]:
        """How far a site's numbers are from one: on the rows, times the prior, and what that costs by the prior."""
        if (number, unsaid) not in self._unsaid:
            cells, own = self._sites[number].cells, self._own[number]
            away = np.array([0.0 if unsaid is None else cell.value - unsaid for cell in cells])
            weighted = self._metric.prior[own] * away
            self._unsaid[number, unsaid] = self._metric.rows[:, own] @ away, weighted, float(weighted @ away)
        return self._unsaid[number, unsaid]


def _normal(parts: Sequence[Part]) -> tuple[Floats, Floats, float]:
    """Of the normal equations the matrix and the right-hand side, and what is lost where all numbers are 0."""
    columns = np.concatenate([part.columns for part in parts], axis=1)
    target = np.sum([part.target for part in parts], axis=0)
    pull = columns.T @ target + np.concatenate([part.pulled for part in parts])
    constant = float(target @ target) + sum(part.constant for part in parts)
    return columns.T @ columns + _diagonal([part.prior for part in parts]), pull, constant


def _joined(columns: Sequence[Floats], rows: int) -> Floats:
    return np.concatenate([np.zeros((rows, 0)), *columns], axis=1)


def _diagonal(blocks: Sequence[Floats]) -> Floats:
    """One matrix of several along its diagonal."""
    found = np.zeros((sum(map(len, blocks)),) * 2)
    first = 0
    for block in blocks:
        end = first + len(block)
        found[first:end, first:end] = block
        first = end
    return found


def _least_within(curvature: Floats, pull: Floats, low: Floats, high: Floats) -> Floats:
    """The least squares solution; what lies outside of its range is put on the edge, and the others follow."""
    values: Floats = np.linalg.solve(curvature, pull).astype(np.float64)
    free = np.ones(len(values), dtype=bool)
    while (outside := free & ((values < low) | (values > high))).any():
        values = np.clip(values, low, high)
        free &= ~outside
        if free.any():
            rest = pull[free] - curvature[np.ix_(free, ~free)] @ values[~free]
            values[free] = np.linalg.solve(curvature[np.ix_(free, free)], rest)
    return values
