"""What is read of a run's directory, whatever has happened to it: an answer, or one line and no traceback."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finished_run import write_finished_run

from evolve.actions.push import push_model
from evolve.actions.simplify import run_simplify
from evolve.actions.status import best_trial, read_run, require_finished, run_status
from evolve.problems import ConfigError
from evolve.report.pictures.registry import Picture
from evolve.search_loop.results import write_so_far
from evolve.trials.costs import CostTerms
from evolve.trials.journal import WAY, Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.stage import Stage
from evolve.trials.step import Step
from evolve.trials.trial import Evaluation

Evolve = Callable[..., SimpleNamespace]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three candidates."""
    return write_finished_run(tmp_path / "run", (0.1, 0.9, 0.5), best=2)


def test_a_finished_run_is_told_with_its_choice(run: Path):
    assert run_status(run).facts["finished"]
    assert "chosen on the held-out items: candidate 3: 0.7000" in run_status(run).text
    assert best_trial(run).label == "candidate 3"
    assert require_finished(run).path == run


def test_steps_of_the_gradient_are_told_though_no_candidate_came_of_them_yet(run: Path):
    journal = Journal.open(str(run / "journal.log"), create=True)
    for number in range(2):
        journal.keep_step(Step(number=number, gradient=(0.1,), probabilities={"t": 0.5}, items=8))
    journal.keep(Stage.LOOK, Evaluation(0, scores={"t": {0: 0.5}}))
    assert "gradient start: 2 steps, 1 points looked at on some of the items" in run_status(run).text
    assert run_status(run).facts["gradient_steps"] == 2


def test_a_run_that_was_stopped_in_its_gradient_start_says_how_far_that_is(tmp_path: Path, evolve: Evolve):
    run = write_finished_run(tmp_path / "run", (), best=0)
    (run / "run.json").unlink()
    journal = Journal.open(str(run / "journal.log"), create=True)
    for number, score in enumerate((0.5, 0.75)):
        journal.keep(Stage.LOOK, Evaluation(number, scores={"t": {0: score, 1: score}}))
    journal.note(WAY, [[2, 0.5, "a"], [4, 0.75, "step 8 from a"]])
    told = "2 points looked at on 2 items, the best step 8 from a: 0.7500 on these. It is not a candidate yet"
    best, top = evolve("best", run), evolve("top", run)
    assert (best.returncode, top.returncode) == (2, 0)
    assert told in " ".join(best.stderr.split())
    assert told in " ".join(top.stdout.split())


SUMMARIES = [
    *("", "{", "[1]", "null", '"text"', "{}", '{"candidates": 3}', "[" * 10_000),
    *('{"candidates": 3, "best": 999}', '{"candidates": 3, "best": -1}', '{"candidates": 3, "best": "two"}'),
    '{"candidates": 3, "best": 2, "held_out": 5}',
    '{"candidates": 3, "best": 2, "held_out": {"candidate 3": "much"}}',
]


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("command", ["status", "best"])
def test_a_damaged_summary_costs_no_more_than_what_it_said(run: Path, evolve: Evolve, command: str, summary: str):
    (run / "run.json").write_text(summary)
    done = evolve(command, run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("scores", [["x"], 5, [{}], [{"name": "a", "role": "best", "search": {"": ["x", 0, 1]}}]])
def test_scores_of_a_damaged_summary_are_those_of_the_journal(run: Path, scores: object):
    (run / "run.json").write_text(json.dumps({"candidates": 3, "best": 2, "scores": scores}))
    assert [shown.role for shown in read_run(run).scores][-1] == "best"


@pytest.mark.parametrize("said", [{"machine": "x"}, {"versions": [1]}, {"search_seconds": "long"}, {"verdict": {}}])
def test_a_report_leaves_out_what_a_damaged_summary_does_not_say(run: Path, evolve: Evolve, said: dict[str, object]):
    (run / "run.json").write_text(json.dumps({"candidates": 3, "best": 2, **said}))
    done = evolve("report", run, "--output", run / "new.html")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "candidate 3" in (run / "new.html").read_text()


def test_a_picture_with_an_error_is_one_line_and_costs_a_run_nothing(
    run: Path, evolve: Evolve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    figure = SimpleNamespace(to_json=lambda: "{}")  # without a layout
    flat = Picture("Flat", "", lambda record: figure.layout.height)
    monkeypatch.setattr("evolve.report.pictures.page.all_pictures", lambda: {"flat": flat})
    done = evolve("report", run, "--output", run / "new.html")
    assert done.returncode == 2
    assert "the report cannot be made: AttributeError" in done.stderr
    journal = Journal.open(str(run / "journal.log"))
    (run / "run.json").unlink()
    write_so_far(RunDirectory(run), journal, None, CostTerms({}, {}))
    assert "warning: no report was made: 'types.SimpleNamespace'" in capfd.readouterr().err
    assert (run / "trials.csv").is_file()


def test_a_summary_of_fewer_candidates_is_of_an_earlier_end(run: Path):
    """As an earlier version left it."""
    (run / "run.json").write_text(json.dumps({"best": 0, "candidates": 2, "verdict": "old"}))
    record = read_run(run)
    assert not record.finished
    assert record.best is not None
    assert record.best.label == best_trial(run).label == "candidate 2"
    told = f"{run}: the run has gone on since its end"
    with pytest.raises(ConfigError, match=re.escape(told)):
        push_model(run, "me/merged")
    with pytest.raises(ConfigError, match=re.escape(told)):
        run_simplify(run, None, None, print)


def test_what_a_finished_run_left_is_kept_where_nothing_was_scored_since(run: Path):
    (run / "best_recipe.yml").write_text("merge_method: slerp\n")
    journal = Journal.open(str(run / "journal.log"))
    write_so_far(RunDirectory(run), journal, journal.trial(1), CostTerms({}, {}))
    assert (run / "best_recipe.yml").read_text() == "merge_method: slerp\n"
    assert not (run / "trials.csv").exists()


@pytest.mark.parametrize("name", ["run.json", ".journal.log.standing"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run: Path, name: str):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert run_status(run).facts["candidates"] == 3


@pytest.mark.parametrize("replace_by", [os.mkfifo, lambda journal: journal.symlink_to(journal.name)])
def test_what_is_no_file_in_the_place_of_the_journal_is_said_in_one_line(run: Path, evolve: Evolve, replace_by: Any):
    (run / "journal.log").unlink()
    replace_by(run / "journal.log")
    told_in_one_line(evolve("status", run))


@pytest.mark.parametrize("text", [b"", b"- a\n", b"storage: [", b"\xff\xfe", b"\0", b"storage: 5"])
@pytest.mark.parametrize("command", ["status", "best"])
def test_without_a_journal_a_broken_search_file_is_said_in_one_line(
    run: Path, evolve: Evolve, command: str, text: bytes
):
    (run / "search.yml").write_bytes(text)
    (run / "journal.log").unlink()
    told_in_one_line(evolve(command, run))


def told_in_one_line(done: SimpleNamespace) -> None:
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["status", "best"])
@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_journal_is_read_or_said_in_one_line(run: Path, evolve: Evolve, command: str, seed: int):
    journal, chance = run / "journal.log", random.Random(seed)
    content = bytearray(journal.read_bytes())
    place = chance.randrange(len(content))
    match seed % 4:
        case 0:
            content[place] = chance.randrange(256)
        case 1:
            content[place:] = bytes(64)  # as after a power cut
        case 2:
            del content[place : place + chance.randrange(1, 400)]
        case 3:
            content = content[:place]
    journal.write_bytes(content)
    done = evolve(command, run)
    if done.returncode:
        told_in_one_line(done)


@pytest.mark.parametrize("command", ["status", "best"])
def test_what_a_journal_lost_is_told_beside_what_it_still_says(run: Path, evolve: Evolve, command: str):
    journal = run / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    (lost,) = [number for number, line in enumerate(lines) if b'"result"' in line and b'"objective":0.1' in line]
    lines[lost] = lines[lost].replace(b'"objective"', b'"objektive"')
    journal.write_bytes(b"".join(lines))
    done = evolve(command, run, "--json")
    assert done.returncode == 0
    assert f"warning: {journal}:{lost + 1}: is damaged" in done.stderr
    assert "`evolve run` repairs it, and scores again what is lost" in done.stderr
    facts = json.loads(done.stdout)
    if command == "status":
        assert facts["candidates"] == 2
        assert facts["journal_faults"] == run_status(run).facts["journal_faults"] != []


@pytest.mark.parametrize("path", ["absent", "journal.log", "search.yml"])
@pytest.mark.parametrize("command", ["status", "best"])
def test_what_is_no_directory_of_a_run_is_said_in_one_line(run: Path, evolve: Evolve, command: str, path: str):
    told_in_one_line(evolve(command, run / path))
