"""Trials that are read back are those that were written, and few of them are in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evolve.search_loop import run_trials
from evolve.search_loop.run_trials import RunTrials
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, Kind, State, Trial

AXES = {"weight": FloatDistribution(0.0, 1.0), "method": CategoricalDistribution(("ties", "linear"))}
COUNT = 12


def trial_of(number: int) -> Trial:
    kind = Kind.PARENT if number == 0 else Kind.CANDIDATE
    recipe = {"merge_method": "linear", "models": [{"model": "a", "parameters": {"weight": number / 7}}]}
    genes = {} if number == 0 else {"weight": number / 16, "method": ("ties", "linear")[number % 2]}
    return Trial(number, kind, f"trial {number}", number - 1, recipe, (number / 16,) if number else None, genes)


def finished(trial: Trial) -> Trial:
    scores = {"task": dict.fromkeys(range(5), trial.number / 8)}
    evaluation = Evaluation(trial.number, scores=scores, skipped={"task": {7: "no answer"}}, total_seconds=0.5)
    return replace(trial, evaluation=evaluation, task_scores={"task": 0.5}, objective=trial.number / 8, fitness=0.25)


@pytest.fixture(params=["{}/journal.log", "sqlite:///{}/trials.db"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return Journal.open(request.param.format(tmp_path), create=True)


@pytest.fixture
def trials(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> RunTrials:
    """All but the last are finished; three finished ones may be in memory."""
    monkeypatch.setattr(run_trials, "KEPT", 3)
    found = RunTrials(journal)
    for number in range(COUNT):
        trial = trial_of(number)
        journal.begin([trial], AXES)
        found.put(trial)
        if number < COUNT - 1:
            journal.finish(finished(trial))
            found.put(finished(trial))
    return found


def expected() -> list[Trial]:
    return [finished(trial_of(number)) for number in range(COUNT - 1)] + [trial_of(COUNT - 1)]


def test_all_are_there_by_number_from_the_end_in_slices_and_in_order(trials: RunTrials):
    assert len(trials) == COUNT
    assert list(trials) == expected()
    assert [trials[number] for number in range(COUNT)] == expected()
    assert (trials[-1], trials[2:5]) == (expected()[-1], expected()[2:5])
    with pytest.raises(IndexError):
        trials[COUNT]


def test_references_and_what_is_at_work_are_held_and_others_are_few(trials: RunTrials):
    for number in range(COUNT):
        trials[number]
        assert len(trials._latest) <= 3
    assert set(trials._held) == {0, COUNT - 1}


def test_a_failure_that_is_tried_again_is_at_work_whatever_the_journal_says(trials: RunTrials):
    trials.put(replace(trials[4], evaluation=None))
    for number in range(5, COUNT):
        trials[number]
    assert trials[4].state is State.RUNNING
    assert list(trials)[4].state is State.RUNNING


def test_an_outline_has_what_counts_and_no_items():
    found = finished(trial_of(3)).outline()
    assert (found.state, found.objective, found.task_scores) == (State.COMPLETE, 3 / 8, {"task": 0.5})
    assert found.measured.scores == {"task": {}}
    assert trial_of(3).outline().state is State.RUNNING
