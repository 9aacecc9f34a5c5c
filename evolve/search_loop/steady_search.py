"""The loop in steady state: a worker is given the next candidate as soon as it is free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from evolve.config.strategy import BudgetConfig
from evolve.evaluation.request import Request
from evolve.optimizers import Optimizer
from evolve.search_loop.batch_scoring import BatchScoring
from evolve.search_loop.ending import Course, may_all_be_lost, refuse_hopeless, refuse_lost
from evolve.search_loop.proposals import new_candidate, refuse_other_points
from evolve.search_loop.steady_state import SteadyState, lag_of
from evolve.space.space import Space
from evolve.trials.events import StopReason
from evolve.trials.trial import State, Trial


@dataclass
class SteadySearch:
    """Every candidate is a batch of its own. A run goes on with the lag it was begun with, whatever its workers."""

    space: Space
    scoring: BatchScoring
    budget: BudgetConfig
    _course: Course = field(init=False)

    def run(self, optimizer: Optimizer) -> StopReason:
        """Until the search ends; what the journal holds is replayed first."""
        scoring, ledger = self.scoring, self.scoring.ledger
        journal, evaluator = scoring.journal, scoring.evaluator
        lag = int(journal.noted("lag", lag_of(evaluator.workers)))
        journal.note("lag", lag)
        self._course = Course(self.budget, exhausts=optimizer.exhausts)
        self._course.follow(ledger.opening)
        steady, reasons = SteadyState(optimizer, lag), list[StopReason]()
        for evaluation in evaluator.evaluate(self._requests(steady, lag, reasons)):
            scoring.recorder.record(evaluation)
            refuse_hopeless(ledger)
            refuse_lost(ledger, ledger.asked_count, lag, journal)
        if reasons[0] in (StopReason.EVALUATIONS, StopReason.ITEMS):  # what was in flight may have reached more
            return self._course.follow(self._asked(steady.told, ledger.asked_count)) or reasons[0]
        return reasons[0]

    def _requests(self, steady: SteadyState, lag: int, reasons: list[StopReason]) -> Iterator[Request | None]:
        """What a free worker is given, None where it must wait for a result. Why it ends is added to `reasons`."""
        scoring, ledger, limit = self.scoring, self.scoring.ledger, self.budget.evaluations
        number, opened = 0, len(ledger.opening)
        while not reasons:
            if steady.due is not None:
                (trial,) = self._asked(steady.due, steady.due + 1)
                if trial.state is State.RUNNING or may_all_be_lost(ledger, number, lag):
                    yield None
                    continue
                if reason := self._course.follow([trial]):
                    reasons.append(reason)
                steady.tell(trial.result)
            elif limit is not None and opened + number >= limit:
                reasons.append(StopReason.EVALUATIONS)
            elif (vector := steady.ask()) is None:
                reasons.append(StopReason.EXHAUSTED)
            else:
                recorded = self._asked(number, number + 1)
                refuse_other_points(number, recorded, [vector])
                running = not recorded or recorded[0].state is State.RUNNING
                if running and (stop := scoring.clock.interrupted()):
                    reasons.append(stop)
                    return
                trial = (
                    recorded[0]
                    if recorded
                    else new_candidate(self.space, ledger, vector, batch=number, before=opened + number)
                )
                untold = [*self._asked(steady.told, number), trial]
                if not recorded and scoring.room(untold) < len(untold):
                    reasons.append(StopReason.ITEMS)
                    return
                ledger.begin([trial])
                number += 1
                while running and ledger.is_being_scored(trial):
                    yield None
                known = ledger.known(trial.recipe, before=trial.number)
                if running and known is not None:
                    scoring.recorder.record(known.repeated(trial.number))
                elif running:
                    yield scoring.request(trial)

    def _asked(self, first: int, end: int) -> list[Trial]:
        """The candidates of these places in the order of asking, as far as they are begun."""
        found = (self.scoring.ledger.asked(place) for place in range(first, end))
        return [trial for trial in found if trial is not None]
