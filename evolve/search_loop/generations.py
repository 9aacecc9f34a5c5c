"""The loop in generations: ask for a batch, score it, tell it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from evolve.config.strategy import BudgetConfig
from evolve.optimizers import Optimizer
from evolve.search_loop.batch_scoring import BatchScoring
from evolve.search_loop.ending import Course, refuse_hopeless, refuse_lost
from evolve.search_loop.proposals import new_candidate, refuse_other_points
from evolve.space.space import Space
from evolve.trials.events import StopReason


@dataclass
class Generations:
    """Asks and tells whole batches, so that what is found depends on no worker's speed."""

    space: Space
    scoring: BatchScoring
    budget: BudgetConfig

    def run(self, optimizer: Optimizer) -> StopReason:
        """Until the search ends; what the journal holds is replayed first."""
        ledger, course = self.scoring.ledger, Course(self.budget, exhausts=optimizer.exhausts)
        before = len(ledger.opening)
        reason = course.follow(ledger.opening)  # what was scored before may reach the target already
        number = 0
        while reason is None:
            vectors = optimizer.ask()
            if not vectors:
                return StopReason.EXHAUSTED
            reason, whole = self._score(number, before, vectors, course)
            refuse_hopeless(ledger)
            if whole:  # a batch that was cut short is told when it is completed
                asked = before - len(ledger.opening) + len(vectors)
                refuse_lost(ledger, asked, len(vectors), self.scoring.journal)
                optimizer.tell(vectors, [trial.result for trial in ledger.batch(number)])
            before += len(ledger.batch(number))
            number += 1
        return reason

    def _score(
        self, number: int, before: int, vectors: list[tuple[float, ...]], course: Course
    ) -> tuple[StopReason | None, bool]:
        """Why the search ends with this batch, if it does, and whether all of the batch is scored."""
        scoring, ledger = self.scoring, self.scoring.ledger
        recorded = ledger.batch(number)
        refuse_other_points(number, recorded, vectors)
        begun = before + len(recorded)
        new = [
            new_candidate(self.space, ledger, vector, batch=number, before=begun, offset=offset)
            for offset, vector in enumerate(vectors[len(recorded) :])
        ]
        batch = [*recorded, *new]
        room, cut_short = len(batch), None
        if self.budget.evaluations is not None and self.budget.evaluations - before < room:
            room, cut_short = self.budget.evaluations - before, StopReason.EVALUATIONS
        if len(recorded) < room and (affordable := max(scoring.room(batch), len(recorded))) < room:
            room, cut_short = affordable, StopReason.ITEMS
        if room <= 0:
            return cut_short, False
        if room > len(recorded) and (stop := scoring.clock.interrupted()):
            return stop, False
        whole = room == len(batch)
        if scoring.races is not None and len(recorded) < room < len(batch):
            print(f"no race for the last {room} candidates: the budget ends within their batch", file=sys.stderr)
        if stop := (scoring.race(batch, course.best) if whole else scoring.run(batch[:room])):
            return stop, False
        return course.follow(ledger.batch(number)) or cut_short, len(ledger.batch(number)) == len(vectors)
