"""The loop: ask, score, write down, tell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from threading import Event as Flag
from typing import Any

from evolve.config.strategy import BudgetConfig
from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import Request
from evolve.optimizers import Optimizer
from evolve.scoring import ScoringError
from evolve.search.item_budget import ItemBudget
from evolve.search.objective import ObjectiveFunction
from evolve.search.races import Races
from evolve.search.replay import Replay
from evolve.search.steady_state import SteadyState, lag_of
from evolve.space.recipe_space import Space, Vector, gene_values
from evolve.trials.events import SearchStopped, StopReason, TrialFinished, Watcher
from evolve.trials.journal import Journal, JournalError, Stage
from evolve.trials.spending import Spending, of_the_search, spending
from evolve.trials.trial import Evaluation, Kind, Result, State, Trial, best_of

MIN_FAILURES_TO_STOP = 4  # candidates that failed, and none that did not
REPEATS_TO_STOP = 100  # candidates in a row whose recipes were scored before


class SearchError(RuntimeError):
    """The search cannot go on."""


@dataclass
class Search:
    """One run of the loop over a journal; everything it knows is in the journal.

    Attributes:
        objective_function: what is maximised, and what the optimizer is told.
        items: task name -> ids of the search items, the same for every trial.
        watch: is told what happens.
        stop: set from outside to stop softly: what is in flight is finished, nothing new is begun.
        races: score the batches, where not every candidate needs all items.
    """

    journal: Journal
    space: Space
    evaluator: Evaluator
    objective_function: ObjectiveFunction
    items: Mapping[str, tuple[int, ...]]
    budget: BudgetConfig
    watch: Watcher
    stop: Flag
    races: Races | None = None

    def __post_init__(self) -> None:
        self.trials: list[Trial] = self.journal.trials()
        self._evaluations: dict[str, Evaluation] = {}  # recipe, to the letter -> what it scored first
        for trial in self.trials:
            self._remember(trial)
        self._distributions = {axis.name: axis.gene.distribution() for axis in self.space.coordinates}
        self._seconds_before = float(self.journal.noted("search_seconds", 0.0))
        self._started = time.monotonic()
        self._evaluated_here = 0
        self.replay = Replay(self.journal, self.evaluator, self.interrupted, self._affords)
        self.item_budget = ItemBudget(self.budget.items)
        self._looked: dict[str, Evaluation] = {}  # recipe -> what it scored on some of the items

    def look(
        self,
        recipes: Sequence[Mapping[str, Any]],
        items: Mapping[str, tuple[int, ...]],
        *,
        keeps_answers: bool = False,
    ) -> list[Evaluation] | StopReason:
        """Score recipes on some items; whichever becomes a trial is scored on the others alone.

        With constraints it is scored on all, since they bound what is measured on all of its answers.
        """
        looked = self.replay.look(recipes, items, keeps_answers=keeps_answers)
        if not isinstance(looked, StopReason):
            for recipe, evaluation in zip(recipes, looked, strict=True):
                if evaluation.failure is None and not evaluation.constraints:
                    self._looked[_identity(recipe)] = evaluation
        self.note_seconds()
        return looked

    def note_seconds(self) -> None:
        """Keep how long the search has taken, over all its runs."""
        self.journal.note("search_seconds", self._elapsed())

    def unseen_items(self, recipe: Mapping[str, Any]) -> int:
        """How many items of a recipe are left to be scored, those of looks aside."""
        return sum(map(len, self._unseen(recipe).values()))

    def score_points(self, points: Mapping[str, Vector]) -> StopReason | None:
        """Candidates that no optimizer asked for, before those that one does.

        Args:
            points: label -> point of the unit cube. Those of an earlier end of the run, whose budget was raised since,
                stay candidates beside them.
        """
        recorded = [trial for trial in self._candidates() if trial.batch < 0]
        known = {trial.vector for trial in recorded}
        new = {label: tuple(vector) for label, vector in points.items() if tuple(vector) not in known}
        batch = recorded + [
            replace(self._new_candidate(vector, batch=-1, before=0, offset=offset), label=label)
            for offset, (label, vector) in enumerate(new.items())
        ]
        room = max(self._room(batch), len(recorded))
        most = max(len(batch) if self.budget.evaluations is None else self.budget.evaluations, len(recorded))
        if stop := self._run_batch(batch[: min(room, most)]):
            return stop
        if room < min(len(batch), most):
            return StopReason.ITEMS
        return StopReason.EVALUATIONS if most < len(batch) else None

    def begin_references(self, references: Sequence[Trial]) -> None:
        """Give parents and uniform merge the first numbers, whatever is scored before them."""
        self._begin(references)

    def spent(self) -> Spending:
        """Item evaluations recorded so far, those of earlier runs included, without held-out items."""
        return spending(self.trials, self.replay.looks, self.replay.steps)

    def score_references(self, references: Sequence[Trial]) -> StopReason | None:
        """Parents and the uniform merge, all or none. Returns why it broke off, if it did.

        Raises:
            SearchError: none of them could be scored.
        """
        unscored = any(not self._is_scored(trial) for trial in references)
        if unscored and self._room(references) < len(references):
            return StopReason.ITEMS
        run = self._run_before_calibration if self.objective_function.needs_parents else self._run_batch
        stopped = run(references)
        done = self.trials[: len(references)]
        if done and all(trial.state is State.FAILED for trial in done):
            raise SearchError(f"no parent could be scored; {done[0].label}: {done[0].measured.failure}")
        return stopped

    def run(self, optimizer: Optimizer, steady_state: bool = False) -> StopReason:
        """Ask and tell until a budget is spent; what the journal holds is replayed first.

        Args:
            optimizer: of a problem that is in steady state or not, as here.
            steady_state: whether a free worker is given a candidate at once, instead of one generation after another.

        Returns:
            Why it stopped.
        """
        reason = self._run_steadily(optimizer) if steady_state else self._run_generations(optimizer)
        self.journal.note("search_seconds", self._elapsed())
        self.watch(self.stopped(reason))
        return reason

    def stopped(self, reason: StopReason) -> SearchStopped:
        """What is told of an end."""
        return SearchStopped(reason, self.candidates_done, self.budget.bound(reason))

    def _run_generations(self, optimizer: Optimizer) -> StopReason:
        reason = self._stop_reason(-1)  # what was scored before may reach the target already
        batch = 0
        while reason is None:
            vectors = optimizer.ask()
            if not vectors:
                return StopReason.EXHAUSTED
            reason, results = self._score_batch(batch, vectors)
            self._refuse_hopeless()
            if len(results) == len(vectors):  # a batch that the budget cut short is told when it is completed
                optimizer.tell(vectors, results)
            batch += 1
        return reason

    def _run_steadily(self, optimizer: Optimizer) -> StopReason:
        """Every candidate is a batch of its own. A run goes on with the lag it was begun with, whatever its workers."""
        lag = int(self.journal.noted("lag", lag_of(self.evaluator.workers)))
        self.journal.note("lag", lag)
        steady, reasons = SteadyState(optimizer, lag), list[StopReason]()
        for evaluation in self.evaluator.evaluate(self._steady_requests(steady, reasons)):
            self._record(evaluation)
            self._refuse_hopeless()
        if reasons[0] in (StopReason.EVALUATIONS, StopReason.ITEMS):  # what was in flight may have reached more
            return self._stop_reason(len(self._candidates())) or reasons[0]
        return reasons[0]

    def _steady_requests(self, steady: SteadyState, reasons: list[StopReason]) -> Iterator[Request | None]:
        """What a free worker is given, None where it must wait for a result. Why it ends is added to `reasons`."""
        number = 0
        opened = len(self._candidates()) - len(self._asked_for())
        limit = self.budget.evaluations
        while not reasons:
            if steady.due is not None:
                trial = self._asked_for()[steady.due]
                if trial.state is State.RUNNING:
                    yield None
                    continue
                if reason := self._stop_reason(steady.due):
                    reasons.append(reason)
                steady.tell(trial.result)
            elif limit is not None and opened + number >= limit:
                reasons.append(StopReason.EVALUATIONS)
            elif (vector := steady.ask()) is None:
                reasons.append(StopReason.EXHAUSTED)
            else:
                recorded = self._asked_for()[number : number + 1]
                self._refuse_other_points(number, recorded, [vector])
                running = not recorded or recorded[0].state is State.RUNNING
                if running and (stop := self.interrupted()):
                    reasons.append(stop)
                    return
                trial = recorded[0] if recorded else self._new_candidate(vector, number, opened + number, 0)
                untold = [*self._asked_for()[steady.told : number], trial]
                if not recorded and self._room(untold) < len(untold):
                    reasons.append(StopReason.ITEMS)
                    return
                self._begin([trial])
                number += 1
                while running and self._is_being_scored(trial):
                    yield None
                known = self._known(trial.recipe, before=trial.number)
                if running and known is not None:
                    self._record(known.repeated(trial.number))
                elif running:
                    yield self._request(trial)

    def _refuse_other_points(self, batch: int, recorded: Sequence[Trial], vectors: Sequence[tuple[float, ...]]) -> None:
        if any(trial.vector != vector for trial, vector in zip(recorded, vectors, strict=False)):
            raise JournalError(
                f"batch {batch} of the journal was proposed by another version of the optimizer; "
                "go on with the versions in run.json, or start anew with another output"
            )

    def _new_candidate(self, vector: tuple[float, ...], batch: int, before: int, offset: int) -> Trial:
        """A trial that is not begun: the one after `offset` others like it, and after `before` candidates."""
        return Trial(
            number=len(self.trials) + offset,
            kind=Kind.CANDIDATE,
            label=f"candidate {before + offset + 1}",
            batch=batch,
            recipe=self.space.decode(vector),
            vector=vector,
            genes=gene_values(self.space, vector),
        )

    def _refuse_hopeless(self) -> None:
        """A search of which nothing can be scored ends early, and says why."""
        done = [trial for trial in self._candidates() if trial.state is not State.RUNNING]
        if len(done) >= MIN_FAILURES_TO_STOP and all(trial.state is State.FAILED for trial in done):
            raise SearchError(f"all {len(done)} candidates failed, the last with: {done[-1].measured.failure}")

    def _score_batch(self, batch: int, vectors: Sequence[tuple[float, ...]]) -> tuple[StopReason | None, list[Result]]:
        """Why the search ends with this batch, if it does, and the fitness of what the batch holds."""
        before = [trial for trial in self._candidates() if trial.batch < batch]
        recorded = [trial for trial in self._candidates() if trial.batch == batch]
        self._refuse_other_points(batch, recorded, vectors)
        begun = len(before) + len(recorded)
        new = [self._new_candidate(vector, batch, begun, k) for k, vector in enumerate(vectors[len(recorded) :])]
        whole = [*recorded, *new]
        room, cut_short = len(whole), None
        if self.budget.evaluations is not None and self.budget.evaluations - len(before) < room:
            room, cut_short = self.budget.evaluations - len(before), StopReason.EVALUATIONS
        if len(recorded) < room and (affordable := max(self._room(whole), len(recorded))) < room:
            room, cut_short = affordable, StopReason.ITEMS
        if room <= 0:
            return cut_short, []
        if room > len(recorded) and (stop := self.interrupted()):
            return stop, []
        # Part of a batch has no best half: it is scored whole.
        if stop := self._run_batch(whole[:room], race=room == len(whole)):
            return stop, []
        results: list[Result] = [trial.result for trial in self._candidates() if trial.batch == batch]
        return self._stop_reason(batch) or cut_short, results

    def _run_batch(self, batch: Sequence[Trial], race: bool = False) -> StopReason | None:
        """Begin what is not begun, score what is not scored; return why it broke off, if it did."""
        waiting = [trial for trial in self._begin(batch) if trial.state is State.RUNNING]
        known = {trial.number: self._known(trial.recipe, before=batch[0].number) for trial in waiting}
        repeated = {number: found.repeated(number) for number, found in known.items() if found is not None}
        if race and waiting and self.races is not None:
            self._record_race(self.races, [self.trials[trial.number] for trial in batch], repeated)
        else:
            for evaluation in repeated.values():
                self._record(evaluation)
            for evaluation in self.evaluator.evaluate(self._requests(t for t in waiting if t.number not in repeated)):
                self._record(evaluation)
        self.note_seconds()
        unscored = any(self.trials[trial.number].state is State.RUNNING for trial in waiting)
        return self.interrupted() if unscored else None

    def _record_race(self, races: Races, batch: Sequence[Trial], repeated: Mapping[int, Evaluation]) -> None:
        """What a race makes of the trials of a batch that are not recorded yet."""

        def evaluate(requests: Iterable[Request]) -> Iterator[Evaluation]:
            return self.evaluator.evaluate(takewhile(lambda _: not self.interrupted(), requests))

        earlier = self.trials[: batch[0].number]
        for evaluation in races.run(batch, earlier, repeated, evaluate):
            if self.trials[evaluation.number].state is State.RUNNING:
                self._record(evaluation)

    def _run_before_calibration(self, batch: Sequence[Trial]) -> StopReason | None:
        """Score the references, and record them once all are scored, since the parents say what is 0 and 1.

        What is scored waits in the journal's notes, so that nothing is scored twice.
        """
        trials = self._begin(batch)
        found = self.journal.kept(Stage.REFERENCES)
        found |= {trial.number: trial.evaluation for trial in trials if trial.evaluation is not None}
        for evaluation in self.evaluator.evaluate(self._requests(t for t in trials if t.number not in found)):
            self.journal.keep(Stage.REFERENCES, evaluation)
            found[evaluation.number] = evaluation
        if len(found) < len(trials):
            return self.interrupted()
        if any(evaluation.failure is None for evaluation in found.values()):
            parents = [trial for trial in trials if trial.kind is Kind.PARENT]
            self.objective_function.calibrate({trial.label: found[trial.number] for trial in parents})
        for trial in trials:
            if trial.state is State.RUNNING:
                self._record(found[trial.number])
        return None

    def _begin(self, batch: Sequence[Trial]) -> list[Trial]:
        """The trials of the batch as they are in the journal, where those that are new are written down now."""
        fresh = [trial for trial in batch if trial.number >= len(self.trials)]
        self.journal.begin(fresh, self._distributions)
        self.trials += fresh
        return [self.trials[trial.number] for trial in batch]

    def _requests(self, trials: Iterable[Trial]) -> Iterator[Request]:
        """Handed out one by one, so that a stop takes effect at once."""
        for trial in trials:
            if self.interrupted():
                return
            yield self._request(trial)

    def _request(self, trial: Trial) -> Request:
        return Request(trial.number, trial.recipe, self._unseen(trial.recipe), keeps_answers=trial.is_reference)

    def _unseen(self, recipe: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The items that no look at a recipe was on."""
        looked = self._looked.get(_identity(recipe), Evaluation(-1))
        found = {name: {*looked.scores.get(name, ()), *looked.skipped.get(name, ())} for name in self.items}
        return {name: tuple(item for item in items if item not in found[name]) for name, items in self.items.items()}

    def _known(self, recipe: Mapping[str, Any], before: int) -> Evaluation | None:
        """What a recipe scored as a trial of a lower number than this one."""
        found = self._evaluations.get(_identity(recipe))
        return found if found is not None and found.number < before else None

    def _is_scored(self, trial: Trial) -> bool:
        return trial.number < len(self.trials) and self.trials[trial.number].state is not State.RUNNING

    def _is_being_scored(self, trial: Trial) -> bool:
        """Whether an earlier trial of the same recipe is, so that there will be nothing to score."""
        earlier = (other for other in self._asked_for() if other.number < trial.number)
        return any(other.state is State.RUNNING and other.recipe == trial.recipe for other in earlier)

    def _room(self, batch: Sequence[Trial]) -> int:
        """How many trials, the first ones of a batch, the item budget pays for.

        Every one is reckoned with the items that it takes at most, scored or not. So the answer depends neither on
        which of them are done nor on what came of them, and is the same again when the run is resumed.
        """
        if self.item_budget.limit is None or not batch:
            return len(batch)
        own, first = {trial.number for trial in batch}, batch[0].number
        others = [trial for trial in self.trials if trial.number not in own]
        most = [
            0 if self._known(trial.recipe, first) else sum(map(len, self._unseen(trial.recipe).values()))
            for trial in batch
        ]
        spent = of_the_search(spending(others, self.replay.looks, self.replay.steps))
        return self.item_budget.room(most, spent)

    def _affords(self, items: int) -> bool:
        """Whether looks or steps may take so many item evaluations."""
        return self.item_budget.affords(items, of_the_search(self.spent()))

    def interrupted(self) -> StopReason | None:
        """Why nothing new may be begun, if so; once it is so it stays so."""
        if self.stop.is_set():
            return StopReason.INTERRUPTED
        minutes = self.budget.minutes
        return StopReason.MINUTES if minutes is not None and self._elapsed() >= 60 * minutes else None

    def _record(self, evaluation: Evaluation) -> None:
        trial = self.trials[evaluation.number]
        looked = self._looked.get(_identity(trial.recipe))
        if looked is not None and evaluation.failure is None and evaluation.stopped is None:
            evaluation = evaluation.completed(looked)
        trial = self._scored(trial, evaluation)
        self.journal.finish(trial)
        self.trials[trial.number] = trial
        self._remember(trial)
        self._evaluated_here += 1
        parents = [other for other in self.trials if other.kind is Kind.PARENT]
        seconds = (time.monotonic() - self._started) / self._evaluated_here
        done = self.candidates_done
        self.watch(
            TrialFinished(
                trial=trial,
                best=best_of(self.trials),
                best_parent=best_of(parents),
                uniform=next((other for other in self.trials if other.kind is Kind.UNIFORM), None),
                candidates_done=done,
                evaluation_budget=self.budget.evaluations,
                seconds_per_evaluation=seconds,
                seconds_left=self._seconds_left(done, seconds),
            )
        )

    def _scored(self, trial: Trial, evaluation: Evaluation) -> Trial:
        """The trial with what was measured, and what the objective function makes of that."""
        if evaluation.failure is not None:
            return replace(trial, evaluation=evaluation)
        if evaluation.stopped is not None:
            return replace(trial, evaluation=evaluation, fitness=evaluation.estimate)
        try:
            task_scores = self.objective_function.task_scores(evaluation.scores)
            costs = self.objective_function.cost_terms.measured(evaluation)
            objective = self.objective_function.objective(task_scores, costs)
            fitness = self.objective_function.fitness(task_scores, evaluation)
        except ScoringError as error:  # nothing can be ranked by such a score
            return replace(trial, evaluation=evaluation.failed(str(error)))
        scored = replace(trial, evaluation=evaluation, task_scores=task_scores, fitness=fitness)
        if evaluation.violations:
            return scored
        objective_values = self.objective_function.objective_values(task_scores, costs)
        return replace(scored, objective=objective, objective_values=objective_values)

    def _remember(self, trial: Trial) -> None:
        """What is scored needs no scoring again, whatever trial comes to the same recipe."""
        if trial.state in (State.COMPLETE, State.INFEASIBLE):
            self._evaluations.setdefault(_identity(trial.recipe), trial.measured)

    def _seconds_left(self, done: int, seconds_each: float) -> float | None:
        bounds = []
        if self.budget.evaluations is not None:
            bounds.append((self.budget.evaluations - done) * seconds_each)
        if self.budget.minutes is not None:
            bounds.append(max(60 * self.budget.minutes - self._elapsed(), 0.0))
        return min(bounds, default=None)

    def _stop_reason(self, batch: int) -> StopReason | None:
        """Why it ends with a batch, whatever the journal holds beyond it: target, plateau, or nothing new is asked."""
        candidates = [trial for trial in self._candidates() if trial.batch <= batch]
        best = best_of(candidates)
        if best is None or best.objective is None:
            return None
        if self.budget.target is not None and best.objective >= self.budget.target:
            return StopReason.TARGET
        since = len(candidates) - 1 - candidates.index(best)
        plateau = self.budget.plateau_limit
        if plateau is not None and since >= plateau:
            return StopReason.PLATEAU
        latest = candidates[-REPEATS_TO_STOP:]
        repeats = len(latest) == REPEATS_TO_STOP and all(trial.measured.reused_items for trial in latest)
        # Repeats cost nothing, so that a budget of items alone would never end a search whose recipes are all scored.
        return StopReason.EXHAUSTED if repeats and self.budget.evaluations is None else None

    def _candidates(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.kind is Kind.CANDIDATE]

    def _asked_for(self) -> list[Trial]:
        """The candidates that the optimizer proposed."""
        return [trial for trial in self._candidates() if trial.batch >= 0]

    @property
    def candidates_done(self) -> int:
        """How many candidates are scored, or failed."""
        return sum(trial.state is not State.RUNNING for trial in self._candidates())

    def _elapsed(self) -> float:
        """Seconds of search over all runs of this journal."""
        return self._seconds_before + time.monotonic() - self._started


def _identity(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
