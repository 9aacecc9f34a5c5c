"""The loop: ask, score, write down, tell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import Any

from evolve.config import BudgetConfig
from evolve.evaluator import Evaluator, Request
from evolve.events import SearchStopped, TrialFinished, Watcher
from evolve.journal import (
    Journal,
    JournalError,
    evaluation_from_json,
    evaluation_of,
    evaluation_to_json,
    finished,
)
from evolve.optimizers import Optimizer, Told
from evolve.search_space import Space, gene_values
from evolve.trial import Evaluation, ItemScores, ItemSignals, Kind, State, Trial, best_of
from tasks import ScoringError, rank_value

INTERRUPTED = "interrupted"
HOPELESS = 4  # candidates that failed, and none that did not


class SearchError(RuntimeError):
    """The search cannot go on."""


@dataclass
class Search:
    """One run of the loop over a journal; everything it knows is in the journal.

    Attributes:
        judge: item scores -> (score per task, objective); the objective is maximised.
        items: task name -> ids of the search items, the same for every trial.
        stop: set from outside to stop softly: what is in flight is finished, nothing new is begun.
        calibrate: is told what the parents scored (label -> evaluation) before any trial is judged; None needs nothing.
        guide: (score per task, item signals) -> what the optimizer is told; None tells it the objective.
        keep_apart: score per task -> the objectives of a Pareto search; None: there is one.
    """

    journal: Journal
    space: Space
    evaluator: Evaluator
    judge: Callable[[ItemScores], tuple[dict[str, float], float]]
    items: Mapping[str, tuple[int, ...]]
    budget: BudgetConfig
    watch: Watcher
    stop: Flag
    guide: Callable[[Mapping[str, float], ItemSignals], Told] | None = None
    keep_apart: Callable[[Mapping[str, float]], tuple[float, ...]] | None = None
    calibrate: Callable[[Mapping[str, Evaluation]], None] | None = None

    def __post_init__(self) -> None:
        self.trials: list[Trial] = self.journal.trials()
        self._seconds_before = float(self.journal.noted("search_seconds", 0.0))
        self._started = time.monotonic()
        self._evaluated_here = 0

    def score_references(self, references: Sequence[Trial]) -> str | None:
        """Parents and the uniform merge, before any candidate.

        Raises:
            SearchError: none of them could be scored.
        """
        run = self._run_batch if self.calibrate is None else self._run_before_judging
        stopped = run(references, [{} for _ in references])
        done = self.trials[: len(references)]
        if done and all(trial.state is State.FAILED for trial in done):
            raise SearchError(f"no parent could be scored; {done[0].label}: {done[0].failure}")
        return stopped

    def run(self, optimizer: Optimizer) -> str:
        """Asks and tells until a budget is spent; the journal's batches are replayed first.

        Returns:
            Why it stopped.
        """
        reason = None
        batch = 0
        while reason is None:
            vectors = optimizer.ask()
            reason, guides = self._score_batch(batch, vectors)
            self._refuse_hopeless()
            if len(guides) == len(vectors):  # a batch that the budget cut short is told when it is completed
                optimizer.tell(vectors, guides)
            batch += 1
        self.journal.note("search_seconds", self._elapsed())
        self.watch(SearchStopped(reason, self._done()))
        return reason

    def _refuse_hopeless(self) -> None:
        """A search of which nothing can be scored ends early, and says why."""
        done = [trial for trial in self._candidates() if trial.state is not State.RUNNING]
        if len(done) >= HOPELESS and all(trial.state is State.FAILED for trial in done):
            raise SearchError(f"all {len(done)} candidates failed, the last with: {done[-1].failure}")

    def _score_batch(self, batch: int, vectors: Sequence[tuple[float, ...]]) -> tuple[str | None, list[Told | None]]:
        before = [trial for trial in self._candidates() if trial.batch < batch]
        recorded = [trial for trial in self._candidates() if trial.batch == batch]
        if any(trial.vector != vector for trial, vector in zip(recorded, vectors, strict=False)):
            raise JournalError(
                f"batch {batch} of the journal was proposed by another version of the optimizer; "
                "go on with the versions in run.json, or start anew with another output"
            )
        limit = self.budget.evaluation_limit
        room = len(vectors) if limit is None else min(len(vectors), limit - len(before))
        if room <= 0:
            return "evaluations", []
        new = vectors[len(recorded) : room]
        if new and (stop := self._interrupted()):
            return stop, []
        names = [axis.name for axis in self.space.coordinates]
        shapes = dict(zip(names, (axis.gene.distribution() for axis in self.space.coordinates), strict=True))
        fresh = [
            Trial(
                number=len(self.trials) + offset,
                kind=Kind.CANDIDATE,
                label=f"candidate {len(before) + len(recorded) + offset + 1}",
                batch=batch,
                recipe=self.space.decode(vector),
                vector=vector,
                genes=gene_values(self.space, vector),
            )
            for offset, vector in enumerate(new)
        ]
        stop = self._run_batch([*recorded, *fresh], [shapes for _ in (*recorded, *fresh)])
        if stop:
            return stop, []
        guides = [trial.guide for trial in self._candidates() if trial.batch == batch]
        return self._met(batch) or ("evaluations" if room < len(vectors) else None), guides

    def _run_batch(self, batch: Sequence[Trial], shapes: Sequence[Mapping[str, Any]]) -> str | None:
        """Begins what is not begun, scores what is not scored. Returns why it broke off, if it did."""
        self._begin(batch, shapes)
        waiting = [self.trials[trial.number] for trial in batch if self.trials[trial.number].state is State.RUNNING]
        scored = (State.COMPLETE, State.INFEASIBLE)
        known = {_identity(trial.recipe): trial for trial in self.trials if trial.state in scored}
        repeats = [trial for trial in waiting if _identity(trial.recipe) in known]
        for trial in repeats:  # scored before, to the letter: the same weights give the same scores
            self._record(replace(evaluation_of(known[_identity(trial.recipe)]), number=trial.number))
        to_score = [trial for trial in waiting if trial not in repeats]
        broken_off: list[str] = []
        for evaluation in self.evaluator.evaluate(self._requests(to_score, broken_off)):
            self._record(evaluation)
        self.journal.note("search_seconds", self._elapsed())
        return broken_off[0] if broken_off else None

    def _run_before_judging(self, batch: Sequence[Trial], shapes: Sequence[Mapping[str, Any]]) -> str | None:
        """Scores the references, and judges them once all are scored, since the parents say what is 0 and 1.

        What is scored waits in the journal's notes, so that nothing is scored twice.
        """
        self._begin(batch, shapes)
        trials = self.trials[: len(batch)]
        found = {trial.number: evaluation_of(trial) for trial in trials if trial.state is not State.RUNNING}
        for trial in trials:
            kept = self.journal.noted(f"reference:{trial.number}")
            if trial.number not in found and kept is not None:
                found[trial.number] = evaluation_from_json(kept)
        broken_off: list[str] = []
        missing = [trial for trial in trials if trial.number not in found]
        for evaluation in self.evaluator.evaluate(self._requests(missing, broken_off)):
            self.journal.note(f"reference:{evaluation.number}", evaluation_to_json(evaluation))
            found[evaluation.number] = evaluation
        if broken_off:
            return broken_off[0]
        if self.calibrate is not None and any(evaluation.scores is not None for evaluation in found.values()):
            self.calibrate({trial.label: found[trial.number] for trial in trials if trial.kind is Kind.PARENT})
        for trial in trials:
            if trial.state is State.RUNNING:
                self._record(found[trial.number])
        return None

    def _begin(self, batch: Sequence[Trial], shapes: Sequence[Mapping[str, Any]]) -> None:
        begun = len(self.trials)
        fresh = [(trial, shape) for trial, shape in zip(batch, shapes, strict=True) if trial.number >= begun]
        self.journal.begin([trial for trial, _ in fresh], [shape for _, shape in fresh])
        self.trials += [trial for trial, _ in fresh]

    def _requests(self, trials: Sequence[Trial], broken_off: list[str]) -> Iterator[Request]:
        """Handed out one by one, so that a stop takes effect at once."""
        for trial in trials:
            reason = self._interrupted()
            if reason:
                broken_off.append(reason)
                return
            yield Request(trial.number, trial.recipe, self.items)

    def _interrupted(self) -> str | None:
        if self.stop.is_set():
            return INTERRUPTED
        minutes = self.budget.minutes
        return "minutes" if minutes is not None and self._elapsed() >= 60 * minutes else None

    def _record(self, evaluation: Evaluation) -> None:
        task_scores: dict[str, float] = {}
        objective: float | None = None
        objectives: tuple[float, ...] = ()
        guide: Told | None = None
        if evaluation.scores is not None:
            try:
                task_scores, objective = self.judge(evaluation.scores)
                guide = objective if self.guide is None else self.guide(task_scores, evaluation.signals)
                if self.keep_apart is not None:
                    objectives = self.keep_apart(task_scores)
                if (
                    evaluation.violations
                ):  # below all that are feasible, in every objective; the further outside the lower
                    low = rank_value(sum(evaluation.violations.values()))
                    guide = (low,) * len(objectives) if objectives else low
            except ScoringError as error:  # nothing can be ranked by such a score
                evaluation = replace(evaluation, scores=None, failure=str(error))
        trial = finished(self.trials[evaluation.number], evaluation, task_scores, objective, guide, objectives)
        self.journal.finish(trial)
        self.trials[trial.number] = trial
        self._evaluated_here += 1
        parents = [other for other in self.trials if other.kind is Kind.PARENT]
        seconds = (time.monotonic() - self._started) / self._evaluated_here
        done = self._done()
        limit = self.budget.evaluation_limit
        self.watch(
            TrialFinished(
                trial=trial,
                best=best_of(self.trials),
                best_parent=best_of(parents),
                uniform=next((other for other in self.trials if other.kind is Kind.UNIFORM), None),
                candidates_done=done,
                evaluation_budget=limit,
                seconds_per_evaluation=seconds,
                seconds_left=self._seconds_left(done, seconds),
            )
        )

    def _seconds_left(self, done: int, seconds_each: float) -> float | None:
        bounds = []
        if self.budget.evaluation_limit is not None:
            bounds.append((self.budget.evaluation_limit - done) * seconds_each)
        if self.budget.minutes is not None:
            bounds.append(max(60 * self.budget.minutes - self._elapsed(), 0.0))
        return min(bounds, default=None)

    def _met(self, batch: int) -> str | None:
        """Whether target or plateau is reached by the end of a batch, whatever the journal holds beyond it."""
        candidates = [trial for trial in self._candidates() if trial.batch <= batch]
        best = best_of(candidates)
        if best is None or best.objective is None:
            return None
        if self.budget.target is not None and best.objective >= self.budget.target:
            return "target"
        since = len(candidates) - 1 - candidates.index(best)
        return "plateau" if self.budget.plateau is not None and since >= self.budget.plateau else None

    def _candidates(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.kind is Kind.CANDIDATE]

    def _done(self) -> int:
        return sum(trial.state is not State.RUNNING for trial in self._candidates())

    def _elapsed(self) -> float:
        """Seconds of search over all runs of this journal."""
        return self._seconds_before + time.monotonic() - self._started


def _identity(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
