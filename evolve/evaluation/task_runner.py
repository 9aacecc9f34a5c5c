"""The tasks and constraints of a search, run on the candidate in a live model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from evolve.evaluation.live_model import LiveModel
from evolve.evaluation.request import GradientRequest
from evolve.scoring import (
    AnswerRecorder,
    Constraint,
    KnownAnswers,
    ScoredItems,
    Scorer,
    TellsRequests,
    ask_together,
    runs_user_code,
)
from evolve.scoring.language_model import LanguageModel, Prepared
from evolve.scoring.process_state import process_restored
from evolve.scoring.targets import HasTargets, Target, written_target


@dataclass(frozen=True)
class Scored:
    """What a candidate scored.

    Attributes:
        tasks: task name -> values and signals of its items.
        constraints: label -> the number that the constraint bounds.
        recorders: task name -> what the task asked, and what the model wrote.
    """

    tasks: Mapping[str, ScoredItems]
    constraints: Mapping[str, float]
    recorders: Mapping[str, AnswerRecorder]


class TaskRunner:
    """Runs tasks, and has the model restored where code of the user's has changed it.

    Args:
        scorers: the tasks.
        constraints: measured after all of them.
        live: holds the candidate.

    Attributes:
        gives_model_away: whether any of them gives the model to code that is not ours.
    """

    def __init__(self, scorers: Sequence[Scorer], constraints: Sequence[Constraint], live: LiveModel) -> None:
        self._scorers = {scorer.name: scorer for scorer in scorers}
        self._constraints = constraints
        self._live = live
        self.gives_model_away = any(map(runs_user_code, scorers)) or any(one.runs_user_code for one in constraints)

    def score(self, items: Mapping[str, tuple[int, ...]], restored: dict[str, str]) -> Scored:
        """Run the tasks on some of their items, and measure the constraints.

        Args:
            items: task name -> item ids.
            restored: is told whose code changed the model -> what it changed, whether or not anything is raised.

        Raises:
            ScoringError: the model cannot be scored, or a task's items make no score.
            TaskError: a task cannot be run as configured.
        """
        recorders: dict[str, AnswerRecorder] = {}
        scored: dict[str, ScoredItems] = {}
        known = ask_together(self._live.engine, self._requests(items))
        for name, ids in items.items():
            scorer = self._scorers[name]
            restore = partial(self._restore, f"task {name!r}", runs_user_code(scorer), restored)
            recorders[name] = AnswerRecorder(KnownAnswers(self._live.engine, known), restore)
            try:
                with process_restored():  # the next task meets what this one met
                    scored[name] = scorer.score(recorders[name], ids)
            finally:
                restore()
        answers: dict[str | None, list[str]] = {None: []}
        answers |= {name: recorder.answers for name, recorder in recorders.items()}
        measured = {}
        for constraint in self._constraints:
            try:
                with process_restored():
                    measured[constraint.label] = constraint.measure(self._live.engine, answers[constraint.answers_of])
            finally:
                self._restore(f"constraint {constraint.label!r}", constraint.runs_user_code, restored)
        for name, found in scored.items():
            self._scorers[name].aggregate(found.values)  # raises when the items make no score
        return Scored(scored, measured, recorders)

    def _requests(self, items: Mapping[str, tuple[int, ...]]) -> Iterator[Prepared]:
        """What the tasks that know it beforehand are going to ask."""
        for name, ids in items.items():
            if isinstance(scorer := self._scorers[name], TellsRequests):
                yield from scorer.prepared_requests(self._live.engine, ids)

    def _restore(self, who: str, is_given_away: bool, restored: dict[str, str]) -> LanguageModel:
        """The model as it was merged."""
        if is_given_away and (changes := self._live.changes()):
            restored[who] = "; ".join(changes)  # first: the model may not be built again
            self._live.restore()
        return self._live.engine  # type: ignore[no-any-return]

    def violations(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Label -> by how much a measured number is outside its bounds; only of constraints that are violated."""
        outside = {one.label: one.violation(measured[one.label]) for one in self._constraints}
        return {label: distance for label, distance in outside.items() if distance}

    def answers(self, items: Mapping[str, tuple[int, ...]], recorders: Mapping[str, AnswerRecorder]) -> dict[str, Any]:
        """The fields of an evaluation that tell what the model wrote, and what of it the tasks know to be right.

        Where a task does not, an answer belongs to an item if the model was asked once for each, in their order.
        """
        answers: dict[str, dict[int, list[list[int]]]] = {}
        target_counts: dict[str, int] = {}
        gold_shares: dict[str, float] = {}
        for name, recorder in recorders.items():
            written = recorder.written
            targets = self.known_targets(name, items[name])
            target_counts[name] = len(targets)
            first = dict(reversed(written))
            told = {
                item: first[target.prompt.tokens]
                for item, target in targets.items()
                if target.prompt is not None and target.prompt.tokens in first
            }
            if told:
                answers[name] = {item: [[], tokens] for item, tokens in told.items()}
                gold_shares[name] = sum(targets[item].calls_right(tokens) for item, tokens in told.items()) / len(told)
            elif written and not targets and len(written) == len(items[name]):
                pairs = zip(sorted(items[name]), written, strict=True)
                answers[name] = {item: [list(prompt), tokens] for item, (prompt, tokens) in pairs}
        return {"answers": answers, "target_counts": target_counts, "gold_shares": gold_shares}

    def targets(self, request: GradientRequest) -> dict[str, dict[int, Target]]:
        """What the model should say, by task and item; tasks without any item that has a target are left out."""
        targets: dict[str, dict[int, Target]] = {}
        for name, items in request.items.items():
            known, written = self.known_targets(name, items), request.written.get(name, {})
            gold_counts = request.gold_counts.get(name, True)
            found = {item: one.with_written(written.get(item, ()), gold_counts) for item, one in known.items()}
            found |= {item: written_target(written[item]) for item in items if item in written and item not in known}
            if found:
                targets[name] = found
        return targets

    def known_targets(self, name: str, items: Sequence[int]) -> dict[int, Target]:
        """The right answers that a task knows beforehand, by item; none of a task that knows none."""
        scorer = self._scorers[name]
        return scorer.targets(self._live.engine, items) if isinstance(scorer, HasTargets) else {}
