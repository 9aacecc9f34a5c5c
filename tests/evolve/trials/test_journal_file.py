"""Journals that something happened to: what can be saved is, what is lost is said, nothing is what it was not."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from full_disk import files_up_to
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from evolve.trials.journal import Journal
from evolve.trials.journal_file import JournalFile
from evolve.trials.journal_lines import JournalError, operation_of, sealed
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, State, Trial

GENES = {"weight": FloatDistribution(0.0, 1.0)}
SIZE = 6
HEADER = {"config": {"seed": 1}, "items": {"t": {"search": [0]}}}


def trial_of(number):
    return Trial(
        number=number,
        kind=Kind.CANDIDATE,
        label=f"candidate {number}",
        batch=number // 3,
        recipe={"models": [{"model": "a", "weight": number / 7}]},
        vector=(number / 7,),
        genes={"weight": number / 70},
    )


def scored(number):
    score = number / 3
    evaluation = Evaluation(number, scores={"t": {0: score, 1: 0.25}})
    trial = replace(trial_of(number), evaluation=evaluation, task_scores={"t": score}, objective=score, fitness=score)
    return trial if number != 4 else replace(trial_of(4), evaluation=Evaluation(4, failure="out of luck"))


TRIALS = [scored(number) for number in range(SIZE)]


def write(location):
    journal = Journal.open(str(location), create=True)
    journal.write_header(HEADER)
    for batch in range(SIZE // 3):
        numbers = range(3 * batch, 3 * batch + 3)
        journal.begin([trial_of(number) for number in numbers], GENES)
        for number in reversed(numbers):
            journal.finish(scored(number))
        journal.note("search_seconds", batch)
    return journal


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    location = tmp_path_factory.mktemp("whole") / "journal.log"
    write(location)
    return location.read_bytes()


@pytest.fixture
def location(tmp_path):
    return tmp_path / "journal.log"


def check_sound(journal):
    """A trial is what it was, or is to be scored, or is gone with the later ones."""
    trials = journal.trials()
    for number, trial in enumerate(trials):
        assert trial in (TRIALS[number], trial_of(number))
    assert journal.header in (HEADER, {})
    return trials


def kinds_of_lines():
    """What `write` leaves, line by line."""
    kinds = ["study", "note", "note"]
    for batch in range(SIZE // 3):
        kinds += ["creation"] * 3
        for number in reversed(range(3 * batch, 3 * batch + 3)):
            columns = 4 if number == 4 else 5  # a failure has no score
            kinds += ["start", *["column"] * columns, "result", "end"]
        kinds.append("note")
    return kinds


KINDS = kinds_of_lines()
LINES = len(KINDS)
CREATIONS = {line for line, kind in enumerate(KINDS) if kind == "creation"}
# One column of a trial is as another.
DAMAGED = [line for line, kind in enumerate(KINDS) if kind != "column" or KINDS[line - 1] != "column"]


@pytest.mark.parametrize("line", DAMAGED)
@pytest.mark.parametrize("damage", ["lost", "doubled", "flipped", "blank", "cut", "swapped", "nulls", "garbage"])
def test_one_line_costs_no_more_than_what_it_said(damage, line, whole, location):
    lines = whole.splitlines(keepends=True)
    assert len(lines) == LINES
    one = lines[line]
    middle = len(one) // 2
    lines[line : line + 1] = {
        "lost": [],
        "doubled": [one, one],
        "flipped": [one[:middle] + bytes([one[middle] ^ 1]) + one[middle + 1 :]],
        "blank": [b"\n", one],
        "cut": [one[:middle] + b"\n"],
        "swapped": [*lines[line + 1 : line + 2], one],
        "nulls": [b"\0" * len(one) + b"\n"],
        "garbage": ["né \ud800".encode("utf-8", "surrogatepass") + b"\xff\n", one],
    }[damage]
    if damage == "swapped":
        del lines[line + 2 : line + 3]
    location.write_bytes(b"".join(lines))
    read = check_sound(Journal.open(str(location)))
    journal = Journal.open(str(location), create=True)
    assert check_sound(journal) == read
    if damage in ("doubled", "blank"):
        assert read == TRIALS
    assert journal.header == HEADER  # which is there twice
    changed = b"".join(lines) != whole
    last = damage in ("lost", "cut", "nulls", "flipped") and line == LINES - 1
    assert bool(journal.faults) == (changed and not (damage == "lost" and last))
    if line not in CREATIONS and damage != "swapped":
        assert sum(trial.state is State.RUNNING for trial in read) <= 1
        assert len(read) == SIZE
    if journal.faults:
        assert f"{location}:" in journal.faults[0]
        kept = location.with_name("journal.log.damaged-1")
        assert kept.read_bytes() == b"".join(lines)
    assert Journal.open(str(location), create=True).faults == []  # it is whole from now on


def test_what_comes_after_a_lost_creation_is_saved_with_its_recipe(whole, location):
    lines = whole.splitlines(keepends=True)
    del lines[4]
    location.write_bytes(b"".join(lines))
    journal = Journal.open(str(location), create=True)
    assert journal.trials() == TRIALS[:1]
    saved = [(recipe, evaluation.scores) for recipe, evaluation in journal.saved()]
    expected = [(trial.recipe, trial.measured.scores) for trial in TRIALS[2:]]
    assert saved == expected
    assert [recipe for recipe, _ in Journal.open(str(location), create=True).saved()] == [one for one, _ in expected]
    journal.begin([trial_of(1)], GENES)
    journal.finish(scored(1))
    assert Journal.open(str(location)).trials() == TRIALS[:2]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_a_journal_it_opens_or_says_why_not(data, whole, tmp_path_factory):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.integers(0, 400))
        content[start : start + length] = data.draw(st.binary(max_size=40))
    location = tmp_path_factory.mktemp("any") / "journal.log"
    location.write_bytes(content)
    try:
        read = check_sound(Journal.open(str(location)))
        assert check_sound(Journal.open(str(location), create=True)) == read
    except JournalError:
        assert location.read_bytes() == content  # and is left as it is
        return
    assert Journal.open(str(location), create=True).faults == []


RESULT = ("user_attr", "result")
NEVER_WRITTEN = [
    *((("study_id",), value) for value in (10**12, 10**4, -1, "0", None)),
    *((("creates",), value) for value in (10**12, -1, 1.5)),
    *((("trial_id",), value) for value in (10**12, [0])),
    *((("user_attr", "header"), value) for value in (True, "x", [1])),
    *((("user_attr", "header", "config"), value) for value in (None, 3)),
    *(((*RESULT, "objective"), value) for value in (10**400, None)),
    *(((*RESULT, "scores"), value) for value in (3, {"t": {"items": [0], "values": [1, 2]}})),
]


@pytest.mark.parametrize(("place", "value"), NEVER_WRITTEN, ids=lambda part: str(part)[:40])
def test_a_sealed_line_that_no_run_writes_is_left_out_or_said(place, value, whole, location):
    lines = [operation_of(line) for line in whole.splitlines()]
    for line in lines:
        with contextlib.suppress(KeyError):
            functools.reduce(operator.getitem, place[:-1], line)[place[-1]] = value
    location.write_bytes(b"".join(sealed(line, number) for number, line in enumerate(lines)))
    for create in (False, True):
        with contextlib.suppress(JournalError):
            standing = Journal.open(str(location), create=create).standing()
            assert all(isinstance(f"{trial.objective:.4f}", str) for trial in standing.scored)


@pytest.mark.parametrize(
    "content", ["shopping:\n- milk\n", '{"a": 1}\n', "\n\nnotes\n", "[1]\n", "no end of line", "\0\1\2\n"]
)
def test_another_file_is_left_as_it_is(content, location):
    location.write_text(content)
    (location.parent / "journal.log.lock").write_text("mine")
    with pytest.raises(JournalError, match="is no journal: of its lines"):
        Journal.open(str(location), create=True)
    assert location.read_text() == content
    assert (location.parent / "journal.log.lock").read_text() == "mine"


def test_a_link_stays_one_and_what_it_names_is_written(whole, location, tmp_path):
    real = tmp_path / "elsewhere" / "real.log"
    real.parent.mkdir()
    real.write_bytes(b"\n" + whole)
    location.symlink_to(real)
    assert Journal.open(str(location), create=True).trials() == TRIALS
    assert location.is_symlink()
    assert real.read_bytes() == whole


@pytest.fixture
def journal(location):
    return write(location)


def grow(journal):
    journal.begin([trial_of(SIZE)], GENES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: os.truncate(at, at.stat().st_size - 100), "it was cut while the run went on"),
        (lambda at: os.truncate(at, 0), "has 0 bytes"),
        (lambda at: at.write_bytes(at.read_bytes() + b"more"), "it was written to while the run went on"),
    ],
)
def test_a_journal_that_is_changed_while_the_run_goes_on_is_named_with_what_happened(change, said, journal, location):
    change(location)
    content = location.read_bytes()
    with pytest.raises(JournalError, match=said) as raised:
        grow(journal)
    assert "Run the same command again" in str(raised.value)
    assert location.read_bytes() == content


@pytest.mark.parametrize("remove", [Path.unlink, lambda at: shutil.rmtree(at.parent)])
def test_a_journal_that_is_deleted_while_the_run_goes_on_is_put_back(remove, journal, location):
    content = location.read_bytes()
    remove(location)
    with pytest.raises(JournalError, match="was deleted while the run went on, and is put back"):
        grow(journal)
    assert location.read_bytes() == content
    assert Journal.open(str(location), create=True).trials() == TRIALS


def test_another_file_in_its_place_is_not_written_over(journal, location):
    location.rename(location.with_name("moved"))
    location.write_text("mine\n")
    with pytest.raises(JournalError, match="another file took its place"):
        grow(journal)
    assert location.read_text() == "mine\n"


def test_a_disk_that_is_full_leaves_the_journal_whole_and_the_run_goes_on_when_it_is_not(location):
    journal = write(location)
    size = location.stat().st_size
    with files_up_to(size + 50):
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                grow(journal)
            assert location.stat().st_size == size
    grow(journal)
    journal.finish(scored(SIZE))
    journal = Journal.open(str(location))
    assert journal.faults == []
    assert journal.trials() == [*TRIALS, scored(SIZE)]


def test_a_copy_of_the_process_does_not_write(journal, location):
    content = location.read_bytes()
    child = os.fork()
    if not child:
        try:
            grow(journal)
        except JournalError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert location.read_bytes() == content


def test_a_clock_that_jumps_changes_nothing(location, monkeypatch):
    import datetime

    journal = write(location)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(1970 + random.Random(5).randrange(100), 1, 1, tzinfo=tz)

    monkeypatch.setattr("optuna.storages.journal._storage.datetime", Clock)
    grow(journal)
    journal.finish(scored(SIZE))
    assert Journal.open(str(location)).trials() == [*TRIALS, scored(SIZE)]


def test_lines_of_another_program_are_left_out_and_said(journal, location):
    backend = optuna.storages.journal.JournalFileBackend(str(location))
    study = optuna.load_study(study_name="evolve", storage=optuna.storages.JournalStorage(backend))
    study.set_user_attr("by", "a dashboard")
    study.ask()
    opened = Journal.open(str(location), create=True)
    assert opened.trials() == TRIALS
    assert ": was written by another program" in opened.faults[0]


def test_strays_in_a_database_are_left_out_and_said(tmp_path):
    location = f"sqlite:///{tmp_path}/trials.db"
    write(location)
    study = optuna.load_study(study_name="evolve", storage=location)
    study.add_trial(optuna.trial.create_trial(value=9.0))
    journal = Journal.open(location, create=True)
    assert journal.trials() == TRIALS
    assert journal.faults == [f"{location}: 1 trials are not of this search, and are left out"]
    grow(journal)
    journal.finish(scored(SIZE))
    assert Journal.open(location).trials() == [*TRIALS, scored(SIZE)]


def test_a_search_that_is_begun_anew_leaves_the_old_one_in_the_journal(journal, location):
    journal.begin_anew()
    assert journal.trials() == []
    assert journal.header == {}
    journal.begin([trial_of(0)], GENES)
    assert Journal.open(str(location)).trials() == [trial_of(0)]
    backend = optuna.storages.journal.JournalFileBackend(str(location))
    storage = optuna.storages.JournalStorage(backend)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in ("evolve", "evolve-2")]
    assert [len(study.get_trials()) for study in studies] == [SIZE, 1]


def test_texts_from_anywhere_are_kept_in_one_line_of_bounded_length(journal, location):
    text = "x\ud800\x1b[31m\n" * 200_000 + "the end"
    failed = replace(trial_of(SIZE), evaluation=Evaluation(SIZE, failure=text, skipped={"t": {3: text}}))
    size = location.stat().st_size
    grow(journal)
    journal.finish(failed)
    journal.keep(Stage.LOOK, Evaluation(0, failure=text))
    journal.note("command", {"line": "\udcff"})
    assert location.stat().st_size - size < 10_000
    read = Journal.open(str(location))
    reason = read.trials()[SIZE].measured.failure
    assert reason.endswith("the end")
    assert reason.isprintable()
    assert len(reason) < 600
    json.dumps(read.noted("command"), ensure_ascii=False).encode()


def test_reading_is_linear_in_the_trials(tmp_path):
    """By the lines that are read, not by the clock."""
    location = tmp_path / "journal.log"
    journal = Journal.open(str(location), create=True)
    counted = []
    original = type(journal._file)._operations

    def counting(self):
        for operation in original(self):
            counted.append(1)
            yield operation

    type(journal._file)._operations = counting
    try:
        for number in range(60):
            journal.begin([replace(trial_of(number), genes={})], GENES)
            journal.finish(scored(number))
        assert not counted  # what is written is not read again
        Journal.open(str(location)).trials()
        assert len(counted) == len(location.read_bytes().splitlines())
    finally:
        type(journal._file)._operations = original


def test_what_is_written_at_once_is_on_disk_at_the_end_or_not_at_all(tmp_path):
    file = JournalFile(tmp_path / "journal.log")
    file.open_for_writing()
    with file.one_write():
        file.append_logs([{"op_code": 0, "study_name": "a", "worker_id": ""}])
        file.append_logs([{"op_code": 2, "study_id": 0, "worker_id": "", "user_attr": {"a": 1}}])
        assert file.path.stat().st_size == 0
    whole = file.path.read_bytes()
    assert whole.count(b"\n") == 2
    with contextlib.suppress(KeyError), file.one_write():
        file.append_logs([{"op_code": 2, "study_id": 0, "worker_id": "", "user_attr": {"a": 2}}])
        raise KeyError
    assert file.path.read_bytes() == whole
    file.append_logs([{"op_code": 2, "study_id": 0, "worker_id": "", "user_attr": {"a": 3}}])
    assert not JournalFile(file.path).faults
    assert b'"line":2' in file.path.read_bytes()
