"""Batches scored by races: rounds of requests to an ordinary evaluator, and what comes of them.

An optimizer that selects the best half of a batch needs to know which these are, and no more. Whoever is settled by
some of the items is stopped there. Its other items stay unknown; its fitness is an unbiased estimate. A candidate that
would be the best so far is scored on everything, so that whatever is called best, is chosen or ends a search saw all.

Everything follows from the journal: a race that was cut off is run again from the rounds that were kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from evolve.evaluation.request import Request
from evolve.racing.race import Race, Side, resolution
from evolve.search_loop.item_fitness import Floats, ItemFitness
from evolve.search_loop.ledger import Ledger, identity
from evolve.trials.journal import Journal
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, State, Stopped, Trial

RECENT = 5  # batches whose scores predict those of the next
ENOUGH = 6  # candidates scored on everything; with fewer of them, references say how far models differ

Evaluate = Callable[[Iterable[Request]], Iterator[Evaluation]]
"""Scores requests; takes no more of them once the search is to stop."""


@dataclass
class Races:
    """Scores batches for a search.

    Attributes:
        journal: where rounds are kept.
        items: task -> ids of all search items.
        make_fitness: how items count, known once the references are scored.
        confidence: of every candidate that is stopped.
        tolerance: in units of the objective; None: the resolution of all items.
        seed: of the orders of items.
    """

    journal: Journal
    items: Mapping[str, tuple[int, ...]]
    make_fitness: Callable[[], ItemFitness]
    confidence: float
    tolerance: float | None
    seed: int
    _kept: dict[int, Evaluation] | None = field(default=None, init=False)

    def obstacle(self, references: Sequence[Trial]) -> str | None:
        """Why nothing can be said early, by what the references scored; None where it can."""
        fitness = self.make_fitness()
        for trial in references:
            if not _measured(trial):
                continue
            values = fitness.values(trial.measured)
            wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
            if len(wrong):
                name, item = fitness.items[wrong[0]]
                found = trial.measured.scores.get(name, {}).get(item)
                what = "has no score" if found is None else f"scores {found:g}, outside of [0, 1]"
                return f"item {item} of {name} {what} for {trial.label}"
        return None

    def run(
        self,
        batch: Sequence[Trial],
        ledger: Ledger,
        best: Trial | None,
        scored: Mapping[int, Evaluation],
        evaluate: Evaluate,
    ) -> Iterator[Evaluation]:
        """One evaluation for each trial of a batch, or none at all when the search is to stop before the race is over.

        Args:
            batch: its trials, those included that were recorded before a kill.
            ledger: has the references, and the batches before it.
            best: candidate before it.
            scored: number -> complete evaluation, of trials whose recipe was scored before.
            evaluate: scores requests.
        """
        if self._kept is None:
            kept = self.journal.kept(Stage.RACE)
            self._kept = {number: evaluation for number, evaluation in kept.items() if evaluation.failure is None}
        found = {trial.number: trial.evaluation for trial in batch if trial.evaluation is not None}
        found = {**{trial.number: self._kept[trial.number] for trial in batch if trial.number in self._kept}, **found}
        return _BatchRace(self, batch, {**found, **scored}, evaluate).run(ledger, best)


class _BatchRace:
    """One batch."""

    def __init__(self, races: Races, batch: Sequence[Trial], found: dict[int, Evaluation], evaluate: Evaluate) -> None:
        self._races, self._batch, self._found, self._evaluate = races, batch, found, evaluate
        twins: dict[bytes, list[Trial]] = {}
        self._twins = []  # of each trial those of the same recipe, itself the last of them
        for trial in batch:
            alike = twins.setdefault(identity(trial.recipe), [])
            alike.append(trial)
            self._twins.append(tuple(alike))
        self._fitness = races.make_fitness()
        self._all = frozenset((name, item) for name, ids in races.items.items() for item in ids)

    def run(self, ledger: Ledger, best: Trial | None) -> Iterator[Evaluation]:
        race, fitness = self._race(ledger), self._fitness
        outsiders: set[int] = set()  # failed, or without a score on some item
        while not race.finished:
            items = race.next_items
            if not self._fill(race.racing, [fitness.items[place] for place in items]):
                return
            scores = {int(index): self._values(index)[items] for index in race.racing}
            for index, values in scores.items():
                if not ((values >= 0) & (values <= 1)).all():
                    race.withdraw(index)
                    outsiders.add(index)
            if not race.finished:
                race.observe(np.array([scores[int(index)] for index in race.racing]))
        estimates = np.array([fitness.fitness(mean) for mean in race.estimates()])
        whole = {*np.flatnonzero(race.seen == len(race.order)).tolist(), *outsiders}
        # Of the candidate with the highest objective so far.
        bar = best.fitness if best is not None and isinstance(best.fitness, float) else -math.inf
        for index in np.argsort(-estimates, kind="stable").tolist():
            if index in whole or estimates[index] > bar:
                if not self._fill(np.array([index]), self._all):
                    return
                if index not in outsiders:
                    estimates[index] = fitness.fitness(float(self._values(index) @ fitness.shares))
                    bar = max(bar, estimates[index])
                whole.add(index)
        still_open = (race.side == Side.UNDECIDED) & np.isfinite(estimates)
        highest = np.max(estimates, where=still_open, initial=-math.inf)
        for index, trial in enumerate(self._batch):
            scored_as = self._scored_as(index).number
            evaluation = replace(self._found[scored_as], number=trial.number)
            if trial.number != scored_as:
                evaluation = evaluation.repeated(trial.number)
            if index not in whole and not self._complete(evaluation):
                above = race.side[index] == Side.ABOVE
                # Who is above the cut stands above those whose side stayed open, whatever its estimate.
                estimate = max(estimates[index], highest) if above else estimates[index]
                evaluation = replace(
                    evaluation, stopped=Stopped.ABOVE if above else Stopped.BELOW, estimate=float(estimate)
                )
            yield evaluation

    def _race(self, ledger: Ledger) -> Race:
        batch = self._batch[0].batch
        fitness, races = self._fitness, self._races
        references = [fitness.values(trial.measured) for trial in ledger.references if _measured(trial)]
        recent = [
            fitness.values(trial.measured)
            for earlier in range(max(batch - RECENT, -1), batch)
            for trial in ledger.batch(earlier)
            if _measured(trial)
        ]
        tolerance = races.tolerance
        if tolerance is None:
            apart = _whole(recent) if len(_whole(recent)) >= ENOUGH else _whole(references)
            tolerance = 0.0 if len(apart) < 2 else fitness.unit * resolution(fitness.shares, apart, races.confidence)
        return Race(
            fitness.shares,
            fitness.groups,
            np.clip(references + recent, 0.0, 1.0),
            candidates=len(self._batch),
            parents=len(self._batch) // 2,
            confidence=races.confidence,
            tolerance=tolerance / fitness.unit,
            seed=(races.seed, batch),
        )

    def _values(self, index: int) -> Floats:
        """NaN of a failure, and where an item was not scored."""
        return self._fitness.values(self._found[self._scored_as(index).number])

    def _scored_as(self, index: int) -> Trial:
        """Who has the same recipe is scored once; where the machine failed that one, the next is tried itself."""
        *earlier, trial = self._twins[index]
        return next((twin for twin in earlier if not self._so_far(twin.number).unforeseen), trial)

    def _so_far(self, number: int) -> Evaluation:
        return self._found.get(number, Evaluation(number))

    def _complete(self, evaluation: Evaluation) -> bool:
        return evaluation.failure is not None or self._all <= evaluation.asked_items

    def _fill(self, indices: NDArray[np.intp], items: Iterable[tuple[str, int]]) -> bool:
        """Have candidates scored on items, those aside that they were scored on; False when the search is to stop."""
        wanted = set(items)
        while requests := self._requests(indices, wanted):
            for evaluation in self._evaluate(list(requests.values())):
                del requests[evaluation.number]
                found = self._found[evaluation.number] = self._so_far(evaluation.number).extended(evaluation)
                self._races.journal.keep(Stage.RACE, found)
            if requests:
                return False
        return True

    def _requests(self, indices: NDArray[np.intp], items: set[tuple[str, int]]) -> dict[int, Request]:
        """Number -> what candidates are still to be asked; nothing of those that failed."""
        requests = {}
        for trial in (self._scored_as(index) for index in indices):
            found = self._so_far(trial.number)
            if found.failure is None and (missing := items - found.asked_items):
                ids = {
                    name: tuple(sorted(item for task, item in missing if task == name)) for name in self._races.items
                }
                asked = {name: some for name, some in ids.items() if some}
                requests[trial.number] = Request(trial.number, trial.recipe, asked, label=trial.label)
        return requests


def _measured(trial: Trial) -> bool:
    return trial.state in (State.COMPLETE, State.STOPPED)


def _whole(rows: Sequence[Floats]) -> Floats:
    return np.array([row for row in rows if np.isfinite(row).all()])
