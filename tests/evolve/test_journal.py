"""Trials on disk."""

from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evolve.journal import Journal, JournalError, finished
from evolve.trial import Evaluation, Kind, State, Trial

SHAPES = {"weight": FloatDistribution(0.0, 1.0), "method": CategoricalDistribution(("ties", "linear"))}


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


@pytest.fixture
def location(tmp_path):
    return str(tmp_path / "journal.log")


def test_what_is_written_is_what_is_read_to_the_last_bit(location):
    journal = Journal.open(location, create=True)
    trials = [candidate(0), candidate(1)]
    journal.begin(trials, [SHAPES, SHAPES])
    scores = {"task": {3: 0.1 + 0.2, 1: 1.0}, "corpus": {0: [["gold"], ["answer"]], 7: [1, 0]}}
    evaluation = Evaluation(1, scores=scores, signals={"task": {3: 1 / 3, 1: 0.1}}, total_seconds=1.5)
    done = finished(trials[1], evaluation, {"task": 0.65, "corpus": 12.5}, 0.65, guide=0.1 + 0.7)
    journal.finish(done)
    journal.finish(finished(trials[0], Evaluation(0, failure="NaN in tensor x"), {}, None))
    read = Journal.open(location).trials()
    assert read[1] == done
    assert read[0].state is State.FAILED
    assert read[0].failure == "NaN in tensor x"
    assert read[0].objective is None


def test_without_a_signal_the_optimizer_is_told_the_objective(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], [SHAPES])
    journal.finish(finished(candidate(0), Evaluation(0, scores={"t": {0: 1.0}}), {"t": 0.7}, 0.7))
    assert Journal.open(location).trials()[0].guide == 0.7


def test_numbers_follow_the_order_of_asking_not_of_finishing(location):
    journal = Journal.open(location, create=True)
    trials = [candidate(0), candidate(1), candidate(2)]
    journal.begin(trials, [SHAPES] * 3)
    for trial in reversed(trials):
        journal.finish(
            finished(trial, Evaluation(trial.number, scores={"t": {0: 1.0}}), {"t": 1.0}, float(trial.number))
        )
    assert [trial.objective for trial in Journal.open(location).trials()] == [0.0, 1.0, 2.0]


def test_a_trial_that_was_not_finished_is_running_after_a_kill(location):
    Journal.open(location, create=True).begin([candidate(0)], [SHAPES])
    assert [trial.state for trial in Journal.open(location, create=True).trials()] == [State.RUNNING]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_the_journal_goes_on(location, cut):
    journal = Journal.open(location, create=True)
    trial = candidate(0)
    journal.begin([trial], [SHAPES])
    journal.finish(finished(trial, Evaluation(0, scores={"t": {0: 1.0}}), {"t": 1.0}, 1.0))
    with open(location, "rb+") as file:
        file.truncate(file.seek(0, 2) - cut)
    mended = Journal.open(location, create=True)
    assert mended.trials()[0].state is State.RUNNING
    mended.finish(finished(trial, Evaluation(0, scores={"t": {0: 1.0}}), {"t": 1.0}, 1.0))
    assert Journal.open(location).trials()[0].objective == 1.0


def test_optuna_reads_it_by_itself(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], [SHAPES])
    journal.finish(finished(candidate(0), Evaluation(0, scores={"t": {0: 1.0}}), {"t": 1.0}, 1.0))
    backend = optuna.storages.journal.JournalFileBackend(location)
    study = optuna.load_study(study_name="evolve", storage=optuna.storages.JournalStorage(backend))
    assert study.best_params == {"weight": 0.123456, "method": "ties"}


def test_a_database_does_as_well(tmp_path):
    location = f"sqlite:///{tmp_path}/trials.db"
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], [SHAPES])
    journal.finish(finished(candidate(0), Evaluation(0, scores={"t": {0: 1.0}}), {"t": 1.0}, 1.0))
    assert Journal.open(location).trials()[0].objective == 1.0


def test_two_writers_are_noticed(location):
    journal = Journal.open(location, create=True)
    journal.begin([candidate(0)], [SHAPES])
    with pytest.raises(JournalError, match="another process writes"):
        journal.begin([replace(candidate(0), batch=1)], [SHAPES])


def test_a_missing_journal_is_said_so(location):
    with pytest.raises(JournalError, match="no journal there"):
        Journal.open(location)
