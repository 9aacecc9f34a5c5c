"""`evolve tokensurgeon` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.commands.cli import main

ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"


def run(*words: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(["tokensurgeon", *words])
    return end.value.code


def test_it_takes_mergekits_words_and_says_whose_rows_tokens_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "out"
    words = ["-a", "common_interpolation", "-k", "8", "-nc", "-w", "barycentric", "-pm", "yes", "--batch-size", "-1"]
    assert run(str(ZOO / "sorting"), str(ZOO / "base"), str(output), *words, "--pad-to-multiple-of", "64") == 0
    printed = capsys.readouterr().out
    assert "0 have rows made by common_interpolation" in printed
    assert json.loads((output / "config.json").read_text())["vocab_size"] % 64 == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("./none", str(ZOO / "base"), "out"), "./none: no directory ./none"),
        ((str(ZOO / "base"), str(ZOO / "base"), "out", "-a", "pursuit"), 'method "pursuit": expected one of omp'),
        ((str(ZOO / "base"), str(ZOO / "base"), "out", "--k", "0"), "Invalid value for '--k'"),
    ],
)
def test_mistakes_are_said_without_a_traceback(
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
