"""What a new user reads first: `evolve --help`, and every command's own."""

from __future__ import annotations

import re

import pytest
import torch
import typer
from typer.main import get_command
from typer.testing import CliRunner

from evolve.commands import cli
from evolve.commands.cli import make_app
from evolve.commands.registry import COMMANDS, FAILED


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    return make_app()


def test_commands_are_summed_up_in_whole_sentences_and_exit_codes_are_told(app: typer.Typer):
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", shown, re.MULTILINE), name
    assert "..." not in shown.partition("Commands:")[2]
    assert all(f"{code} " in shown.partition("Exit codes: ")[2] for code in (0, 1, 2, 130))


def test_every_option_says_what_it_is_and_what_goes_there(app: typer.Typer):
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            assert parameter.hidden or parameter.help, (name, parameter.name)
        shown = CliRunner().invoke(app, [name, "--help"]).output
        assert not re.search(r"--\S+ <(int|float|str|path)\b[^|]*>", shown), name


def test_commands_and_options_are_completed(app: typer.Typer):
    for words, expected in (("evolve tok", "tokensurgeon"), ("evolve check --ca", "--card")):
        settings = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_EVOLVE_COMPLETE": "complete_bash"}
        found = CliRunner().invoke(app, [], env=settings, prog_name="evolve").output.split()
        assert expected in found


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_machine_without_memory_is_one_line_and_no_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def app(**options: object) -> None:
        raise error

    monkeypatch.setattr(cli, "make_app", lambda: app)
    with pytest.raises(SystemExit) as end:
        cli.main([])
    said = capsys.readouterr().err
    assert end.value.code == FAILED
    assert said.count("\n") == 1
    assert said.startswith("error: out of memory")
    assert said.endswith("Close other programs, or use a machine with more\n")
