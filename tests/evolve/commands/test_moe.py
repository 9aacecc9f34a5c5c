"""`evolve moe` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.commands.cli import main

ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"


def test_it_writes_a_mixture_with_routers_of_hidden_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "moe.yml"
    experts = "".join(
        f"  - {{source_model: {ZOO / name}, positive_prompts: [{name}]}}\n" for name in ("sorting", "shift")
    )
    file.write_text(f"base_model: {ZOO / 'base'}\nexperts:\n{experts}")
    with pytest.raises(SystemExit) as end:
        main(["moe", str(file), str(tmp_path / "out")])
    assert end.value.code == 0
    assert "MixtralForCausalLM" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_local_experts"] == 2
