"""`evolve report`, `evolve top` and `evolve watch` of a run that was stopped early."""

from __future__ import annotations

import json

import pytest
from optuna.distributions import FloatDistribution

from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, Kind, Trial

WEIGHT = {"weight": FloatDistribution(0.0, 1.0)}


def scored(number, objective, kind=Kind.CANDIDATE):
    genes = {"weight": number / 10} if kind is Kind.CANDIDATE else {}
    evaluation = Evaluation(number, {"t": {0: objective}})
    recipe = {"merge_method": "linear"}
    return Trial(number, kind, f"model {number}", 0, recipe, None, genes, evaluation, {"t": objective}, objective)


@pytest.fixture
def run(tmp_path):
    """Its directory, with a parent and two candidates."""
    directory = tmp_path / "stopped"
    directory.mkdir()
    journal = Journal.open(str(directory / "journal.log"), create=True)
    journal.write_header({"config": {"seed": 3}, "items": {"t": {}}})
    for trial in (scored(0, 0.4, Kind.PARENT), scored(1, 0.3), scored(2, 0.6)):
        journal.begin([trial], WEIGHT)
        journal.finish(trial)
    return directory


def test_the_report_is_written_into_the_run_and_again_over_itself(evolve, run):
    for _ in range(2):
        done = evolve("report", run)
        assert (done.returncode, done.stdout.strip()) == (0, str(run / "report.html"))
    assert "has not come to its end" in (run / "report.html").read_text()


def test_several_runs_need_a_file_and_stand_in_it(evolve, run, tmp_path):
    assert "--output: name the file" in evolve("report", run, run).stderr
    done = evolve("report", run, run, "--output", tmp_path / "both.html")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "both.html"))
    assert (tmp_path / "both.html").read_text().count('data-section="history"') == 2


def test_pictures_are_files_on_demand(evolve, run, tmp_path):
    pytest.importorskip("matplotlib")
    done = evolve("report", run, "--png", tmp_path / "pictures")
    assert (tmp_path / "pictures" / "history.png").is_file()
    assert str(tmp_path / "pictures" / "history.png") in done.stdout
    assert evolve("report", run, run, "--png", tmp_path).returncode == 2


def test_no_file_is_written_over_but_an_earlier_one_of_its_kind(evolve, run, tmp_path):
    pytest.importorskip("matplotlib")
    page, pictures = tmp_path / "page.html", tmp_path / "pictures"
    for _ in range(2):
        assert evolve("report", run, "--output", page, "--png", pictures).returncode == 0
    (tmp_path / "link.html").symlink_to(page)
    assert evolve("report", run, "--output", tmp_path / "link.html").returncode == 0
    assert (tmp_path / "link.html").is_symlink()
    journal = run / "journal.log"
    for precious in (journal, page, pictures / "history.png"):
        if precious != journal:
            precious.write_text("mine")
        before = precious.read_bytes()
        where = ("--png", pictures) if precious.suffix == ".png" else ("--output", precious)
        done = evolve("report", run, *where)
        assert (done.returncode, f"{precious}: exists, and evolve did not write it" in done.stderr) == (2, True)
        assert precious.read_bytes() == before


def test_the_report_of_another_run_stays(evolve, run, tmp_path):
    evolve("report", run)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "journal.log").write_bytes((run / "journal.log").read_bytes())
    done = evolve("report", tmp_path / "copy", "--output", run / "report.html")
    assert (done.returncode, "is the report of the run there" in done.stderr) == (2, True)
    assert evolve("report", run, "--output", run / "report.html").returncode == 0


def test_what_is_no_run_is_said(evolve, tmp_path):
    done = evolve("report", tmp_path)
    assert (done.returncode, "holds no run" in done.stderr) == (2, True)


def test_the_top_is_a_table_and_data(evolve, run):
    assert "all" in next(line for line in evolve("top", run).stdout.splitlines() if line.startswith("model 2"))
    found = json.loads(evolve("top", run, "-n", 1, "--json").stdout)
    assert [(one["label"], one["beats"]) for one in found] == [("model 2", ["model 0"])]


def test_watching_a_run_that_nobody_works_on_ends_with_its_status(evolve, run):
    done = evolve("watch", run)
    assert done.returncode == 0
    assert "not finished, 2 candidates scored" in done.stdout
