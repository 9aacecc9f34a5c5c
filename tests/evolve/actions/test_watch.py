"""A run that another process works on, as it is told from what that leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.distributions import FloatDistribution

from evolve.actions.watch import watch_run
from evolve.problems import ConfigError
from evolve.report.event_file import EventFile, EventReader
from evolve.report.event_record import event_record
from evolve.trials.events import GradientStepped, Preparing, RunFinished, RunStarted, TrialFinished, WorkBegun
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Evaluation, Kind, State, Trial

WEIGHT = {"weight": FloatDistribution(0.0, 1.0)}


def trial(number, objective=None, kind=Kind.CANDIDATE):
    genes = {"weight": 0.5} if kind is Kind.CANDIDATE else {}
    if objective is None:
        return Trial(number, kind, f"trial {number}", 0, {}, None, genes)
    evaluation = Evaluation(number, {"t": {0: objective}})
    return Trial(number, kind, f"trial {number}", 0, {}, None, genes, evaluation, {"t": objective}, objective)


@pytest.fixture
def begun(tmp_path):
    """A directory, what its process tells, and the journal it writes: a parent is scored, candidates are not."""
    journal = Journal.open(str(tmp_path / "journal.log"), create=True)
    journal.write_header({"config": {}, "items": {"t": {}}})
    journal.begin([trial(0, kind=Kind.PARENT), trial(1), trial(2)], WEIGHT)
    journal.finish(trial(0, 0.4, Kind.PARENT))
    with EventFile(RunDirectory(tmp_path).events, lambda _: None) as tell:
        tell(Preparing("opening 2 models"))
        tell(RunStarted(tmp_path, ["t"], 1, "cma_es", "references", 2, 3, minimized_tasks=["t"]))
        yield tmp_path, tell, journal


def finish(journal, tell, number, objective):
    journal.finish(trial(number, objective))
    done = [one for one in journal.trials() if one.state is not State.RUNNING]
    event = TrialFinished(done[number], done[number], done[0], None, number, 2, 7.5, 12.0, 640)
    tell(event)
    return event


def looks(monkeypatch, *steps):
    """A wait in which the other process makes its next step, and works until it has made all."""
    left = list(steps)
    monkeypatch.setattr(RunDirectory, "in_use", lambda _: bool(left))
    return lambda _: left.pop(0)()


def test_a_run_is_told_as_its_own_process_tells_it(begun, monkeypatch):
    directory, tell, journal = begun
    told, own = [], []
    after = [
        lambda: own.append(finish(journal, tell, 1, 0.5)),
        lambda: tell(GradientStepped("math", 3, 8, 0.61)),
        lambda: journal.begin([trial(3)], WEIGHT),
        lambda: (finish(journal, tell, 2, 0.6), own.append(finish(journal, tell, 3, 0.7))),
    ]
    assert not watch_run(directory, told.append, looks(monkeypatch, *after))
    started, first, stepped, _, last = told
    assert (started.workers, started.minimized_tasks, [one.number for one in started.resumed]) == (3, ["t"], [0])
    assert [event_record(first), event_record(last)] == list(map(event_record, own))
    assert first.best_parent.task_scores == {"t": 0.4}
    assert stepped == GradientStepped("math", 3, 8, 0.61)


def test_who_comes_later_is_told_how_it_stands(begun, monkeypatch):
    directory, tell, journal = begun
    tell(WorkBegun(["trial 1"]))
    tell(WorkBegun(["trial 1", "trial 2"]))
    finish(journal, tell, 1, 0.5)
    told = []
    end = RunFinished(directory, journal.trial(1), {"recipe": directory / "best_recipe.yml"}, "THE TABLE")
    assert watch_run(directory, told.append, looks(monkeypatch, lambda: tell(end)))
    assert [type(event) for event in told] == [RunStarted, WorkBegun, TrialFinished, RunFinished]
    assert told[1].labels == ["trial 1", "trial 2"]
    assert [one.number for one in told[0].resumed] == [0]
    assert told[-1].files == end.files


def test_a_trial_that_was_named_before_it_was_scored_is_told_with_its_score(begun, monkeypatch):
    directory, tell, journal = begun
    told = []

    def name_the_second():
        event = finish(journal, tell, 1, 0.5)
        tell(replace(event, uniform=journal.trial(2)))

    after = [name_the_second, lambda: finish(journal, tell, 2, 0.6)]
    watch_run(directory, told.append, looks(monkeypatch, *after))
    assert [one.uniform.state for one in told[2:3]] == [State.RUNNING]
    assert told[-1].trial.objective == 0.6


def test_nothing_is_lost_where_the_events_are_begun_anew(begun, monkeypatch):
    directory, tell, _ = begun
    monkeypatch.setattr("evolve.report.event_file.LARGEST", 1000)
    told = []
    steps = [lambda step=step: [tell(GradientStepped("math", step, 99, 0.5, True)) for _ in "ab"] for step in range(20)]
    watch_run(directory, told.append, looks(monkeypatch, *steps))
    assert [event.step for event in told[1:]] == [step for step in range(20) for _ in "ab"]
    assert directory.joinpath(".events.jsonl").stat().st_size < 2000
    with EventReader(RunDirectory(directory).events) as reader:
        assert next(iter(reader.news()))["event"] == "run_started"


def test_a_file_that_cannot_be_written_costs_the_view_alone(tmp_path):
    told = []
    with EventFile(tmp_path / "missing" / "events", told.append) as tell:
        tell(Preparing("one"))
    taken = tmp_path / "events"
    with EventFile(taken, told.append) as tell:
        tell(Preparing("two"))
        taken.unlink()
        taken.write_text("mine")
        tell(Preparing("three"))
    assert [event.what for event in told] == ["one", "two", "three"]
    assert taken.read_text() == "mine"
    with EventFile(tmp_path / "fine", told.append):
        assert (tmp_path / "fine").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["events"]


def test_a_run_that_nobody_works_on_tells_nothing(begun):
    told = []
    assert not watch_run(begun[0], told.append, lambda _: pytest.fail("waited"))
    assert told == []


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        watch_run(tmp_path, lambda _: None)
