"""`evolve merge` takes the command lines of mergekit-yaml and mergekit-multi."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from evolve.commands.cli import main, make_app
from merge_core import Checkpoint

OPTIONS = [
    *("--allow-crimes", "--unsafe-truncate-embeddings", "--clone-tensors", "--low-cpu-memory", "--lazy-unpickle"),
    *("--no-trust-remote-code", "--no-cuda", "--no-read-to-gpu", "--no-multi-gpu", "--async-write", "-v", "--quiet"),
    *("--transformers-cache", "cache", "--lora-merge-cache", "loras", "--lora-merge-dtype", "float32"),
    *("--random-seed", "7", "--device", "cpu", "-j", "1", "--write-threads", "2", "--out-shard-size", "1K"),
    *("--copy-tokenizer", "--write-model-card", "--safe-serialization"),
]
MERGEKIT_OPTIONS = """
import json
from mergekit.scripts import multimerge, run_yaml
parameters = run_yaml.main.params + multimerge.main.params
print(json.dumps([name for parameter in parameters for name in parameter.opts + parameter.secondary_opts]))
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Llamas base, a, b and c in the working directory."""
    monkeypatch.chdir(tmp_path)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 10,
        "tie_word_embeddings": True,
    }
    for seed, name in enumerate(("base", "a", "b", "c")):
        torch.manual_seed(seed)
        tensors = {"model.embed_tokens.weight": torch.randn(10, 8), "model.norm.weight": torch.randn(8)}
        for layer in range(2):
            prefix = f"model.layers.{layer}."
            tensors |= {f"{prefix}self_attn.{part}_proj.weight": torch.randn(8, 8) for part in "qkvo"}
            tensors |= {f"{prefix}mlp.{part}_proj.weight": torch.randn(12, 8) for part in ("gate", "up")}
            tensors |= {f"{prefix}mlp.down_proj.weight": torch.randn(8, 12)}
            tensors |= {f"{prefix}{part}_layernorm.weight": torch.randn(8) for part in ("input", "post_attention")}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.fixture
def single(zoo: Path) -> Path:
    """A recipe of one document."""
    text = f"""
merge_method: ties
base_model: {zoo}/base
models:
  - {{model: {zoo}/a, parameters: {{weight: 0.5, density: 0.5}}}}
  - {{model: {zoo}/b, parameters: {{weight: 0.5, density: 0.5}}}}
dtype: float32
"""
    (zoo / "single.yml").write_text(text)
    return zoo / "single.yml"


@pytest.fixture
def several(zoo: Path) -> Path:
    """A recipe of three documents."""
    text = f"""
merge_method: task_arithmetic
base_model: {zoo}/base
models:
  - {{model: quarter, parameters: {{weight: 0.7}}}}
  - {{model: {zoo}/c, parameters: {{weight: 0.2}}}}
dtype: float32
---
name: half
merge_method: linear
models:
  - {{model: {zoo}/a, parameters: {{weight: 1}}}}
  - {{model: {zoo}/b, parameters: {{weight: 1}}}}
dtype: float32
---
name: quarter
merge_method: slerp
base_model: half
models: [{{model: half}}, {{model: {zoo}/c}}]
parameters: {{t: 0.3}}
dtype: float32
"""
    (zoo / "several.yml").write_text(text)
    return zoo / "several.yml"


def run(*arguments: str | Path) -> None:
    """Runs `evolve`, which is to end without an error."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that `evolve` refuses its arguments with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(directory)
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


def same(one: Path, two: Path, tolerance: float = 0.0) -> None:
    found, expected = tensors(one), tensors(two)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0.0, atol=tolerance)


def test_what_a_recipe_says_in_vain_is_a_warning_and_refused_with_strict(
    single: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
):
    single.write_text(single.read_text() + "random_seed: 0\n")
    run("check", single)
    told = 'ignored: single.yml: unknown key "random_seed". It is an option of the command: --seed.'
    assert f"warning: {told}" in capsys.readouterr().out.splitlines()
    for command in (("check", single, "--strict"), ("merge", single, zoo / "out", "--strict")):
        assert fails(capsys, *command) == told.replace("ignored: ", "error: ")
    run("merge", single, zoo / "out")
    assert capsys.readouterr().err.splitlines() == [f"warning: {told}"]


Mergekit = Callable[..., str]


@pytest.fixture
def mergekit() -> Mergekit:
    """Runs a program of mergekit's environment; its output."""
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("set MERGEKIT_PYTHON to the python of an installed mergekit to compare with it")

    def run_mergekit(program: str, *arguments: str | Path) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [str(Path(python).parent / program), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    return run_mergekit


def test_options_without_effect_change_nothing_but_the_files_sizes(
    single: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
):
    run("merge", single, "plain")
    run("merge", single, "full", *OPTIONS)
    same(zoo / "plain", zoo / "full")
    assert all(file.stat().st_size < 2000 for file in (zoo / "full").glob("*.safetensors"))
    assert sorted(path.name for path in zoo.iterdir() if path.name in ("cache", "loras")) == []
    assert capsys.readouterr().out == "Merged model: plain\nMerged model: full\n".replace(": ", f": {zoo}/")


def test_the_card_can_be_left_out_and_what_is_not_written_as_asked_is_said(
    single: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
):
    run("merge", single, "m", "--no-write-model-card", "--no-safe-serialization", "-v")
    assert not (zoo / "m" / "README.md").exists()
    *lines, warning, summary = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{len(tensors(zoo / 'm'))}/{len(lines)} model.norm.weight"
    assert warning == "warning: --no-safe-serialization: only safetensors are written"
    assert summary.startswith(f"{len(lines)} tensors, ")


def test_results_of_named_documents_are_kept_under_their_names_and_used_again(several: Path, zoo: Path):
    run("merge", several, "--out-path", "m", "-I", "kept")
    assert {path.name for path in (zoo / "kept").iterdir()} == {"half", "quarter"}
    weights = zoo / "kept" / "half" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    run("merge", several, "m", "--overwrite", "--intermediate-dir", "kept", "--seed", "5")
    assert weights.stat().st_mtime_ns == written
    run("merge", several, "m", "--overwrite", "--intermediate-dir", "kept", "--no-lazy")
    assert weights.stat().st_mtime_ns != written
    save_file(load_file(zoo / "c" / "model.safetensors"), zoo / "b" / "model.safetensors", metadata={"format": "pt"})
    run("merge", several, "n", "--intermediate-dir", "kept")
    run("merge", several, "fresh")
    same(zoo / "n", zoo / "fresh")


def test_what_someone_else_made_in_the_directory_is_neither_used_nor_written_over(
    several: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
):
    (zoo / "kept").mkdir()
    (zoo / "a").rename(zoo / "kept" / "half")
    (zoo / "c").rename(zoo / "a")
    (zoo / "c").symlink_to(zoo / "a")
    assert f"{zoo / 'kept' / 'half'}: exists and is not empty" in fails(capsys, "merge", several, "m", "-I", "kept")


def test_a_file_of_named_documents_needs_no_output(several: Path, zoo: Path, capsys: pytest.CaptureFixture[str]):
    text = several.read_text().split("---", 1)[1]
    several.write_text(text)
    run("merge", several, "-I", "kept")
    assert (zoo / "kept" / "quarter" / "config.json").exists()
    assert "OUT: name the directory" in fails(capsys, "merge", several)
    several.write_text(text.replace("half", "../half"))
    assert "is no name of a directory" in fails(capsys, "merge", several, "-I", "other")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--device", "tpu"), 'device "tpu": expected auto, cpu, cuda'),
        (("--device", "cuda:63"), 'device "cuda:63": there is none here'),
    ],
)
def test_a_device_that_is_not_there_is_said(
    single: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], expected: str
):
    assert expected in fails(capsys, "merge", single, "m", *options)


def test_a_search_is_no_recipe_and_that_is_all_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "search.yml").write_text("recipe: {merge_method: linear}\ntasks: [a]\nbudget: {evaluations: 3}\n")
    said = fails(capsys, "merge", tmp_path / "search.yml", "m")
    assert "is a search, not a recipe. Name the best_recipe.yml of its run" in said
    assert len(said.splitlines()) == 1


def test_every_option_of_mergekit_is_known(mergekit: Mergekit):
    theirs = set(json.loads(mergekit("python", "-c", MERGEKIT_OPTIONS))) - {"config_file", "out_path", "--help"}
    command = typer.main.get_command(make_app()).commands["merge"]  # type: ignore[attr-defined]
    ours = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert len(theirs) > 40
    assert theirs <= ours


def test_one_command_line_gives_both_programs_the_same_model(single: Path, zoo: Path, mergekit: Mergekit):
    run("merge", single, "ours", *OPTIONS)
    mergekit("mergekit-yaml", single, "theirs", *OPTIONS)
    same(zoo / "ours", zoo / "theirs", 1e-6)


def test_documents_that_use_one_another_give_the_models_of_mergekit(several: Path, zoo: Path, mergekit: Mergekit):
    run("merge", several, "--out-path", "ours", "-I", "kept", "--lazy", *OPTIONS)
    mergekit("mergekit-multi", several, "--out-path", zoo / "theirs", "-I", zoo / "mergekit", "--lazy", *OPTIONS)
    same(zoo / "ours", zoo / "theirs", 1e-6)
    for name in ("half", "quarter"):
        same(zoo / "kept" / name, zoo / "mergekit" / name, 1e-6)
