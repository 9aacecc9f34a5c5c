"""All trials of a run, most of them read from the journal when needed, so that memory does not grow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import overload

from evolve.trials.journal import Journal
from evolve.trials.trial import State, Trial

KEPT = 1000
"""Finished candidates in memory: the latest that were written or asked for, more than a generation usually has."""


class RunTrials(Sequence[Trial]):
    """Trials by number. Those that are at work, the references and the latest are held; others the journal reads.

    Args:
        journal: where all of them are.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._count = 0
        self._held: dict[int, Trial] = {}
        self._latest: OrderedDict[int, Trial] = OrderedDict()

    def put(self, trial: Trial) -> None:
        """Add the next trial, or put one in the place of what it was; the journal has it already."""
        self._count = max(self._count, trial.number + 1)
        if trial.is_reference or trial.state is State.RUNNING:
            self._held[trial.number] = trial
        else:
            self._held.pop(trial.number, None)
            self._remember(trial)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Trial: ...
    @overload
    def __getitem__(self, place: slice) -> list[Trial]: ...
    def __getitem__(self, place: int | slice) -> Trial | list[Trial]:
        if isinstance(place, slice):
            return [self[number] for number in range(self._count)[place]]
        number = range(self._count)[place]
        if number in self._held:
            return self._held[number]
        return self._remember(self._latest.get(number) or self._journal.trial(number))

    def __iter__(self) -> Iterator[Trial]:
        if self._count == len(self._held) + len(self._latest):
            yield from (self[number] for number in range(self._count))
            return
        for trial in self._journal:
            yield self._held.get(trial.number, trial)

    def _remember(self, trial: Trial) -> Trial:
        self._latest[trial.number] = trial
        self._latest.move_to_end(trial.number)
        if len(self._latest) > KEPT:
            self._latest.popitem(last=False)
        return trial
