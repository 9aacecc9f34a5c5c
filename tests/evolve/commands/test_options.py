"""Arguments that several commands take, found wrong before anything that takes seconds is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from huggingface_hub import constants

from evolve.commands.options import require_models
from evolve.problems import ConfigError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--org--known").mkdir()
    return tmp_path


@pytest.mark.parametrize("model", ["org/nosuch", "org/nosuch@main", "org/nosuch+org/known"])
def test_a_model_that_is_neither_here_nor_to_be_asked_for_is_told_with_a_way_out(cache, model):
    with pytest.raises(ConfigError, match=r"no directory org/nosuch, and no copy .* HF_HUB_OFFLINE .* `hf download"):
        require_models([model])


@pytest.mark.parametrize("model", ["nosuch", "nosuch@main"])
def test_no_download_is_advised_of_what_has_no_owner(cache, model):
    with pytest.raises(ConfigError, match=r"no directory nosuch, and no copy .*Correct the path$"):
        require_models([model])


@pytest.mark.parametrize("model", ["org/known", "org/known@v1", "org/known+org/known"])
def test_a_model_of_which_the_hub_left_a_copy_may_be_there(cache, model):
    require_models([model])


def test_a_model_may_be_on_the_hub_where_that_is_asked(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    require_models(["nosuch"])


def test_no_engine_is_imported_to_find_it_out(tmp_path):
    code = (
        "import sys\n"
        "from evolve.commands import cli\n"
        "try:\n    cli.main(['eval', 'nosuch', '--tasks', 'any'])\n"
        "except SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'lm_eval', 'optuna') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "2 []"
    assert "nosuch" in done.stderr


@pytest.mark.parametrize(
    "command", [["run"], ["run", "--from"], ["status"], ["report"], ["sweep"], ["check"]], ids=" ".join
)
@pytest.mark.parametrize("kind", ["long", "circle"])
def test_a_path_that_the_file_system_refuses_is_said_in_one_line(evolve, tmp_path, command, kind):
    path = tmp_path / ("n" * 300 if kind == "long" else "circle")
    if kind == "circle":
        path.symlink_to(path.name)
    done = evolve(*command, path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
