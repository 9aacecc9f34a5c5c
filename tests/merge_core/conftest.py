"""Tiny random Llama checkpoints, and the installed peer to compare against."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

HIDDEN, INNER, HEADS, KEY_VALUE_HEADS = 16, 24, 4, 2


def llama_config(layers: int = 3, vocabulary: int = 40, tied: bool = False, dtype: str = "float32") -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "max_position_embeddings": 64,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "dtype": dtype,
    }


def llama_tensors(seed: int, config: Mapping[str, Any], spread: float = 0.05) -> dict[str, torch.Tensor]:
    """Models of different seeds share a common part, as fine-tunes of one model do."""
    common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    head = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], HIDDEN)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (head * KEY_VALUE_HEADS, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (head * KEY_VALUE_HEADS, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, INNER),
        }
    shapes["model.norm.weight"] = (HIDDEN,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], HIDDEN)
    dtype = getattr(torch, config["dtype"])
    return {
        name: (
            0.2 * torch.randn(shape, generator=common) + spread * torch.randn(shape, generator=own) + (len(shape) == 1)
        ).to(dtype)
        for name, shape in shapes.items()
    }


def write_checkpoint(directory: Path, config: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def write_model() -> MakeModel:
    """``write_model(directory, seed, scale=1.0, layers=3, vocabulary=40, tied=False, dtype="float32")``."""

    def write(directory: Path, seed: int, scale: float = 1.0, **options: Any) -> Path:
        config = llama_config(**options)
        tensors = llama_tensors(seed, config)
        return write_checkpoint(directory, config, {name: tensor * scale for name, tensor in tensors.items()})

    return write


@pytest.fixture
def make_model(tmp_path: Path, write_model: MakeModel) -> MakeModel:
    """``make_model("a", seed=1, ...)`` → the directory of a model in the test's own directory."""

    def make(name: str, seed: int = 1, **options: Any) -> Path:
        return write_model(tmp_path / name, seed, **options)

    return make


@pytest.fixture
def zoo(make_model: MakeModel, tmp_path: Path) -> Path:
    """A directory with the models base, a, b and c."""
    for seed, name in enumerate(("base", "a", "b", "c")):
        make_model(name, seed=seed + 1)
    return tmp_path


RunPeer = Callable[[Mapping[str, str], Path], dict[str, str | None]]


@pytest.fixture(scope="session")
def run_peer() -> RunPeer:
    """``run_peer(recipes, directory)`` runs recipes with the mergekit of MERGEKIT_PYTHON.

    One process for all; results are in ``directory/peer/NAME``, errors are returned by name.
    """
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("set MERGEKIT_PYTHON to the python of an installed mergekit to compare with it")

    def run(recipes: Mapping[str, str], directory: Path) -> dict[str, str | None]:
        subprocess.run(
            [python, "-c", PEER_SCRIPT],
            input=json.dumps(dict(recipes)),
            text=True,
            cwd=directory,
            check=True,
            capture_output=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        errors: dict[str, str | None] = json.loads((directory / "peer.json").read_text())
        return errors

    return run


PEER_SCRIPT = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

options = MergeOptions(quiet=True, random_seed=0, copy_tokenizer=False, write_model_card=False)
errors = {}
for name, recipe in json.load(sys.stdin).items():
    try:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(recipe)), "peer/" + name, options)
        errors[name] = None
    except Exception as error:
        errors[name] = f"{type(error).__name__}: {error}"
json.dump(errors, open("peer.json", "w"))
"""
