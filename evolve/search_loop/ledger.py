"""All trials of a run, indexed by number, batch and recipe, with running totals."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolve.search_loop.retries import to_retry
from evolve.search_loop.run_trials import RunTrials
from evolve.space.space import Space
from evolve.trials.journal import Journal
from evolve.trials.spending import Purpose, purpose_of
from evolve.trials.trial import OPENING, Evaluation, Kind, State, Trial, best_of


class Ledger:
    """Trials by number, by batch and by recipe, with what is counted of them kept up to date.

    Args:
        journal: whose trials these are; begun and finished ones are written there first.
        space: says how its genes are distributed.
        on_change: is called before either.

    Attributes:
        trials: by number.
        best: over everything, references included; the earliest of equals.
        best_parent: the same of the parents.
        candidates_done: scored, or failed.
        candidates_failed: failed alone.
        latest_failure: why the latest of these failed.
        spent: item evaluations of references and candidates.
    """

    def __init__(self, journal: Journal, space: Space, on_change: Callable[[], None] = lambda: None) -> None:
        self._journal = journal
        self._on_change = on_change
        self._distributions = {axis.name: axis.gene.distribution() for axis in space.coordinates}
        self.trials = RunTrials(journal)
        self.best: Trial | None = None
        self.best_parent: Trial | None = None
        self._best_candidate: Trial | None = None
        self.candidates_done = self.candidates_failed = 0
        self.latest_failure = ""
        self.spent = {Purpose.REFERENCES: 0, Purpose.CANDIDATES: 0}
        self._uniform: int | None = None
        self._references: list[int] = []
        self._batches: defaultdict[int, list[int]] = defaultdict(list)  # of candidates
        self._asked: list[int] = []  # candidates that the optimizer proposed
        self._running: set[int] = set()  # candidates without a result
        self._scored: dict[bytes, int] = {}  # recipe -> the trial that was scored first with it
        self._references_by_recipe: dict[bytes, int] = {}  # of the space, which makes the same model
        again = set(to_retry([trial.outline() for trial in journal], journal.noted("lag")))
        for trial in journal:
            self._add(replace(trial, evaluation=None) if trial.number in again else trial)

    @property
    def references(self) -> list[Trial]:
        """Parents and the uniform merge."""
        return [self.trials[number] for number in self._references]

    @property
    def uniform(self) -> Trial | None:
        """The uniform merge, where there is one."""
        return None if self._uniform is None else self.trials[self._uniform]

    @property
    def has_candidates(self) -> bool:
        """Whether any was begun."""
        return bool(self._batches)

    @property
    def asked_count(self) -> int:
        """How many candidates the optimizer proposed."""
        return len(self._asked)

    def candidates_since_best(self) -> int:
        """How many candidates were begun after the best of them."""
        # Whatever comes after a candidate is another one: references are begun first.
        return 0 if self._best_candidate is None else len(self.trials) - 1 - self._best_candidate.number

    @property
    def opening(self) -> list[Trial]:
        """The candidates that were scored before the optimizer was asked."""
        return self.batch(OPENING)

    def batch(self, number: int) -> list[Trial]:
        """The candidates of a batch, in order of asking."""
        return [self.trials[member] for member in self._batches.get(number, ())]

    def asked(self, place: int) -> Trial | None:
        """The candidate that the optimizer proposed after `place` others; None where it is not begun."""
        return self.trials[self._asked[place]] if place < len(self._asked) else None

    def begin(self, batch: Sequence[Trial]) -> list[Trial]:
        """The trials of the batch as they are in the journal, where those that are new are written down now."""
        fresh = [trial for trial in batch if trial.number >= len(self.trials)]
        if fresh:
            self._on_change()
        self._journal.begin(fresh, self._distributions)
        for trial in fresh:
            self._add(trial)
        return [self.trials[trial.number] for trial in batch]

    def finish(self, trial: Trial) -> None:
        """Write down a trial that was running, with its result."""
        self._on_change()
        self._journal.finish(trial)
        self.trials.put(trial)
        self._running.discard(trial.number)
        self._count(trial)

    def equate(self, recipe: Mapping[str, Any], reference: Trial) -> None:
        """Have a recipe score what a reference does, whose model it makes."""
        self._references_by_recipe[identity(recipe)] = reference.number

    def known(self, recipe: Mapping[str, Any], before: int) -> Evaluation | None:
        """What a recipe scored as a trial of a lower number than this one, or the reference that it makes."""
        key = identity(recipe)
        number = self._scored.get(key)
        if number is None or number >= before:
            number = self._references_by_recipe.get(key)
        if number is None or number >= before or self.trials[number].state not in (State.COMPLETE, State.INFEASIBLE):
            return None
        return self.trials[number].measured

    def is_scored(self, trial: Trial) -> bool:
        """Whether a trial, which may not be begun, has a result."""
        return trial.number < len(self.trials) and self.trials[trial.number].state is not State.RUNNING

    def is_being_scored(self, trial: Trial) -> bool:
        """Whether an earlier trial of the same recipe is, so that there will be nothing to score."""
        earlier = (self.trials[number] for number in self._running if number < trial.number)
        return any(other.recipe == trial.recipe for other in earlier)

    def _add(self, trial: Trial) -> None:
        self.trials.put(trial)
        if trial.kind is Kind.CANDIDATE:
            self._batches[trial.batch].append(trial.number)
            if trial.is_asked:
                self._asked.append(trial.number)
        else:
            self._references.append(trial.number)
            if trial.kind is Kind.UNIFORM:
                self._uniform = trial.number
        if trial.state is not State.RUNNING:
            self._count(trial)
        elif trial.kind is Kind.CANDIDATE:
            self._running.add(trial.number)

    def _count(self, trial: Trial) -> None:
        self.spent[purpose_of(trial)] += trial.measured.new_items
        if trial.kind is Kind.CANDIDATE:
            self.candidates_done += 1
            if trial.measured.failure is not None:
                self.candidates_failed += 1
                self.latest_failure = trial.measured.failure
        self.best = best_of((self.best, trial))
        if trial.kind is Kind.CANDIDATE:
            self._best_candidate = best_of((self._best_candidate, trial))
        if trial.kind is Kind.PARENT:
            self.best_parent = best_of((self.best_parent, trial))
        # What is scored needs no scoring again, whatever trial comes to the same recipe.
        if trial.state in (State.COMPLETE, State.INFEASIBLE):
            self._scored.setdefault(identity(trial.recipe), trial.number)


def identity(recipe: Mapping[str, Any]) -> bytes:
    """Of a recipe, to the letter."""
    return hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=16).digest()
