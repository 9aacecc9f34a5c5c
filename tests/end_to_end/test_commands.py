"""The program starts fast, and its commands come from their files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evolve.commands.cli import make_app
from evolve.commands.registry import COMMANDS, register


def imported_by(program: str) -> set[str]:
    """Top-level names of all modules that a program has loaded at its end."""
    told = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program + told], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_imports_nothing_that_takes_long():
    heavy = {"torch", "ray", "lm_eval", "cma", "optuna", "transformers", "numpy", "pydantic"}
    assert not heavy & imported_by("from evolve.commands.cli import make_app; make_app()")


def test_status_and_best_import_no_engine():
    engines = {"torch", "ray", "lm_eval", "cma", "transformers", "merge_core", "vllm"}
    assert not engines & imported_by("import evolve.actions.status")


def test_a_name_is_given_to_one_command():
    make_app()
    with pytest.raises(ValueError, match="'status' is registered already"):
        register("status")(print)
    assert COMMANDS["status"].function is not print
