"""Shorter forms of a recipe: which tensors share numbers, chosen by what the long recipe loses by it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from evolve.problems import Place
from evolve.simplify.least_squares import Chosen, Fit, Part, Words
from evolve.simplify.metric import Metric
from evolve.simplify.short_form import ShortForm
from evolve.simplify.sites import Site

MOST_WORDS = 400  # that are tried as filters of a parameter; those of more tensors first
MOST_KNOTS = 4  # of a gradient over the layers
ONE: Chosen = {None: 1}
NOTHING: Chosen = {}

Move = Mapping[int, tuple[Chosen, Part]]
"""Site → what it says then."""


def short_forms(sites: Sequence[Site], metric: Metric, most: int) -> Iterator[ShortForm]:
    """For each number of numbers the form that loses least, of those that are tried: filters, gradients, fewer models.

    Args:
        sites: their numbers in the order of the metric.
        metric: what it costs to move numbers.
        most: numbers at most.
    """
    every_model = [replace(site, model=None) for site in sites]
    # What is best by one number more need not be by several, so there are several ways there.
    ways = [_grown(own, metric, most, knots) for own in (sites, every_model) for knots in (1, MOST_KNOTS)]
    in_order = heapq.merge(*ways, key=lambda form: form.numbers)
    for _, forms in itertools.groupby(in_order, key=lambda form: form.numbers):
        yield min(forms, key=lambda form: form.loss)


def _grown(sites: Sequence[Site], metric: Metric, most: int, most_knots: int) -> Iterator[ShortForm]:
    """Forms of as few numbers as there can be, then one more at a time: the one that leaves least to be lost.

    It is the number of one more filter, one more knot of a gradient, the first of what was left to its default, or the
    weight of a model that was left out. The numbers of each form are those that lose least, as round as that allows.
    """
    choice = _Choice(sites, metric, most_knots)
    choice.take_models()
    while choice.count <= most:
        yield choice.form()
        if not choice.grow(range(len(sites))):
            return


class _Choice:
    """What each site says so far, and what it may say beside."""

    def __init__(self, sites: Sequence[Site], metric: Metric, most_knots: int) -> None:
        self._sites, self._fit, self._most_knots = sites, Fit(sites, metric), most_knots
        self._words = [_words(site) for site in sites]
        self._chosen: list[Chosen] = [
            NOTHING if site.model is not None or site.default is not None else ONE for site in sites
        ]
        # Of which weight it depends whether a site's model takes part at all.
        self._owners = [
            next((number for number, one in enumerate(sites) if one.model and _is_of(site, one.model)), None)
            for site in sites
        ]
        self._parts = [
            part for number, own in enumerate(self._chosen) if (part := self._part(number, own, self._out)) is not None
        ]
        self._moves = [list(self._moves_of(number)) for number in range(len(sites))]

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(part.count for part in self._parts)

    def form(self) -> ShortForm:
        """With the best numbers."""
        return self._fit.form(self._parts)

    def take_models(self) -> None:
        """As many models as there have to be."""
        lists: dict[Place, list[int]] = {}
        for number, site in enumerate(self._sites):
            if site.model is not None:
                lists.setdefault(site.model[:-1], []).append(number)
        for beside in lists.values():
            for _ in range(self._sites[beside[0]].fewest):
                self.grow([number for number in beside if number in self._out])

    def grow(self, among: Iterable[int]) -> bool:
        """By the number that leaves least to be lost; False where there is no other.

        Args:
            among: the sites that it may be of.
        """
        best: tuple[float, Move] | None = None
        for move in itertools.chain.from_iterable(self._moves[number] for number in among):
            after = [move[number][1] if number in move else part for number, part in enumerate(self._parts)]
            if sum(part.count for part in after) != self.count + 1:
                continue  # it takes all tensors that another filter has
            loss = self._fit.loss(after)
            if best is None or loss < best[0]:
                best = loss, move
        if best is None:
            return False
        for number, (chosen, part) in best[1].items():
            self._chosen[number], self._parts[number] = chosen, part
        for number in best[1]:
            self._moves[number] = list(self._moves_of(number))
        return True

    @property
    def _out(self) -> set[int]:
        """The weights whose models are left out."""
        return {number for number, site in enumerate(self._sites) if site.model and not self._chosen[number]}

    def _moves_of(self, number: int) -> Iterator[Move]:
        """What a site may say with one number more, and what others say then."""
        owner, chosen, out = self._owners[number], self._chosen[number], self._out
        if owner == number and owner in out:
            beside = {place: NOTHING for place, one in enumerate(self._owners) if one == number}
            yield from self._move({**beside, number: ONE}, out - {number})
        elif owner not in out:
            for longer in self._longer(number, chosen):
                yield from self._move({number: longer}, out)

    def _longer(self, number: int, chosen: Chosen) -> Iterator[Chosen]:
        if not chosen:
            yield ONE
            return
        yield from ({**chosen, word: 1} for word in self._words[number] if word not in chosen)
        yield from ({**chosen, word: knots + 1} for word, knots in chosen.items() if knots < self._most_knots)

    def _move(self, said: Mapping[int, Chosen], out: Collection[int]) -> Iterator[Move]:
        parts = {number: self._part(number, chosen, out) for number, chosen in said.items()}
        found = {number: (said[number], part) for number, part in parts.items() if part is not None}
        if len(found) == len(said):
            yield found

    def _part(self, number: int, chosen: Chosen, out: Collection[int]) -> Part | None:
        site, owner = self._sites[number], self._owners[number]
        unsaid = 0.0 if site.default is None else site.default
        idle = owner in out and owner != number  # of a model that is not there
        return self._fit.part(number, self._words[number], chosen, None if idle else unsaid)


def _is_of(site: Site, model: Place) -> bool:
    return site.place[: len(model)] == model


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
