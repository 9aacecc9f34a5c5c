"""The program starts fast, and its commands come from their files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from evolve.commands.cli import make_app
from evolve.commands.registry import COMMANDS, _staying, register

ENGINES = {"torch", "ray", "lm_eval", "cma", "transformers", "merge_core", "vllm"}


def imported_by(program: str) -> set[str]:
    """Top-level names of all modules that a program has loaded at its end."""
    told = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program + told], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    return set(done.stdout.split())


def test_help_imports_nothing_that_takes_long():
    heavy = {"torch", "ray", "lm_eval", "cma", "optuna", "transformers", "numpy", "pydantic"}
    assert not heavy & imported_by("from evolve.commands.cli import make_app; make_app()")


def test_status_best_and_top_import_no_engine():
    assert not ENGINES & imported_by("import evolve.actions.status, evolve.report.run_record, evolve.report.top_table")


def test_the_optimizers_import_no_package_before_one_is_made():
    assert not {"cma", "cmaes", "scipy"} & imported_by("import evolve.optimizers")


NOT_THERE = [
    *(["status", "nosuch"], ["best", "nosuch"], ["simplify", "nosuch"], ["inspect", "nosuch"]),
    *(["check", "nosuch.yml"], ["run", "nosuch.yml"], ["sweep", "nosuch.yml"], ["merge", "nosuch.yml", "out"]),
    *(["eval", "nosuch.yml", "--tasks", "t"], ["eval", "./nosuch", "--tasks", "t"], ["inspect", "./no", "./such"]),
    ["eval", "model", "--tasks-from", "nosuch.yml"],
    *(["top", "nosuch"], ["watch", "nosuch"], ["report", "nosuch"], ["push", "nosuch", "a/b"], ["bundle", "nosuch"]),
    *(["run", "--from", "nosuch"], ["gguf", "./no", "no.gguf"], ["moe", "nosuch.yml", "out"]),
    *(["extract-lora", "./no", "--base", "./such", "--output", "out"], ["tokensurgeon", "./no", "./such", "out"]),
]


def test_what_is_not_there_is_said_before_an_engine_is_imported(tmp_path):
    program = f"""
import sys
from evolve.commands.cli import main
for arguments in {NOT_THERE!r}:
    try:
        main(arguments)
    except SystemExit as end:
        print(end.code, arguments, *sorted({ENGINES!r} & sys.modules.keys()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"2 {arguments}" for arguments in NOT_THERE]
    assert "Traceback" not in done.stderr


def test_a_name_is_given_to_one_command():
    make_app()
    with pytest.raises(ValueError, match="'status' is registered already"):
        register("status")(print)
    assert COMMANDS["status"].function is not print


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_says_so_in_a_line(number, evolve, monkeypatch):
    def wait() -> None:
        os.kill(os.getpid(), number)

    make_app()
    monkeypatch.setitem(COMMANDS, "status", replace(COMMANDS["status"], function=_staying(wait)))
    stopped = evolve("status")
    assert stopped.returncode == 130
    assert stopped.stderr.startswith("Stopped.")
    assert stopped.stderr.count("\n") == 1


def test_a_locale_without_a_name_for_a_file_is_said_in_a_line(evolve, monkeypatch):
    make_app()
    monkeypatch.setitem(COMMANDS, "status", replace(COMMANDS["status"], function=lambda: "b\xe4se".encode("ascii")))
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    refused = evolve("status")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr == "error: names of files are ascii in this locale, which has no '\\xe4'. Set PYTHONUTF8=1\n"
