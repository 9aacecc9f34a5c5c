"""Shorter forms of a recipe: lists of filters with a number each, chosen by what the long recipe loses by them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolve.problems import Place
from evolve.simplify.long_recipe import Site
from evolve.simplify.metric import Floats, Metric

MOST_WORDS = 400  # that are tried as filters of a parameter; those of more tensors first
DECIMALS = range(1, 7)
WORTH_A_DECIMAL = 0.02  # of what the form loses
UNSEEN = 1e-5  # of what all numbers together do

Words = Mapping[str, frozenset[int]]
"""Substring of tensor names → which numbers of a site have it in the name of their tensor."""


@dataclass(frozen=True)
class ShortForm:
    """A number for every filter of every site, and one for the rest.

    Attributes:
        filters: of each site, the special before the general: of a recipe, the first that fits decides. Those that
            are none else's are last, under None.
        values: of each site, a number for each of its filters.
        loss: by the metric, against the long recipe.
    """

    filters: tuple[tuple[str | None, ...], ...]
    values: tuple[tuple[float, ...], ...]
    loss: float

    @property
    def numbers(self) -> int:
        """How many there are."""
        return sum(map(len, self.values))

    def owners(self, sites: Sequence[Site]) -> list[int]:
        """Which of its numbers each number of the long recipe has become, site after site."""
        found: list[int] = []
        first = 0
        for site, filters in zip(sites, self.filters, strict=True):
            fitting = [
                next(place for place, word in enumerate(filters) if word is None or word in cell.tensor)
                for cell in site.cells
            ]
            found.extend(first + place for place in fitting)
            first += len(filters)
        return found

    def settings(self, sites: Sequence[Site]) -> dict[Place, Any]:
        """What a recipe says in the place of each site."""
        found: dict[Place, Any] = {}
        for site, filters, values in zip(sites, self.filters, self.values, strict=True):
            entries = [
                {"value": value} if word is None else {"filter": word, "value": value}
                for word, value in zip(filters, values, strict=True)
            ]
            found[site.place] = values[0] if len(entries) == 1 else entries
        return found


def short_forms(sites: Sequence[Site], metric: Metric, most: int) -> Iterator[ShortForm]:
    """Forms of one number a site, then one more at a time: the filter that leaves least to be lost.

    The numbers of each are those that lose least, by weighted least squares, as round as that allows.

    Args:
        sites: of all models, their numbers in the order of the metric.
        metric: what it costs to move numbers.
        most: numbers at most.
    """
    fit = _Fit(sites, metric)
    words = [_words(site) for site in sites]
    chosen: list[tuple[str, ...]] = [()] * len(sites)

    def longer(number: int) -> dict[str, _Part]:
        own = words[number]
        return {word: fit.part(number, own, (*chosen[number], word)) for word in own.keys() - set(chosen[number])}

    parts = [fit.part(number, words[number], ()) for number in range(len(sites))]
    tried = [longer(number) for number in range(len(sites))]
    while (numbers := sum(len(part.filters) for part in parts)) <= most:
        yield fit.form(parts)
        best: tuple[float, int, str, _Part] | None = None
        for number, candidates in enumerate(tried):
            others = [*parts[:number], *parts[number + 1 :]]
            for word, part in candidates.items():
                if sum(len(other.filters) for other in others) + len(part.filters) != numbers + 1:
                    continue  # it takes all that another filter has
                loss = fit.loss([*others, part])
                if best is None or (loss, number, word) < best[:3]:
                    best = loss, number, word, part
        if best is None:
            return
        _, number, word, parts[number] = best
        chosen[number] = (*chosen[number], word)
        tried[number] = longer(number)


@dataclass(frozen=True)
class _Part:
    """One site's share of the least squares problem.

    Attributes:
        filters: None for the rest.
        columns: what moving each of its numbers by 1 does to the rows of the metric, shape (rows, numbers).
        prior: the metric's, shape (numbers,).
        pulled: prior times the long recipe's numbers, shape (numbers,).
    """

    filters: tuple[str | None, ...]
    columns: Floats
    prior: Floats
    pulled: Floats


class _Fit:
    """Weighted least squares: numbers for parts, as near to the long recipe's as the metric can tell."""

    def __init__(self, sites: Sequence[Site], metric: Metric) -> None:
        self._sites, self._metric = sites, metric
        self._values = np.array([cell.value for site in sites for cell in site.cells])
        self._target = metric.rows @ self._values
        self._constant = float(self._target @ self._target + (metric.prior * self._values**2).sum())
        self._first = [0, *itertools.accumulate(len(site.cells) for site in sites)]

    def part(self, number: int, words: Words, chosen: Sequence[str]) -> _Part:
        """A site's, with some of its words as filters."""
        left = set(range(len(self._sites[number].cells)))
        groups: list[tuple[str | None, list[int]]] = []
        for word in sorted(chosen, key=lambda word: (len(words[word]), word)):
            if own := sorted(left & words[word]):
                groups.append((word, own))
                left -= words[word]
        if left:
            groups.append((None, sorted(left)))
        places = [[self._first[number] + index for index in own] for _, own in groups]
        rows, prior = self._metric.rows, self._metric.prior
        return _Part(
            tuple(word for word, _ in groups),
            np.stack([rows[:, own].sum(axis=1) for own in places], axis=1),
            np.array([prior[own].sum() for own in places]),
            np.array([(prior[own] * self._values[own]).sum() for own in places]),
        )

    def loss(self, parts: Sequence[_Part]) -> float:
        """The least of any numbers."""
        curvature, pull = self._normal(parts)
        return max(0.0, float(self._constant - pull @ np.linalg.solve(curvature, pull)))

    def form(self, parts: Sequence[_Part]) -> ShortForm:
        """With its numbers, in the ranges of their sites and rounded."""
        curvature, pull = self._normal(parts)
        counts = [len(part.filters) for part in parts]
        low, high = (np.repeat([getattr(site, name) for site in self._sites], counts) for name in ("low", "high"))
        values = _least_within(curvature, pull, low, high)
        least = self._loss_of(curvature, pull, values)
        most = max((1 + WORTH_A_DECIMAL) * least, least + UNSEEN * self._constant)
        for decimals in DECIMALS:
            rounded = np.clip(np.round(values, decimals) + 0.0, low, high)  # no minus zero
            loss = self._loss_of(curvature, pull, rounded)
            if loss <= most:
                break
        ends = list(itertools.accumulate(counts))
        own = [tuple(map(float, rounded[end - count : end])) for count, end in zip(counts, ends, strict=True)]
        return ShortForm(tuple(part.filters for part in parts), tuple(own), loss)

    def _loss_of(self, curvature: Floats, pull: Floats, values: Floats) -> float:
        return max(0.0, float(self._constant - 2 * pull @ values + values @ curvature @ values))

    def _normal(self, parts: Sequence[_Part]) -> tuple[Floats, Floats]:
        columns = np.concatenate([part.columns for part in parts], axis=1)
        prior = np.concatenate([part.prior for part in parts])
        pulled = np.concatenate([part.pulled for part in parts])
        return columns.T @ columns + np.diag(prior), columns.T @ self._target + pulled


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


def _words(site: Site) -> Words:
    """What of the tensors' names can be a filter: of words for the same tensors the shortest."""
    tensors = [cell.tensor for cell in site.cells]
    found: dict[frozenset[int], str] = {}
    for word in sorted({word for name in tensors for word in _parts_of(name)}, key=lambda word: (len(word), word)):
        own = frozenset(index for index, name in enumerate(tensors) if word in name)
        if len(own) < len(tensors):
            found.setdefault(own, word)
    most = sorted(found.items(), key=lambda item: (-len(item[0]), item[1]))[:MOST_WORDS]
    return {word: own for own, word in most}


def _parts_of(name: str) -> Iterator[str]:
    """ "layers.1.mlp.weight" → "layers", "layers.1.", "1.mlp", "mlp" and so on: with no other layer's number in it."""
    parts = name.removesuffix(".weight").removesuffix(".bias").split(".")
    for start, end in itertools.combinations(range(len(parts) + 1), 2):
        if not (start + 1 == end and parts[start].isdigit()):
            word = ".".join(parts[start:end])
            word = f".{word}" if parts[start].isdigit() else word
            yield f"{word}." if parts[end - 1].isdigit() else word
