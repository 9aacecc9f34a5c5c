"""`evolve extract-lora` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.commands.cli import main

ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"


def test_it_writes_an_adapter_and_says_how_near_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["extract-lora", str(ZOO / "sorting"), "--base", str(ZOO / "base"), "--output", str(tmp_path / "adapter")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--rank", "4", "--json"])
    assert end.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert 0 < printed["error"] < 1
    assert printed["error"] == json.loads((tmp_path / "adapter" / "extraction.json").read_text())["error"]
    assert {module["rank"] for module in printed["modules"]} == {4, None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extract-lora", "model"], "--base: is missing. Example: evolve extract-lora"),
        (["extract-lora", "./none", "--base", "./no", "--output", "x"], "./none: no directory ./none"),
        (["extract-lora", "a", "--base", "b", "--output", "x", "--energy", "0"], "--energy: expected a share above 0"),
    ],
)
def test_mistakes_are_said_without_a_traceback(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
