"""What a downloaded file can do to whoever types a command: nothing but be refused in a line."""

from __future__ import annotations

import builtins
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file

from merge_core import input_files

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two small models, the second with Python code that its tokenizer asks for; beside them a text to score on."""
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(2)]
        shapes = {**dict.fromkeys(names, (4, 4)), "model.norm.weight": (4,), "model.embed_tokens.weight": (8, 4)}
        save_file({key: torch.ones(shape) for key, shape in shapes.items()}, directory / "model.safetensors")
        config = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 8, "tie_word_embeddings": True}
        (directory / "config.json").write_text(json.dumps(config))
    (tmp_path / "b" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Tokenizer: pass\n")
    auto = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps(auto))
    (tmp_path / "text.txt").write_text("some words\n\n" * 20)
    return tmp_path


def recipe(*names: str, **settings: object) -> dict[str, object]:
    inputs = [{"model": name, "parameters": {"weight": 1}} for name in names]
    return {"merge_method": "linear", "models": inputs, **settings}


def refused(done: SimpleNamespace) -> list[str]:
    """The lines of a refusal."""
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in lines), lines
    lines = [line for line in lines if not line.startswith(("opening ", "loading "))]  # how far it had come
    assert lines
    assert all(line.startswith(("error: ", "warning: ")) for line in lines), lines
    return lines


def test_code_of_a_model_is_neither_run_nor_asked_about(evolve: Run, models: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", lambda *text: asked.append(text) or "y")
    weight = {"low": 0, "high": 1}
    parts = [{"model": str(models / name), "parameters": {"weight": weight}} for name in "ba"]
    search = {
        "recipe": {"merge_method": "linear", "models": parts},
        "tasks": [{"perplexity": str(models / "text.txt"), "unit": "paragraph"}],
        "items": {"search": 4, "held_out": 4},
        "budget": {"evaluations": 4},
        "output": str(models / "out"),
    }
    (models / "search.yml").write_text(yaml.safe_dump(search))
    (models / "r.yml").write_text(yaml.safe_dump(recipe("b", "a", tokenizer_source="b")))
    commands = [
        ("eval", models / "b", "--tasks-from", models / "search.yml"),
        ("check", models / "search.yml"),
        ("run", models / "search.yml"),
        ("check", models / "r.yml"),
        ("merge", models / "r.yml", models / "m"),
        ("eval", models / "r.yml", "--tasks-from", models / "search.yml"),
    ]
    for command in commands:
        evolve(*command)
    assert not asked
    assert not (models / "ran").exists()


@pytest.mark.parametrize("sign", ["\x1b[31m", "\n"])
@pytest.mark.parametrize("command", ["check", "merge", "eval"])
def test_names_do_not_steer_the_terminal(evolve: Run, models: Path, sign: str, command: str):
    (models / "r.yml").write_text(yaml.safe_dump(recipe(f"a{sign}b", "a")))
    rest = {"check": (), "merge": (models / "m",), "eval": ("--tasks", "none")}[command]
    refused(evolve(command, models / "r.yml", *rest))
    refused(evolve("eval", f"x{sign}y", "--tasks", "none"))


def test_files_that_never_end_or_begin_are_refused(evolve: Run, models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(input_files, "PIPE_SECONDS", 0.1)
    os.mkfifo(models / "pipe.yml")
    (models / "zero.yml").symlink_to("/dev/zero")
    for name in ("pipe.yml", "zero.yml"):
        for command in ("check", "run", "merge"):
            lines = refused(evolve(command, models / name, *([models / "m"] if command == "merge" else [])))
            assert any("not a file" in line or "nothing is written" in line for line in lines)
        refused(evolve("eval", models / name, "--tasks", "none"))


def test_a_recipe_comes_out_of_a_pipe(evolve: Run, models: Path):
    os.mkfifo(models / "pipe.yml")
    text = yaml.safe_dump(recipe("a", "b"))
    writer = threading.Thread(target=(models / "pipe.yml").write_text, args=(text,))
    writer.start()
    done = evolve("check", models / "pipe.yml")
    writer.join()
    assert done.returncode == 0, done.stderr
    assert "pipe.yml: sound" in done.stdout


def test_documents_in_a_circle_are_not_sound(evolve: Run, models: Path):
    documents = [recipe("y", "a", name="x"), recipe("x", "a", name="y"), recipe("x", "y")]
    (models / "r.yml").write_text(yaml.safe_dump_all(documents))
    (line,) = refused(evolve("check", models / "r.yml"))
    assert "documents use one another in a circle: " in line


@pytest.mark.parametrize(
    "text",
    [
        "recipe: {low: 0, high: 1}\ntasks: [echo]\n",
        "recipe: &a {models: [*a]}\ntasks: [echo]\n",
        "merge_method: linear\nmodels: &a [*a]\n",
        "merge_method: linear\nmodels: " + "[" * 900 + "\n",
        "recipe: " + "{a: " * 900 + "\n",
        "seed: !!bool foo\n",
        "seed: " + "9" * 5000 + "\n",
        "merge_method: !!timestamp abc\n",
        "a: 1\n---\nb: 2\n",
    ],
)
def test_texts_that_break_readers_are_refused(evolve: Run, models: Path, text: str):
    (models / "r.yml").write_text(text)
    for command in (("check",), ("run",)):
        refused(evolve(*command, models / "r.yml"))


def test_a_gene_beyond_what_its_parameter_can_be_is_refused(evolve: Run, models: Path):
    density = {"low": 0.5, "high": 1.5}
    parts = [{"model": "b", "parameters": {"weight": 1, "density": density}}]
    search = {
        "recipe": {"merge_method": "ties", "base_model": "a", "models": parts},
        "tasks": [{"perplexity": "text.txt"}],
    }
    (models / "s.yml").write_text(yaml.safe_dump(search))
    lines = refused(evolve("check", models / "s.yml"))
    assert any("density of ties lies from 0 to 1, got low 0.5 and high 1.5" in line for line in lines)
