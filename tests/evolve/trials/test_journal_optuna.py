"""A run's journal as Optuna's own tools see it."""

from __future__ import annotations

import time
from dataclasses import replace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, Kind, State, Trial

DISTRIBUTIONS = {"weight": optuna.distributions.FloatDistribution(0.0, 1.0)}


def proposed(number, kind=Kind.CANDIDATE):
    genes = {"weight": number / 10} if kind is Kind.CANDIDATE else {}
    label = f"candidate {number}" if kind is Kind.CANDIDATE else "base"
    return Trial(number, kind, label, 0, {"merge_method": "linear"}, (0.1,), genes)


def scored(trial, objective, **measured):
    evaluation = Evaluation(trial.number, scores={"t": {0: objective, 1: objective}}, total_seconds=1.25, **measured)
    return replace(trial, evaluation=evaluation, task_scores={"t": objective}, objective=objective)


def study(journal):
    """As another program sees it."""
    location = journal.location
    storage = location if "://" in location else JournalStorage(JournalFileBackend(location))
    return optuna.load_study(study_name=None, storage=storage)


@pytest.fixture(params=["file", "sqlite"])
def journal(request, tmp_path):
    """In a file of ours, and in a database of Optuna's."""
    place = tmp_path / "journal"
    return Journal.open(str(place) if request.param == "file" else f"sqlite:///{place}.db", create=True)


def test_the_best_trial_is_the_searchs_own_though_a_parent_is_better(journal):
    trials = [proposed(0, Kind.PARENT), proposed(1), proposed(2)]
    journal.begin(trials, DISTRIBUTIONS)
    for trial, objective in zip(trials, (0.9, 0.5, 0.7), strict=True):
        journal.finish(scored(trial, objective))
    assert study(journal).best_trial.number == 2
    assert study(journal).best_params == {"weight": 0.2}
    assert study(journal).best_value == 0.7
    assert [trial.state for trial in study(journal).trials] == [TrialState.PRUNED, *[TrialState.COMPLETE] * 2]
    assert [trial.objective for trial in journal.trials()] == [0.9, 0.5, 0.7]
    assert {trial.state for trial in journal.trials()} == {State.COMPLETE}


def test_scores_state_kind_and_seconds_are_plain_columns(journal):
    trials = [proposed(0, Kind.PARENT), proposed(1), proposed(2)]
    journal.begin(trials, DISTRIBUTIONS)
    journal.finish(scored(trials[0], 0.5))
    journal.finish(scored(trials[1], 0.5, constraints={"length": 3.0}))
    journal.finish(replace(trials[2], evaluation=Evaluation(2, failure="out of luck")))
    table = study(journal).trials_dataframe()
    assert list(table["user_attrs_kind"]) == ["parent", "candidate", "candidate"]
    assert list(table["user_attrs_label"]) == ["base", "candidate 1", "candidate 2"]
    assert list(table["user_attrs_state"]) == ["complete", "complete", "failed"]
    assert table["user_attrs_score.t"][1] == 0.5
    assert table["user_attrs_seconds"][1] == 1.25
    assert table["user_attrs_items"][1] == 2
    assert table["user_attrs_constraint.length"][1] == 3.0
    assert table["user_attrs_failure"][2] == "out of luck"


def test_a_trials_time_begins_when_a_worker_takes_it(journal):
    trials = [proposed(0), proposed(1)]
    journal.begin(trials, DISTRIBUTIONS)
    assert [trial.datetime_start for trial in study(journal).trials] == [None, None]
    journal.start(0)
    journal.start(0)  # for further items
    began = study(journal).trials[0].datetime_start
    time.sleep(0.01)
    journal.finish(scored(trials[0], 0.5))
    time.sleep(0.01)
    journal.start(1)
    journal.finish(scored(trials[1], 0.5))
    first, second = study(journal).trials
    assert first.datetime_start == began < first.datetime_complete < second.datetime_start


def test_what_is_left_to_no_worker_has_both_times(journal):
    journal.begin([proposed(0)], DISTRIBUTIONS)
    journal.finish(scored(proposed(0), 0.5))
    (trial,) = study(journal).trials
    assert trial.datetime_start <= trial.datetime_complete


def test_one_that_waits_is_running_to_the_search(journal):
    journal.begin([proposed(0), proposed(1)], DISTRIBUTIONS)
    journal.start(1)
    assert [trial.state for trial in journal.trials()] == [State.RUNNING] * 2
