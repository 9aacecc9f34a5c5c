"""Routers are compared by what they choose, as transformers' own modules choose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import model_class, save_pair

from evolve.inspection.comparison import compare_models
from evolve.inspection.routing import TOKENS, routing_agreement
from merge_core import Checkpoint


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair("qwen3_moe", tmp_path_factory.mktemp("experts"))


def opened(zoo: Path) -> list[Checkpoint]:
    return [Checkpoint.open(zoo / name) for name in "ab"]


def test_agreement_is_the_share_of_experts_that_transformers_chooses_in_both(zoo: Path) -> None:
    found = routing_agreement(opened(zoo), 0)
    assert found[0] == [1.0, 1.0, 1.0]
    models = [model_class("qwen3_moe").from_pretrained(zoo / name, dtype=torch.float32) for name in "ab"]
    for layer in range(3):
        tokens = torch.randn(TOKENS, 32, generator=torch.Generator().manual_seed(layer))
        chosen = []
        for model in models:
            block = model.model.layers[layer]
            with torch.no_grad():
                chosen.append(block.mlp.gate(tokens * block.post_attention_layernorm.weight)[2])
        pairs = zip(*(rows.tolist() for rows in chosen), strict=True)
        shared = [len(set(one) & set(other)) / 2 for one, other in pairs]
        assert found[1][layer] == pytest.approx(sum(shared) / TOKENS)


def test_a_correction_of_the_choice_counts(tmp_path: Path) -> None:
    """DeepSeek's: added to the sigmoids, and large enough it chooses by itself."""
    zoo = save_pair("deepseek_v3", tmp_path)
    for name, favoured in (("a", (0, 1)), ("b", (0, 2))):
        file = zoo / name / "model.safetensors"
        tensors = load_file(file)
        for key in [key for key in tensors if key.endswith("e_score_correction_bias")]:
            tensors[key] = torch.zeros_like(tensors[key])
            tensors[key][list(favoured)] = 10.0
        save_file(tensors, file, metadata={"format": "pt"})
        config = json.loads((zoo / name / "config.json").read_text())
        (zoo / name / "config.json").write_text(json.dumps(config | {"num_experts_per_tok": 2}))
    found = routing_agreement(opened(zoo), 0)
    assert found[1] == [0.5] * len(found[0])
    assert found[0]


def test_models_without_experts_have_no_routing(tmp_path: Path) -> None:
    zoo = save_pair("llama", tmp_path)
    assert routing_agreement(opened(zoo), 0) == [[], []]


def test_an_inspection_tells_it(zoo: Path) -> None:
    checkpoints = dict(zip("ab", opened(zoo), strict=True))
    compared = compare_models(checkpoints, "ab", base="b")
    assert compared.routing[1] == (1.0, 1.0, 1.0)
    assert compared.routing[0] == tuple(routing_agreement(list(checkpoints.values()), 1)[0])
