"""`evolve run` after something happened to its journal: what it finds in the end is what an undisturbed run finds."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest
from demo_search import small_search
from finished_runs import trials

from evolve.trials.journal import Journal
from evolve.trials.trial import Kind
from evolve.trials.writer_lock import storage_held

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture
def search(site):
    return small_search(site / "search.yml")


@pytest.fixture
def finished(evolve, search, site):
    output = site / "finished"
    if not output.exists():
        done = evolve("run", search, "--output", output)
        assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def lines_of(output):
    return (output / "journal.log").read_bytes().splitlines(keepends=True)


def test_lines_that_are_lost_flipped_and_doubled_are_said_and_the_run_ends_as_if_undisturbed(
    evolve, search, finished, copied
):
    lines = lines_of(copied)
    creations = [number for number, line in enumerate(lines) if line.startswith(b'{"op_code":4')]
    results = [number for number, line in enumerate(lines) if line.startswith(b'{"op_code":8')]
    flipped = lines[results[1]].replace(b'"objective":', b'"objectivf":')
    lines[results[1]] = flipped
    lines.insert(results[0], lines[results[0]])
    del lines[creations[-2] + 1]
    (copied / "journal.log").write_bytes(b"".join(lines))
    status = evolve("status", copied)
    assert status.returncode == 0
    done = evolve("run", search, "--output", copied)
    assert done.returncode == 0, done.stderr
    assert f"{copied}/journal.log:" in done.stderr
    assert "is kept as journal.log.damaged-1" in done.stderr
    assert trials(copied) == trials(finished)


def test_only_what_is_lost_is_scored_again(evolve, search, finished, copied):
    lines = lines_of(copied)
    creations = [number for number, line in enumerate(lines) if line.startswith(b'{"op_code":4')]
    del lines[creations[-5]]
    (copied / "journal.log").write_bytes(b"".join(lines))
    before = {
        str(trial.recipe): trial.measured.total_seconds
        for trial in Journal.open(str(finished / "journal.log")).trials()
    }
    assert evolve("run", search, "--output", copied).returncode == 0
    again = [
        trial
        for trial in Journal.open(str(copied / "journal.log")).trials()
        if trial.measured.total_seconds != before[str(trial.recipe)]
    ]
    assert len([trial for trial in again if trial.kind is Kind.CANDIDATE]) == 1
    assert trials(copied) == trials(finished)


def test_jumps_of_the_clock_change_nothing(evolve, search, finished, tmp_path, monkeypatch):
    """Days forth and back, at every look at the time of day; a budget of minutes does not end by it either."""
    real, jumps = time.time, random.Random(1)
    monkeypatch.setattr(time, "time", lambda: real() + jumps.uniform(-1e6, 1e6))
    done = evolve("run", search, "--output", tmp_path / "run", "--set", "budget.minutes=60")
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path / "run") == trials(finished)


@pytest.mark.parametrize("lost", ["gone", "empty"])
def test_a_journal_that_is_gone_or_empty_is_said_before_anything_is_scored(evolve, search, copied, lost):
    journal = copied / "journal.log"
    journal.unlink() if lost == "gone" else journal.write_bytes(b"")
    before = trials(copied)
    done = evolve("run", search, "--output", copied)
    assert done.returncode == 2
    assert f"journal.log: is {lost}, though a run was begun in" in done.stderr
    assert trials(copied) == before
    assert evolve("run", search, "--output", copied, "--rescore").returncode == 0
    assert trials(copied) == before


OVERWRITING = """
import pathlib
calls = 0
def score(model, items):
    global calls
    calls += 1
    if calls == 5:
        file = pathlib.Path("configs/demo_zoo/shift/model.safetensors")
        {change}
    return [float(calls) for _ in items]
"""
CHANGES = {
    "written over": (
        'file.write_bytes(pathlib.Path("configs/demo_zoo/sorting/model.safetensors").read_bytes())',  # the same file
        "model configs/demo_zoo/shift: model.safetensors has changed",
    ),
    "gone": ("file.unlink()", "shift/model.safetensors: cannot be read any more: No such file or directory"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_a_model_that_is_changed_while_it_is_read_gives_no_result(evolve, tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "sorting", "shift"):
        shutil.copytree(ROOT / "configs" / "demo_zoo" / name, tmp_path / "configs" / "demo_zoo" / name)
    module = f"scorer_while_{change[:6].replace('.', '_')}"
    (tmp_path / f"{module}.py").write_text(OVERWRITING.format(change=change))
    task = json.dumps([{"python": f"{module}:score", "items": 8}])
    done = evolve("run", small_search(tmp_path / "search.yml"), "--output", "run", "--set", f"tasks={task}")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "run" / "model").exists()


def test_a_storage_that_is_another_file_or_in_use_is_refused_before_the_first_write(evolve, search, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("milk\nbread")
    done = evolve("run", search, "--output", tmp_path / "out", "--set", f"storage={notes}")
    assert done.returncode == 2
    assert f"{notes}: is no journal" in done.stderr
    assert notes.read_text() == "milk\nbread"
    database = f"sqlite:///{tmp_path}/trials.db"
    with storage_held(database):
        done = evolve("run", search, "--output", tmp_path / "two", "--set", f"storage={database}")
    assert done.returncode == 2
    assert "in use by process" in done.stderr
    assert not (tmp_path / "trials.db").exists()
