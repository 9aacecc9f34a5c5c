"""An installation without the checkout, used in a directory whose names are those of half of all repositories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; install the extra `dev`")
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(directory), str(ROOT)], check=True, capture_output=True)
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Python of an environment in which the wheel is installed, beside what it depends on, and no checkout."""
    environment = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A line of a .pth file adds a directory and does not read the .pth files in it, where the checkout's would be.
    dependencies = Path(yaml.__file__).resolve().parents[1]
    # And numba, without which everything is computed in plain torch, would compile the kernels of this installation.
    (packages / "dependencies.pth").write_text(f"{dependencies}\nimport sys; sys.modules['numba'] = None\n")
    return environment / "bin" / "python"


@pytest.fixture
def project(tmp_path):
    """A repository of the user's own, with a `tasks.py`, a `tasks/` and an `evolve_notes.py` in its root."""
    directory = tmp_path / "project"
    (directory / "tasks").mkdir(parents=True)
    (directory / "tasks.py").write_text('raise RuntimeError("the user\'s own tasks.py was imported")\n')
    (directory / "evolve_notes.py").write_text('raise RuntimeError("the user\'s notes were imported")\n')
    (directory / "tasks" / "__init__.py").write_text('raise RuntimeError("the user\'s own tasks were imported")\n')
    for name in ("base", "sorting", "reversal"):
        shutil.copytree(ROOT / "configs" / "demo_zoo" / name, directory / "models" / name)
    weight = {"low": 0.0, "high": 1.0}
    search = {
        "recipe": {
            "merge_method": "task_arithmetic",
            "base_model": "models/base",
            "models": [
                {"model": f"models/{name}", "parameters": {"weight": weight}} for name in ("sorting", "reversal")
            ],
            "dtype": "bfloat16",
        },
        "tasks": ["demo_sorting", {"python": "letters:share_of_right_letters", "items": "demo/reversal.jsonl"}],
        "items": {"search": 6, "held_out": 6},
        "budget": {"evaluations": 4},
        "start": "references",
        "optimizer": {"name": "cma", "population_size": 4},
        "workers": {"cpus": 1},
        "output": "run",
    }
    (directory / "search.yml").write_text(yaml.safe_dump(search))
    return directory


def run(python, project, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([python, *arguments], cwd=project, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_two_packages_and_the_tasks_that_ship(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"evolve", "merge_core"}
    shipped = {path.relative_to(ROOT / "tasks").as_posix() for path in (ROOT / "tasks").rglob("*") if path.is_file()}
    shipped = {name for name in shipped if "__pycache__" not in name}
    assert {f"evolve/scoring/task_library/{name}" for name in shipped} <= set(names)


SCRIPT = """
import sys
import evolve, merge_core
from evolve.commands.cli import main
print(evolve.__file__, file=sys.stderr)
try:
    main(["check", "search.yml", "--json"])
except SystemExit as ended:
    assert not ended.code
main(["run", "search.yml", "--json"])
"""


def test_a_script_of_the_users_may_import_the_packages_and_search_beside_tasks_of_theirs(python, project):
    (project / "script.py").write_text(SCRIPT)
    done = run(python, project, "script.py")
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stderr
    checked = json.loads(done.stdout.partition('{"event"')[0])
    assert checked["tasks"].keys() == {"demo_sorting", "share_of_right_letters"}
    assert json.loads((project / "run" / "run.json").read_text())["failed"] == 0
