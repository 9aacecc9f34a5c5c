"""A run that another process works on, as it is told from its journal."""

from __future__ import annotations

import pytest
from optuna.distributions import FloatDistribution

from evolve.actions.watch import watch_run
from evolve.problems import ConfigError
from evolve.trials.events import RunStarted, TrialFinished
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Evaluation, Kind, Trial

WEIGHT = {"weight": FloatDistribution(0.0, 1.0)}


def trial(number, objective=None, kind=Kind.CANDIDATE):
    genes = {"weight": 0.5} if kind is Kind.CANDIDATE else {}
    if objective is None:
        return Trial(number, kind, f"trial {number}", 0, {}, None, genes)
    evaluation = Evaluation(number, {"t": {0: objective}})
    return Trial(number, kind, f"trial {number}", 0, {}, None, genes, evaluation, {"t": objective}, objective)


@pytest.fixture
def begun(tmp_path):
    """A directory, and the journal that its process writes: a parent is scored, two candidates are not."""
    journal = Journal.open(str(tmp_path / "journal.log"), create=True)
    journal.write_header({"config": {"budget": {"evaluations": 2}, "workers": {"count": 3}}, "items": {"t": {}}})
    journal.begin([trial(0, kind=Kind.PARENT), trial(1), trial(2)], WEIGHT)
    journal.finish(trial(0, 0.4, Kind.PARENT))
    return tmp_path, journal


def test_what_is_there_comes_first_and_then_what_is_finished_meanwhile(begun, monkeypatch):
    directory, journal = begun
    told, waits = [], []
    monkeypatch.setattr(RunDirectory, "in_use", lambda _: len(waits) < 2)

    def wait(seconds):
        waits.append(seconds)
        journal.finish(trial(len(waits), 0.4 + len(waits) / 10))

    watch_run(directory, told.append, wait)
    started, *finished = told
    assert isinstance(started, RunStarted)
    assert (started.workers, started.evaluation_budget, list(started.task_names)) == (3, 2, ["t"])
    assert [one.number for one in started.resumed] == [0]
    assert all(isinstance(event, TrialFinished) for event in finished)
    assert [(event.trial.number, event.candidates_done, event.best.number) for event in finished] == [
        (1, 1, 1),
        (2, 2, 2),
    ]
    assert {event.best_parent.number for event in finished} == {0}


def test_a_run_that_nobody_works_on_is_told_and_left(begun):
    told = []
    watch_run(begun[0], told.append, lambda _: pytest.fail("waited"))
    assert [type(event) for event in told] == [RunStarted]


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        watch_run(tmp_path, lambda _: None)
