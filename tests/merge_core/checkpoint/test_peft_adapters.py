"""Adapters of every kind are folded in as PEFT's own merge does it."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import new_model
from transformers import AutoModelForCausalLM

from merge_core import Checkpoint, MergeError, Recipe, merge
from merge_core.checkpoint.adapters import adapted_checkpoint
from merge_core.checkpoint.lora import LoraCheckpoint
from merge_core.checkpoint.peft_adapters import PeftCheckpoint

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

TARGETS = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, Callable[[], Any]] = {
    "loha": lambda: peft.LoHaConfig(r=2, alpha=4, target_modules=TARGETS),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=4, target_modules=TARGETS),
    "ia3": lambda: peft.IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj", "o_proj"]),
    "vera, projections made again": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"], save_projection=False),
    "adalora": lambda: peft.AdaLoraConfig(init_r=3, target_r=2, total_step=10, target_modules=TARGETS),
    "tokens": lambda: peft.LoraConfig(
        r=2, target_modules=TARGETS, trainable_token_indices={"embed_tokens": [3, 5], "lm_head": [4]}
    ),
    "biases": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True),
    "modules beside": lambda: peft.LoHaConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "model.norm"]
    ),
    "pissa": lambda: peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights="pissa"),
    "olora": lambda: peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights="olora"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2, whose queries, keys and values have biases."""
    directory = tmp_path_factory.mktemp("peft") / "base"
    new_model("qwen2", 0, num_hidden_layers=2, tie_word_embeddings=False).save_pretrained(directory)
    return directory


def trained(base: Path, config: Any, directory: Path) -> dict[str, torch.Tensor]:
    """Write an adapter whose numbers are random; the merged model's by PEFT."""
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory)
    return dict(loaded.merge_and_unload().state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_the_one_that_peft_merges(base: Path, tmp_path: Path, kind: str):
    merged = trained(base, KINDS[kind](), tmp_path / "adapter")
    opened = Checkpoint.open(base)
    folded = adapted_checkpoint(opened, tmp_path / "adapter")
    assert isinstance(folded, PeftCheckpoint)
    changed = 0
    for name in opened.tensors:
        found = folded.read(name)
        torch.testing.assert_close(found, merged[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(folded.read(name), found, rtol=0, atol=0)
        changed += not torch.equal(found, opened.read(name))
        assert folded.cache_key(name) is None or torch.equal(found, opened.read(name)) or name in folded._replaced
    assert changed >= 2


def test_parameters_of_stacked_experts_are_folded_in(tmp_path: Path):
    new_model("gpt_oss", 0, num_hidden_layers=1).save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    )
    merged = trained(tmp_path / "base", config, tmp_path / "adapter")
    folded = adapted_checkpoint(Checkpoint.open(tmp_path / "base"), tmp_path / "adapter")
    for name in folded.tensors:
        torch.testing.assert_close(folded.read(name), merged[name], rtol=1e-5, atol=1e-6)


def test_a_recipe_merges_with_such_an_adapter_and_workers_can_have_it(base: Path, tmp_path: Path):
    merged = trained(base, KINDS["loha"](), tmp_path / "adapter")
    recipe = Recipe.from_mapping(
        {"merge_method": "linear", "models": [{"model": f"{base}+{tmp_path / 'adapter'}", "parameters": {"weight": 1}}]}
    )
    result = Checkpoint.open(merge(recipe, tmp_path / "out").path)
    for name in result.tensors:
        torch.testing.assert_close(result.read(name), merged[name], rtol=1e-5, atol=1e-6)
    copy = pickle.loads(pickle.dumps(adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter")))
    name = "model.layers.1.mlp.down_proj.weight"
    torch.testing.assert_close(copy.read(name), merged[name], rtol=1e-5, atol=1e-6)


def test_plain_lora_needs_no_peft(base: Path, tmp_path: Path):
    trained(base, peft.LoraConfig(r=2, target_modules=TARGETS), tmp_path / "adapter")
    assert isinstance(adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter"), LoraCheckpoint)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path):
    new_model("qwen2", 0, num_hidden_layers=3).save_pretrained(tmp_path / "deeper")
    trained(tmp_path / "deeper", KINDS["loha"](), tmp_path / "adapter")
    with pytest.raises(MergeError, match=r"has nothing for .*layers\.2"):
        adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter")


def change(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_no_module_that_an_adapter_names_is_imported(base: Path, tmp_path: Path):
    merged = trained(base, KINDS["biases"](), tmp_path / "adapter")
    change(tmp_path / "adapter", megatron_config={"a": 1}, megatron_core="of.the.adapter")
    folded = adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter")
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(folded.read(name), merged[name], rtol=1e-5, atol=1e-6)


def test_nothing_is_allocated_for_a_rank_that_no_matrix_has(base: Path, tmp_path: Path):
    trained(base, KINDS["loha"](), tmp_path / "adapter")
    for settings, said in (
        ({"r": 10**9}, "r 1000000000"),
        ({"r": 2, "rank_pattern": {"q": 10**9}}, "rank_pattern.q"),
    ):
        change(tmp_path / "adapter", **settings)
        with pytest.raises(MergeError, match=said):
            adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter")


def test_without_peft_the_extra_to_install_is_named(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained(base, KINDS["loha"](), tmp_path / "adapter")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MergeError, match=r"pip install 'evolve-merge\[peft\]'"):
        adapted_checkpoint(Checkpoint.open(base), tmp_path / "adapter")
