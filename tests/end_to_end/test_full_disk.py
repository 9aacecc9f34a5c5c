"""`evolve run` whose files may not grow any further, as on a full disk: one line, and it goes on once there is room."""

from __future__ import annotations

import errno
import os

import pytest
from demo_search import small_search
from finished_runs import fingerprint, trials
from full_disk import files_up_to

from evolve.report.pictures import still
from evolve.trials.run_directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def search(tmp_path):
    return small_search(tmp_path / "search.yml")


def test_a_run_goes_on_after_the_disk_was_full_for_its_journal_and_then_for_its_model(evolve, search, tmp_path):
    assert evolve("run", search, "--output", tmp_path / "whole").returncode == 0
    journal = (tmp_path / "whole" / "journal.log").read_bytes()
    weights = (tmp_path / "whole" / "model" / "model.safetensors").stat().st_size
    scored = [at for at in range(len(journal)) if journal.startswith(b'"result"', at)]
    run = tmp_path / "run"
    for limit, results in ((scored[4], 4), (weights // 2, len(scored))):
        with files_up_to(limit):
            done = evolve("run", search, "--output", run)
        assert done.returncode == 2
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "File too large" in error
        assert "Traceback" not in done.stderr
        assert (run / "journal.log").read_bytes().count(b'"result"') == results
        assert not (run / "model").exists()
        assert not [path.name for path in run.iterdir() if path.name.endswith(".safetensors")]
    assert evolve("run", search, "--output", run).returncode == 0
    assert trials(run) == trials(tmp_path / "whole")
    assert fingerprint(run) == fingerprint(tmp_path / "whole")
    assert evolve("status", run).stderr == ""
    report = tmp_path / "report.html"
    with files_up_to(1000):
        done = evolve("report", run, "--output", report)
    assert (done.returncode, report.exists()) == (2, False)
    assert done.stderr == f"error: {report}: File too large. Free some space, or name another path\n"


def test_a_result_stands_where_there_is_no_room_for_its_pictures(evolve, search, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write = RunDirectory.write
    monkeypatch.setattr(still, "png", full)
    monkeypatch.setattr(
        RunDirectory, "write", lambda own, file, text: full() if file == own.report else write(own, file, text)
    )
    done = evolve("run", search, "--output", tmp_path / "run", "--set", "budget.evaluations=2")
    assert done.returncode == 0, done.stderr
    for picture in ("picture of the search", "report"):
        assert f"warning: no {picture} was made: [Errno 28] No space left on device. Try: evolve report" in done.stderr
    assert fingerprint(tmp_path / "run")
    assert (tmp_path / "run" / "README.md").exists()
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
