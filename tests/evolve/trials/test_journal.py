"""Trials on disk."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evolve.trials.journal import Journal
from evolve.trials.journal_lines import JournalError
from evolve.trials.stage import Stage
from evolve.trials.trial import Censored, Evaluation, ItemSignals, Kind, State, Stopped, Trial

DISTRIBUTIONS = {"weight": FloatDistribution(0.0, 1.0), "method": CategoricalDistribution(("ties", "linear"))}


def candidate(number, batch=0):
    return Trial(
        number=number,
        kind=Kind.CANDIDATE,
        label=f"candidate {number}",
        batch=batch,
        recipe={"merge_method": "linear", "models": [{"model": "a"}]},
        vector=(0.1 + number / 7, 0.2),
        genes={"weight": 0.123456, "method": "ties"},
    )


def scored(trial, objective=1.0):
    evaluation = Evaluation(trial.number, scores={"t": {0: objective}})
    return replace(trial, evaluation=evaluation, task_scores={"t": objective}, objective=objective, fitness=objective)


@pytest.fixture
def location(tmp_path):
    return str(tmp_path / "journal.log")


def test_what_is_written_is_what_is_read_to_the_last_bit(location):
    journal = Journal.open(location, create=True)
    trials = [candidate(0), candidate(1)]
    journal.begin(trials, DISTRIBUTIONS)
    scores = {"task": {3: 0.1 + 0.2, 1: 1.0}, "corpus": {0: [["gold"], ["answer"]], 7: [1, 0]}}
    evaluation = Evaluation(1, scores=scores, signals={"task": {3: 1 / 3, 1: 0.1}}, total_seconds=1.5)
    task_scores = {"task": 0.65, "corpus": 12.5}
    done = replace(trials[1], evaluation=evaluation, task_scores=task_scores, objective=0.65, fitness=0.1 + 0.7)
    journal.finish(done)
    failed = replace(trials[0], evaluation=Evaluation(0, failure="NaN in tensor x", merge_seconds=0.25))
    journal.finish(failed)
    read = Journal.open(location).trials()
    assert read == [failed, done]
    assert read[0].state is State.FAILED
    assert read[0].objective is None


@dataclass(frozen=True)
class WiderEvaluation(Evaluation):
    """With two measurements more, which is all that has to be written for them to be kept."""

    token_margins: ItemSignals = field(default_factory=dict)
    peak_memory_bytes: int = 0


def test_ranges_of_genes_and_the_last_change_are_read(location):
    journal = Journal.open(location, create=True)
    assert journal.last_change() is None
    journal.begin([candidate(0)], DISTRIBUTIONS)
    journal.finish(scored(candidate(0)))
    read = Journal.open(location)
    assert read.ranges(0) == {"weight": (0.0, 1.0)}
    assert abs(read.last_change() - datetime.now()) < timedelta(hours=1)


def test_a_field_that_an_evaluation_gets_is_written_and_read_without_another_change(location, monkeypatch):
    monkeypatch.setattr("evolve.trials.trial_record.Evaluation", WiderEvaluation)
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0), candidate(1)], DISTRIBUTIONS)
    wider = WiderEvaluation(0, scores={"t": {0: 1.0}}, token_margins={"t": {7: 0.25}}, peak_memory_bytes=2**40)
    journal.finish(replace(candidate(0), evaluation=wider))
    journal.finish(scored(candidate(1)))  # of before there were such fields
    journal.keep(Stage.VALIDATION, wider)
    read = Journal.open(location)
    assert read.trials()[0].evaluation == wider
    assert read.trials()[1].evaluation == WiderEvaluation(1, scores={"t": {0: 1.0}})
    assert read.kept(Stage.VALIDATION) == {0: wider}


def test_an_evaluation_that_is_no_result_yet_is_kept_as_it_was(location):
    journal = Journal.open(location, create=True)
    evaluation = Evaluation(
        2,
        scores={"task": {3: 0.1 + 0.2, 1: 1.0}, "items": {0: {"items": [1], "values": [2]}}},
        skipped={"task": {5: "no answer"}},
        constraints={"items": 0.5, "values": 1.5},
        violations={"values": 0.5},
    )
    failure = Evaluation(4, failure="out of luck")
    journal.keep(Stage.REFERENCES, evaluation)
    journal.keep(Stage.REFERENCES, failure)
    assert Journal.open(location).kept(Stage.REFERENCES) == {2: evaluation, 4: failure}
    assert Journal.open(location).kept(Stage.VALIDATION) == {}


def test_a_trial_that_a_race_stopped_is_read_as_such_and_pruned_for_optuna(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0), candidate(1)], DISTRIBUTIONS)
    stopped = [
        replace(
            candidate(number), evaluation=Evaluation(number, {"t": {4: 1.0}}, stopped=side, estimate=0.6), fitness=0.6
        )
        for number, side in enumerate((Stopped.BELOW, Stopped.ABOVE))
    ]
    for trial in stopped:
        journal.finish(trial)
    read = Journal.open(location).trials()
    assert read == stopped
    assert {trial.state for trial in read} == {State.STOPPED}
    assert [trial.result for trial in read] == [Censored(0.6), 0.6]
    states = [trial.state for trial in optuna.load_study(study_name=None, storage=journal._storage).trials]
    assert states == [optuna.trial.TrialState.PRUNED] * 2


def test_an_evaluation_grows_by_further_items_and_fails_with_any_of_its_parts():
    first = Evaluation(3, {"a": {1: 0.5}}, {"a": {1: 0.2}}, total_seconds=1.0)
    second = Evaluation(3, {"a": {2: 1.0}, "b": {0: 0.0}}, skipped={"b": {7: "empty"}}, total_seconds=0.5)
    both = first.extended(second)
    assert both.scores == {"a": {1: 0.5, 2: 1.0}, "b": {0: 0.0}}
    assert both.signals == {"a": {1: 0.2}}
    assert both.skipped == {"b": {7: "empty"}}
    assert both.total_seconds == 1.5
    failed = first.extended(Evaluation(3, failure="out of memory", total_seconds=0.25))
    assert (failed.failure, failed.scores, failed.total_seconds) == ("out of memory", {}, 1.25)


def test_numbers_follow_the_order_of_asking_not_of_finishing(location):
    journal = Journal.open(location, create=True)
    trials = [candidate(0), candidate(1), candidate(2)]
    journal.begin(trials, DISTRIBUTIONS)
    for trial in reversed(trials):
        journal.finish(scored(trial, float(trial.number)))
    assert [trial.objective for trial in Journal.open(location).trials()] == [0.0, 1.0, 2.0]


def test_a_trial_that_was_not_finished_is_running_after_a_kill(location):
    Journal.open(location, create=True).begin([candidate(0)], DISTRIBUTIONS)
    assert [trial.state for trial in Journal.open(location, create=True).trials()] == [State.RUNNING]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_the_journal_goes_on(location, cut):
    journal = Journal.open(location, create=True)
    trial = candidate(0)
    journal.begin([trial], DISTRIBUTIONS)
    journal.finish(scored(trial))
    with open(location, "rb+") as file:
        file.truncate(file.seek(0, 2) - cut)
    mended = Journal.open(location, create=True)
    assert mended.trials()[0].state is State.RUNNING
    mended.finish(scored(trial))
    assert Journal.open(location).trials()[0].objective == 1.0


def test_optuna_reads_it_by_itself(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], DISTRIBUTIONS)
    journal.finish(scored(candidate(0)))
    backend = optuna.storages.journal.JournalFileBackend(location)
    study = optuna.load_study(study_name="evolve", storage=optuna.storages.JournalStorage(backend))
    assert study.best_params == {"weight": 0.123456, "method": "ties"}


def test_a_database_does_as_well(tmp_path):
    location = f"sqlite:///{tmp_path}/trials.db"
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], DISTRIBUTIONS)
    journal.finish(scored(candidate(0)))
    assert Journal.open(location).trials()[0].objective == 1.0


def test_another_programs_database_is_left_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("create table precious (value)")
    before = (tmp_path / "theirs.db").read_bytes()
    with pytest.raises(JournalError, match="another program's database, with precious"):
        Journal.open(f"sqlite:///{tmp_path}/theirs.db", create=True)
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_who_only_reads_makes_no_database(tmp_path):
    with pytest.raises(JournalError, match="no journal there"):
        Journal.open(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_two_writers_are_noticed(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], DISTRIBUTIONS)
    with pytest.raises(JournalError, match="another process writes"):
        journal.begin([replace(candidate(0), batch=1)], DISTRIBUTIONS)


def test_a_missing_journal_is_said_so(location):
    with pytest.raises(JournalError, match="no journal there"):
        Journal.open(location)


def test_a_driver_that_is_not_installed_is_named_and_a_password_is_not_shown(monkeypatch):
    for driver in ("MySQLdb", "pymysql"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(JournalError) as told:
        Journal.open("mysql://me:secret@127.0.0.1/trials", create=True)
    assert "storage: mysql://me:***@127.0.0.1/trials" in str(told.value)
    assert "needs pymysql. pip install 'pymysql'" in str(told.value)
    assert "secret" not in str(told.value)
