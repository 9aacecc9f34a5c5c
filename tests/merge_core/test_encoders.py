"""Encoders and embedding models merge: with a head or without, and as sentence-transformers stores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import COMMON
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from word_tokenizers import write_words

from merge_core import MergeError, MergeResult, Recipe, merge

SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "xlm-roberta": {"max_position_embeddings": 66},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2},
}
LINEAR = {
    "merge_method": "linear",
    "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
}
TOKENS = torch.arange(4, 12)[None]


def save(kind: str, auto: Any, directory: Path) -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        auto.from_config(AutoConfig.for_model(kind, **{**COMMON, **SETTINGS[kind]})).save_pretrained(directory / name)


def merged(directory: Path, recipe: dict[str, Any] = LINEAR) -> MergeResult:
    return merge(Recipe.from_mapping(recipe), directory / "m", relative_to=directory)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM], ids=["headless", "masked"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_every_tensor_of_an_encoder_is_merged(kind: str, auto: Any, tmp_path: Path):
    save(kind, auto, tmp_path)
    merged(tmp_path)
    a, b, m = (load_file(tmp_path / name / "model.safetensors") for name in "abm")
    assert m.keys() == a.keys()
    for name, tensor in m.items():
        torch.testing.assert_close(tensor, torch.lerp(a[name], b[name], 0.75))
    model, info = auto.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert model.eval()(TOKENS)[0].isfinite().all()


@pytest.mark.parametrize("kind", [*SETTINGS, "distilbert"])
def test_the_head_of_a_masked_language_model_follows_its_tokens(kind: str, tmp_path: Path):
    """Its bias has a row per token also where its matrix is the embedding."""
    settings = SETTINGS.get(kind) or {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **settings}))
        model.get_output_embeddings().bias.data.normal_()
        model.save_pretrained(tmp_path / name)
        write_words(tmp_path / name, COMMON["vocab_size"], swapped=name == "b")
    other = [{"model": name, "parameters": {"weight": weight}} for name, weight in (("a", 0), ("b", 1))]
    result = merged(tmp_path, LINEAR | {"base_model": "a", "models": other, "tokenizer_source": "base"}).path
    ids = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (tmp_path / "b", result)]
    assert ids[0] != ids[1]
    found, own = (
        AutoModelForMaskedLM.from_pretrained(path).get_output_embeddings() for path in (result, tmp_path / "b")
    )
    for token, row in ids[1].items():
        torch.testing.assert_close(found.weight[row], own.weight[ids[0][token]])
        torch.testing.assert_close(found.bias[row], own.bias[ids[0][token]])


def test_an_encoder_loses_layers(tmp_path: Path):
    save("bert", AutoModel, tmp_path)
    slices = [{"sources": [{"model": "a", "layer_range": [start, start + 1]}]} for start in (0, 2)]
    merged(tmp_path, {"merge_method": "passthrough", "slices": slices})
    model, info = AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert model.config.num_hidden_layers == 2


def write_modules(directory: Path, *paths: str) -> None:
    modules = [{"idx": index, "name": str(index), "path": path, "type": "x"} for index, path in enumerate(("", *paths))]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "config_sentence_transformers.json").write_text("{}")
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')


def test_modules_of_an_embedding_model_are_those_of_the_first(tmp_path: Path):
    save("bert", AutoModel, tmp_path)
    for seed, name in enumerate("ab"):
        write_modules(tmp_path / name, "1_Pooling", "2_Dense")
        for folder in ("1_Pooling", "2_Dense"):
            (tmp_path / name / folder).mkdir()
            (tmp_path / name / folder / "config.json").write_text(json.dumps({"seed": seed}))
        (tmp_path / name / "2_Dense" / "modeling.py").write_text("raise SystemExit")
        save_file({"linear.weight": torch.full((2, 2), float(seed))}, tmp_path / name / "2_Dense" / "model.safetensors")
    result = merged(tmp_path)
    assert any(line.startswith("2_Dense: copied from") for line in result.warnings)
    files = {str(file.relative_to(tmp_path / "a")) for file in (tmp_path / "a").rglob("*.*") if file.suffix != ".py"}
    found = {str(file.relative_to(result.path)) for file in result.path.rglob("*.*")}
    assert files <= found
    assert not any(name.endswith(".py") for name in found)
    assert json.loads((result.path / "1_Pooling" / "config.json").read_text()) == {"seed": 0}
    assert not load_file(result.path / "2_Dense" / "model.safetensors")["linear.weight"].any()


@pytest.mark.parametrize("path", ["../b", "/etc", ".."])
def test_modules_outside_of_the_directory_are_refused(path: str, tmp_path: Path):
    save("bert", AutoModel, tmp_path)
    write_modules(tmp_path / "a", path)
    with pytest.raises(MergeError, match=r"modules\.json: names the folder .* outside"):
        merged(tmp_path)
    assert not (tmp_path / "m").exists()
