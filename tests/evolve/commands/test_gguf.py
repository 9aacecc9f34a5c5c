"""`evolve gguf` and `evolve merge --gguf` write a file, or say what does."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolve.commands.cli import main

pytest.importorskip("gguf")
ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"


def exit_code(*words: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return end.value.code


def test_what_is_not_written_is_said_with_the_command_that_does_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert exit_code("gguf", str(ZOO / "base"), str(tmp_path / "base.gguf")) == 2
    assert "convert_hf_to_gguf.py" in capsys.readouterr().err
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {ZOO / 'shift'}}}]\n")
    assert exit_code("merge", str(recipe), str(tmp_path / "out"), "--gguf", "q8_0") == 2
    error = capsys.readouterr().err
    assert "nothing is merged" in error
    assert f"--outfile {tmp_path / 'out-Q8_0.gguf'} --outtype q8_0" in error
    assert not (tmp_path / "out").exists()
    (tmp_path / "other-F16.gguf").write_text("mine")
    assert exit_code("merge", str(recipe), str(tmp_path / "other"), "--gguf", "F16") == 2
    assert not (tmp_path / "other").exists()
    capsys.readouterr()
    assert exit_code("merge", str(recipe), str(tmp_path / "other"), "--gguf", "q8_O") == 2
    assert 'type Q8_O: not written here. Did you mean "Q8_0"?' in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_command_for_a_run_names_the_model_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(ZOO / "base")
    assert exit_code("gguf", str(tmp_path / "run"), str(tmp_path / "base.gguf")) == 2
    assert f"convert_hf_to_gguf.py {tmp_path / 'run' / 'model'} --outfile" in capsys.readouterr().err
