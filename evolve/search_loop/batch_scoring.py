"""Batches of trials: begun in the journal, scored by an evaluator or a race, recorded as they finish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import Request
from evolve.search_loop.ending import Clock
from evolve.search_loop.item_budget import ItemBudget
from evolve.search_loop.ledger import Ledger, identity
from evolve.search_loop.looks import Looks
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.races import Races
from evolve.search_loop.recorder import Recorder
from evolve.search_loop.replay import Replay
from evolve.trials.events import StopReason
from evolve.trials.journal import Journal
from evolve.trials.spending import Purpose, Spending, of_the_search, opening_spending
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, State, Trial


@dataclass
class BatchScoring:
    """Scores trials, none of them twice.

    Attributes:
        races: score whole batches, where not every candidate needs all items.
    """

    journal: Journal
    ledger: Ledger
    evaluator: Evaluator
    objective_function: ObjectiveFunction
    looks: Looks
    replay: Replay
    item_budget: ItemBudget
    clock: Clock
    recorder: Recorder
    races: Races | None = None

    def run(self, batch: Sequence[Trial]) -> StopReason | None:
        """Begin what is not begun, score what is not scored; return why it broke off, if it did."""
        left = waiting = self._begin(batch)
        while left := self._without_known(left):
            asked = _first_of_each_recipe(left)
            for evaluation in self.evaluator.evaluate(self._requests(asked)):
                self.recorder.record(evaluation)
            if not all(map(self.ledger.is_scored, asked)):
                break
            left = [trial for trial in left if not self.ledger.is_scored(trial)]
        return self._end(waiting)

    def race(self, batch: Sequence[Trial], best: Trial | None) -> StopReason | None:
        """The same by a race, where there are any.

        Args:
            batch: all that an optimizer asked for at once: part of it has no best half.
            best: candidate before it.
        """
        if self.races is None:
            return self.run(batch)
        waiting = self._begin(batch)
        if waiting:
            members, known = [self.ledger.trials[trial.number] for trial in batch], self._known(waiting)
            for evaluation in self.races.run(members, self.ledger, best, known, self._evaluate_until_stopped):
                if self.ledger.trials[evaluation.number].state is State.RUNNING:
                    self.recorder.record(evaluation)
        return self._end(waiting)

    def run_before_calibration(self, batch: Sequence[Trial]) -> StopReason | None:
        """Score the references, and record them once all are scored, since the parents say what is 0 and 1.

        What is scored waits in the journal's notes, so that nothing is scored twice.
        """
        trials = self.ledger.begin(batch)
        kept = self.journal.kept(Stage.REFERENCES)
        found = {number: evaluation for number, evaluation in kept.items() if evaluation.failure is None}
        found |= {trial.number: trial.evaluation for trial in trials if trial.evaluation is not None}
        for evaluation in self.evaluator.evaluate(self._requests(t for t in trials if t.number not in found)):
            self.journal.keep(Stage.REFERENCES, evaluation)
            found[evaluation.number] = evaluation
        if len(found) < len(trials):
            return self.clock.interrupted()
        if any(evaluation.failure is None for evaluation in found.values()):
            parents = [trial for trial in trials if trial.kind is Kind.PARENT]
            self.objective_function.calibrate({trial.label: found[trial.number] for trial in parents})
        for trial in trials:
            if trial.state is State.RUNNING:
                self.recorder.record(found[trial.number])
        return None

    def request(self, trial: Trial) -> Request:
        """What is left to score of a trial, which begins now."""
        self.journal.start(trial.number)
        items = self.looks.unseen(trial.recipe)
        return Request(trial.number, trial.recipe, items, keeps_answers=trial.is_reference, label=trial.label)

    def spent(self) -> Spending:
        """Item evaluations recorded so far, those of earlier runs included, without held-out items."""
        return {
            **dict.fromkeys(Purpose, 0),
            **opening_spending(self.replay.looks, self.replay.steps),
            **self.ledger.spent,
        }

    def room(self, batch: Sequence[Trial]) -> int:
        """How many trials, the first ones of a batch, the item budget pays for.

        Every one is reckoned with the items that it takes at most, scored or not. So the answer depends neither on
        which of them are done nor on what came of them, and is the same again when the run is resumed.
        """
        if self.item_budget.limit is None or not batch:
            return len(batch)
        first, recipes, most = batch[0].number, set[bytes](), []
        for trial in batch:
            key = identity(trial.recipe)
            is_free = key in recipes or self.ledger.known(trial.recipe, first) is not None
            most.append(0 if is_free else sum(map(len, self.looks.unseen(trial.recipe).values())))
            recipes.add(key)
        recorded = [self.ledger.trials[trial.number] for trial in batch if self.ledger.is_scored(trial)]
        others = of_the_search(self.spent()) - sum(trial.measured.new_items for trial in recorded)
        return self.item_budget.room(most, others)

    def _begin(self, batch: Sequence[Trial]) -> list[Trial]:
        """The trials without a result."""
        return [trial for trial in self.ledger.begin(batch) if trial.state is State.RUNNING]

    def _known(self, trials: Sequence[Trial]) -> dict[int, Evaluation]:
        """Number -> what was scored before with the same recipe, or as the reference that it makes."""
        known = {trial.number: self.ledger.known(trial.recipe, before=trial.number) for trial in trials}
        return {number: found.repeated(number) for number, found in known.items() if found is not None}

    def _without_known(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that are to be scored; the others are recorded."""
        known = self._known(trials)
        for evaluation in known.values():
            self.recorder.record(evaluation)
        return [trial for trial in trials if trial.number not in known]

    def _end(self, waiting: Sequence[Trial]) -> StopReason | None:
        self.clock.note()
        return None if all(map(self.ledger.is_scored, waiting)) else self.clock.interrupted()

    def _requests(self, trials: Iterable[Trial]) -> Iterator[Request]:
        """Handed out one by one, so that a stop takes effect at once."""
        for trial in trials:
            if self.clock.interrupted():
                return
            yield self.request(trial)

    def _evaluate_until_stopped(self, requests: Iterable[Request]) -> Iterator[Evaluation]:
        return self.evaluator.evaluate(self._started(requests))

    def _started(self, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            if self.clock.interrupted():
                return
            self.journal.start(request.number)
            yield request


def _first_of_each_recipe(trials: Iterable[Trial]) -> list[Trial]:
    found: dict[bytes, Trial] = {}
    for trial in trials:
        found.setdefault(identity(trial.recipe), trial)
    return list(found.values())
