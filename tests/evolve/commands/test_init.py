"""`evolve init` on the demo's models, from its arguments and from a terminal; and completion in shells."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.config.reader import read_search
from evolve.inspection.starting_search import MORE_SETTINGS

ROOT = Path(__file__).resolve().parents[3]
ZOO = "configs/demo_zoo"
MODELS = [f"{ZOO}/{name}" for name in ("sorting", "shift", "base")]
TASKS = "demo_sorting,demo_shift"


def test_what_it_writes_is_a_sound_search_with_the_base_found(evolve: Any, tmp_path: Path) -> None:
    written = tmp_path / "search.yml"
    done = evolve("init", *MODELS, "--tasks", TASKS, "--minutes", 5, "--write", written)
    assert done.returncode == 0, done.stderr
    assert f"base model {ZOO}/base" in done.stdout
    assert f"evolve check {written}" in done.stdout
    search = yaml.safe_load(written.read_text(encoding="utf-8"))
    assert search["recipe"]["base_model"] == f"{ZOO}/base"
    assert (search["tasks"], search["budget"]) == (TASKS.split(","), {"minutes": 5})
    checked = evolve("check", written)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("line", MORE_SETTINGS.splitlines())
def test_every_setting_that_is_offered_is_sound_when_its_mark_is_taken_off(line: str, tmp_path: Path) -> None:
    search = tmp_path / "search.yml"
    recipe = f"recipe: {{merge_method: linear, models: [{{model: {ROOT / MODELS[0]}, parameters: {{weight: "
    search.write_text(f"{recipe}{{low: 0, high: 1}}}}}}]}}\ntasks: [demo_sorting]\n{line.removeprefix('# ')}\n")
    assert not read_search(search).problems


def test_a_terminal_is_asked_four_questions_and_again_what_makes_no_sense(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "evolve.commands.cli", "init", "--write", str(tmp_path / "search.yml")]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT) as asked:
        os.close(theirs)
        answers = [
            f"{ZOO}/nothing {MODELS[0]}",
            ", ".join(MODELS[:2]),
            f"{ZOO}/no-base",
            f"{ZOO}/base",
            TASKS,
            "about ten",
            "",
        ]
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        shown = asked.communicate(timeout=120)[0].decode()
    os.close(ours)
    assert asked.returncode == 0, shown
    assert f"no directory {ZOO}/nothing" in shown
    assert f"no directory {ZOO}/no-base" in shown
    assert 'expected a number of minutes, got "about ten"' in shown
    search = yaml.safe_load((tmp_path / "search.yml").read_text(encoding="utf-8"))
    assert search["recipe"]["base_model"] == f"{ZOO}/base"
    assert [model["model"] for model in search["recipe"]["models"]] == MODELS[:2]
    assert "budget" not in search


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected models"),
        (MODELS[:1], "compares with nothing"),
        ([*MODELS, f"{ZOO}/nothing"], "no directory"),
        ([*MODELS, "--write", "configs/demo.yml"], "exists"),
        ([*MODELS, "--tasks", ","], "--tasks"),
        (
            [*MODELS, "--tasks", "words:exact"],
            "--tasks: no task, group or tag is called 'words:exact'. Write {python: \"",
        ),
    ],
)
def test_mistakes_are_one_line(
    evolve: Any, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    done = evolve("init", *arguments)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize(("shell", "line"), [("bash", "evolve ins"), ("zsh", "evolve ins"), ("fish", "evolve ins")])
def test_shells_complete_commands(shell: str, line: str) -> None:
    program = [sys.executable, "-c", "from evolve.commands.cli import program; program()"]
    environment = {**os.environ, "_EVOLVE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    environment |= {"COMP_WORDS": line, "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60)
    assert re.search(r"\binspect\b", done.stdout), done.stdout + done.stderr
