"""Tiny random Llama checkpoints, and the installed mergekit to compare against."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

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


RunMergekit = Callable[[Mapping[str, str], Path], dict[str, str | None]]


@pytest.fixture(scope="session")
def run_mergekit() -> RunMergekit:
    """``run_mergekit(recipes, directory)`` runs recipes with the mergekit of MERGEKIT_PYTHON.

    One process for all; results are in ``directory/mergekit/NAME``, errors are returned by name.
    """
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("set MERGEKIT_PYTHON to the python of an installed mergekit to compare with it")

    def run(recipes: Mapping[str, str], directory: Path) -> dict[str, str | None]:
        subprocess.run(
            [python, "-c", MERGEKIT_SCRIPT],
            input=json.dumps(dict(recipes)),
            text=True,
            cwd=directory,
            check=True,
            capture_output=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        errors: dict[str, str | None] = json.loads((directory / "mergekit.json").read_text())
        return errors

    return run


MERGEKIT_SCRIPT = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

options = MergeOptions(quiet=True, random_seed=0, copy_tokenizer=False, write_model_card=False)
errors = {}
for name, recipe in json.load(sys.stdin).items():
    try:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(recipe)), "mergekit/" + name, options)
        errors[name] = None
    except Exception as error:
        errors[name] = f"{type(error).__name__}: {error}"
json.dump(errors, open("mergekit.json", "w"))
"""


def bpe_document(words: str, special: Sequence[str], style: str) -> dict[str, Any]:
    """A tokenizer.json of the kind of Llama 3 (byte-level) or of Llama 2 (sentencepiece), made for these words."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    if style == "byte-level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(words.split("|"), trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[..., dict[str, int]]:
    """``write_tokenizer(directory, words, special=("<s>", "</s>"), added=(), style="byte-level", template=None)``.

    ``special`` tokens have the first ids, ``added`` ones the last. Returns token → id.
    """

    def write(
        directory: Path,
        words: str,
        special: Sequence[str] = ("<s>", "</s>"),
        added: Sequence[str] = (),
        style: str = "byte-level",
        template: str | None = None,
        name: str = "PreTrainedTokenizerFast",
    ) -> dict[str, int]:
        directory.mkdir(parents=True, exist_ok=True)
        tokenizer = Tokenizer.from_str(json.dumps(bpe_document(words, special, style)))
        tokenizer.add_special_tokens(list(added))
        tokenizer.save(str(directory / "tokenizer.json"))
        config = {"tokenizer_class": name, "bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
        (directory / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return dict(tokenizer.get_vocab())

    return write


def token_rows(directory: Path) -> dict[tuple[str, str], torch.Tensor]:
    """(tensor, token) → row of a model with its tokenizer."""
    ids = Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab()
    tensors = load_file(directory / "model.safetensors")
    names = [name for name in ("model.embed_tokens.weight", "lm_head.weight") if name in tensors]
    return {(name, token): tensors[name][row] for name in names for token, row in ids.items()}


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], dict[tuple[str, str], torch.Tensor]]:
    """See `token_rows`."""
    return token_rows


@pytest.fixture(scope="session")
def write_vocabularies(
    write_model: MakeModel, write_tokenizer: Callable[..., dict[str, int]]
) -> Callable[[Path], dict[str, dict[str, int]]]:
    """Models base, a and b with vocabularies that overlap; those of b are padded, and its ids are in another order."""

    def write(directory: Path) -> dict[str, dict[str, int]]:
        ids = {
            "base": write_tokenizer(directory / "base", "abab cab deaf bad|" * 3),
            "a": write_tokenizer(
                directory / "a", "abab fed gag bad|" * 3, added=("<|im_start|>", "<|im_end|>"), template="{{ 'a' }}"
            ),
            "b": write_tokenizer(
                directory / "b", "zoo wax bad abab|" * 3, ("</s>", "<s>"), ("<|im_end|>", "<|x|>"), template="{{ 'b' }}"
            ),
        }
        for seed, (name, own) in enumerate(ids.items(), start=1):
            padding = 5 if name == "b" else 0
            write_model(directory / name, seed, layers=1, vocabulary=len(own) + padding)
            file = directory / name / "config.json"
            special = {"bos_token_id": own["<s>"], "eos_token_id": own["</s>"]}
            file.write_text(json.dumps(json.loads(file.read_text()) | special))
        return ids

    return write
