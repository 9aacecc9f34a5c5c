"""`evolve moe` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.commands.cli import main

ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"


def run(directory: Path, prompt: str) -> object:
    """Make `out` there; the exit code."""
    file = directory / "moe.yml"
    experts = "".join(
        f"  - {{source_model: {ZOO / name}, positive_prompts: [{prompt} {name}]}}\n" for name in ("sorting", "shift")
    )
    file.write_text(f"base_model: {ZOO / 'base'}\nexperts:\n{experts}")
    with pytest.raises(SystemExit) as end:
        main(["moe", str(file), str(directory / "out")])
    return end.value.code


def test_it_writes_a_mixture_with_routers_of_hidden_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, "do") == 0
    assert "MixtralForCausalLM" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_local_experts"] == 2


def test_a_prompt_that_the_base_does_not_read_to_its_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, "word " * 70) == 2
    assert "tokens, of which" in (told := capsys.readouterr().err)
    assert "reads 64. Shorten it" in told
    assert not (tmp_path / "out").exists()
