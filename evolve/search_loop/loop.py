"""A search over a journal: what is scored before the optimizer is asked, and then the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import Any

from evolve.config.strategy import BudgetConfig
from evolve.evaluation.evaluator import Evaluator
from evolve.optimizers import Optimizer
from evolve.search_loop.batch_scoring import BatchScoring
from evolve.search_loop.ending import Clock, SearchError
from evolve.search_loop.generations import Generations
from evolve.search_loop.item_budget import ItemBudget
from evolve.search_loop.ledger import Ledger
from evolve.search_loop.looks import Looks
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.proposals import new_candidate
from evolve.search_loop.races import Races
from evolve.search_loop.recorder import Recorder
from evolve.search_loop.replay import Replay
from evolve.search_loop.steady_search import SteadySearch
from evolve.space.space import Space, Vector
from evolve.trials.events import SearchStopped, StopAsked, StopReason, Watcher
from evolve.trials.journal import Journal
from evolve.trials.spending import Spending, of_the_search
from evolve.trials.trial import OPENING, Evaluation, State, Trial


@dataclass
class Search:
    """One run of the loop over a journal; everything it knows is in the journal.

    Attributes:
        objective_function: what is maximised, and what the optimizer is told.
        items: task name -> ids of the search items, the same for every trial.
        watch: is told what happens.
        stop: set from outside to stop softly: what is in flight is finished, nothing new is begun.
        pause_after: item evaluations after which it stops in the same way, to go on later; None: it does not.
        on_change: is called before a trial is written to the journal, begun or finished.
    """

    journal: Journal
    space: Space
    evaluator: Evaluator
    objective_function: ObjectiveFunction
    items: Mapping[str, tuple[int, ...]]
    budget: BudgetConfig
    watch: Watcher
    stop: Flag
    pause_after: int | None = None
    on_change: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.journal, self.space, self.on_change)
        self.item_budget = ItemBudget(self.budget.items)
        self._clock = Clock(self.journal, self.budget.minutes, self.stop, self._pauses)
        self._looks = Looks(self.items)
        self.replay = Replay(
            self.journal, self.evaluator, self._clock.interrupted, self._affords, not self.ledger.has_candidates
        )
        self._scoring = BatchScoring(
            self.journal,
            self.ledger,
            self.evaluator,
            self.objective_function,
            self._looks,
            self.replay,
            self.item_budget,
            self._clock,
            Recorder(
                self.ledger,
                self.objective_function,
                self._looks,
                self._clock,
                self.budget,
                self.watch,
                self.item_evaluations,
            ),
        )

    @property
    def trials(self) -> Sequence[Trial]:
        """All of the run, by number; old ones are read from the journal at each look."""
        return self.ledger.trials

    def look(
        self,
        recipes: Mapping[str, Mapping[str, Any]],
        items: Mapping[str, tuple[int, ...]],
        *,
        keeps_answers: bool = False,
    ) -> list[Evaluation] | StopReason:
        """Score recipes, each with a label, on some items; whichever becomes a trial is scored on the others alone."""
        looked = self.replay.look(recipes, items, keeps_answers=keeps_answers)
        if not isinstance(looked, StopReason):
            for recipe, evaluation in zip(recipes.values(), looked, strict=True):
                self._looks.add(recipe, evaluation)
        self.note_seconds()
        return looked

    def note_seconds(self) -> None:
        """Keep how long the search has taken, over all its runs."""
        self._clock.note()

    def unseen_items(self, recipe: Mapping[str, Any]) -> int:
        """How many items of a recipe are left to be scored, those of looks aside."""
        return sum(map(len, self._looks.unseen(recipe).values()))

    def score_points(self, points: Mapping[str, Vector]) -> StopReason | None:
        """Candidates that no optimizer asked for, before those that one does.

        Args:
            points: label -> point of the unit cube. Those of an earlier end of the run, whose budget was raised since,
                stay candidates beside them.
        """
        self._scoring.recorder.begin_pace()
        recorded = self.ledger.opening
        known = {trial.vector for trial in recorded}
        new = {label: tuple(vector) for label, vector in points.items() if tuple(vector) not in known}
        batch = recorded + [
            replace(new_candidate(self.space, self.ledger, vector, batch=OPENING, before=0, offset=offset), label=label)
            for offset, (label, vector) in enumerate(new.items())
        ]
        room = max(self._scoring.room(batch), len(recorded))
        most = max(len(batch) if self.budget.evaluations is None else self.budget.evaluations, len(recorded))
        if stop := self._scoring.run(batch[: min(room, most)]):
            return stop
        if room < min(len(batch), most):
            return StopReason.ITEMS
        return StopReason.EVALUATIONS if most < len(batch) else None

    def begin_references(self, references: Sequence[Trial]) -> None:
        """Give parents and uniform merge the first numbers, whatever is scored before them."""
        self.ledger.begin(references)

    def spent(self) -> Spending:
        """Item evaluations recorded so far, those of earlier runs included, without held-out items."""
        return self._scoring.spent()

    def item_evaluations(self) -> int:
        """How many of them a budget of items bounds."""
        return of_the_search(self.spent())

    def score_references(self, references: Sequence[Trial]) -> StopReason | None:
        """Parents and the uniform merge, all or none. Returns why it broke off, if it did.

        Raises:
            SearchError: none of them could be scored.
        """
        unscored = not all(map(self.ledger.is_scored, references))
        if unscored and self._scoring.room(references) < len(references):
            return StopReason.ITEMS
        scoring = self._scoring
        run = scoring.run_before_calibration if self.objective_function.needs_parents else scoring.run
        stopped = run(references)
        done = self.trials[: len(references)]
        if done and all(trial.state is State.FAILED for trial in done):
            raise SearchError(f"no parent could be scored; {done[0].label}: {done[0].measured.failure}")
        return stopped

    def race_with(self, races: Races | None) -> None:
        """Have races score batches from here, where not every candidate needs all items."""
        self._scoring.races = races

    def run(self, optimizer: Optimizer, steady_state: bool = False) -> StopReason:
        """Ask and tell until a budget is spent; what the journal holds is replayed first.

        Args:
            optimizer: of a problem that is in steady state or not, as here.
            steady_state: whether a free worker is given a candidate at once, instead of one generation after another.

        Returns:
            Why it stopped.
        """
        self._scoring.recorder.begin_pace()
        loop = (SteadySearch if steady_state else Generations)(self.space, self._scoring, self.budget)
        reason = loop.run(optimizer)
        self.note_seconds()
        self.watch(self.stopped(reason))
        return reason

    def stop_asked(self, at_work: Sequence[str]) -> StopAsked:
        """What is told when a stop is asked for: what is `at_work`, and what there is already."""
        return StopAsked(at_work, self.ledger.candidates_done, self.ledger.best)

    def stopped(self, reason: StopReason) -> SearchStopped:
        """What is told of an end."""
        return SearchStopped(
            reason, self.ledger.candidates_done, self.budget.bound(reason), self.ledger.candidates_since_best()
        )

    def _pauses(self) -> bool:
        return self.pause_after is not None and self.item_evaluations() >= self.pause_after

    def _affords(self, items: int) -> bool:
        """Whether looks or steps may take so many item evaluations."""
        return self.item_budget.affords(items, self.item_evaluations())
