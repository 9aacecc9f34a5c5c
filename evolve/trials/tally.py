"""Running totals of a journal: states, failures, spending, the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from evolve.trials.spending import Purpose, Spending, purpose_of
from evolve.trials.stage import Stage, StepsOf
from evolve.trials.standing import Scored, Standing
from evolve.trials.step import FORWARD_AND_BACKWARD, Step
from evolve.trials.trial import Evaluation, State, Trial, best_of

_UNRECORDED = {Stage.REFERENCES: Purpose.REFERENCES, Stage.RACE: Purpose.CANDIDATES}


class Tally:
    """Counts what it is told, one thing after another. Evaluations that are kept come before the trials they are of."""

    def __init__(self) -> None:
        self._states: Counter[State] = Counter()  # of candidates
        self._failures: dict[int, str] = {}  # of candidates
        self._references: dict[str, float | None] = {}
        self._failed_references: dict[str, str] = {}
        self._of_trials: Counter[Purpose] = Counter()
        self._unrecorded: dict[int, tuple[Purpose, int]] = {}
        self._kept: dict[Stage, dict[int, int]] = {
            Stage.LOOK: {},
            Stage.VALIDATION: {},
            Stage.SIMPLIFICATION: {},
        }
        self._steps: dict[int, tuple[int, str | None]] = {}  # items, and why there is no gradient
        self._simplification_steps: dict[int, int] = {}  # items
        self._best: Scored | None = None
        self._best_reference: Scored | None = None
        self._told: dict[int, Scored] = {}

    def begin(self, trial: Trial) -> None:
        """A trial that may have no result yet."""
        if trial.is_reference:
            self._references.setdefault(trial.label, None)

    def finish(self, trial: Trial, before: Trial | None = None) -> None:
        """A result.

        Args:
            trial: with it.
            before: the same as it had failed, where it was tried again.
        """
        if before is not None:
            self._take_back(before)
        self._unrecorded.pop(trial.number, None)
        self._of_trials[purpose_of(trial)] += trial.measured.new_items
        failure, scored = trial.measured.failure, _scored(trial)
        if trial.is_reference:
            self._references[trial.label] = trial.objective
            self._best_reference = best_of((self._best_reference, scored))
            if failure is not None:
                self._failed_references[trial.label] = failure
        else:
            self._states[trial.state] += 1
            self._best = best_of((self._best, scored))
            if failure is not None:
                self._failures[trial.number] = f"{trial.label}: {failure}"

    def keep(self, stage: Stage, evaluation: Evaluation) -> None:
        """An evaluation that is not a trial's result, or not yet."""
        if stage in _UNRECORDED:
            self._unrecorded[evaluation.number] = _UNRECORDED[stage], evaluation.new_items
        else:
            self._kept[stage][evaluation.number] = evaluation.new_items

    def keep_step(self, step: Step, of: StepsOf = StepsOf.SEARCH) -> None:
        """A step of the gradient, or a gradient for shorter recipes."""
        if of is StepsOf.SEARCH:
            self._steps[step.number] = step.items, step.failure
        else:
            self._simplification_steps[step.number] = step.items

    def tell(self, trial: Trial) -> None:
        """A trial that is told whether it is the best or not: one scored on held-out items may be the one chosen."""
        if (scored := _scored(trial)) is not None:
            self._told[trial.number] = scored

    @property
    def spent(self) -> Spending:
        """Purpose -> item evaluations; what was scored once and used twice counts once."""
        found = Counter(self._of_trials)
        for purpose, items in self._unrecorded.values():
            found[purpose] += items
        found[Purpose.LOOKS] = sum(self._kept[Stage.LOOK].values())
        found[Purpose.HELD_OUT] = sum(self._kept[Stage.VALIDATION].values())
        found[Purpose.STEPS] = FORWARD_AND_BACKWARD * sum(items for items, _ in self._steps.values())
        gradients = FORWARD_AND_BACKWARD * sum(self._simplification_steps.values())
        found[Purpose.SIMPLIFICATION] = gradients + sum(self._kept[Stage.SIMPLIFICATION].values())
        return {purpose: found[purpose] for purpose in Purpose}

    def standing(self, place: Callable[[int], int | None], notes: Mapping[str, Any]) -> Standing:
        """All of it.

        Args:
            place: of the line that proposed a trial, by its number.
            notes: what else the journal says: `search_seconds`, `budget`, `command` and `faults`.
        """
        best, reference = self._best, self._best_reference
        scored = self._told | {trial.number: trial for trial in (best, reference) if trial is not None}
        step_failures = [reason for _, (_, reason) in sorted(self._steps.items()) if reason is not None]
        return Standing(
            candidates=self._states.total(),
            failed=self._states[State.FAILED],
            infeasible=self._states[State.INFEASIBLE],
            stopped=self._states[State.STOPPED],
            last_failure=self._failures[max(self._failures)] if self._failures else None,
            references=dict(self._references),
            failed_references=dict(self._failed_references),
            steps=len(self._steps),
            failed_steps=len(step_failures),
            step_failure=step_failures[0] if step_failures else None,
            looks=len(self._kept[Stage.LOOK]),
            spent={purpose.value: count for purpose, count in self.spent.items()},
            best=None if best is None else best.number,
            best_reference=None if reference is None else reference.number,
            scored={number: replace(trial, place=place(number)) for number, trial in scored.items()},
            **notes,
        )

    def _take_back(self, failed: Trial) -> None:
        self._of_trials[purpose_of(failed)] -= failed.measured.new_items
        self._failed_references.pop(failed.label, None)
        if not failed.is_reference:
            self._states[failed.state] -= 1
            self._failures.pop(failed.number, None)


def _scored(trial: Trial) -> Scored | None:
    if trial.objective is None:
        return None
    return Scored(trial.number, trial.label, trial.objective, trial.objective_values, dict(trial.task_scores))
