"""Layers, embeddings, heads and ties are found without a table of architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from merge_core import Checkpoint, MergeError, Recipe, TensorHeader, build_plan
from merge_core.checkpoint.layout import HEAD, find_layout


def checkpoint(config: dict[str, Any], *names: str, rows: int = 50) -> Checkpoint:
    tensors = {name: TensorHeader(torch.float32, (rows, 8), Path("nowhere")) for name in names}
    return Checkpoint(Path("model"), config, tensors)


def layers(prefix: str, count: int, *inner: str) -> list[str]:
    return [f"{prefix}.{layer}.{name}" for layer in range(count) for name in inner]


def test_llama_names():
    layout = find_layout(
        checkpoint(
            {"num_hidden_layers": 2, "vocab_size": 50, "tie_word_embeddings": False},
            "model.embed_tokens.weight",
            *layers("model.layers", 2, "mlp.up_proj.weight", "self_attn.rotary_emb.inv_freq"),
            "model.norm.weight",
            "lm_head.weight",
        )
    )
    assert (layout.layers_name, layout.layer_count, layout.count_key) == ("model.layers", 2, ("num_hidden_layers",))
    assert layout.layers[1] == {"mlp.up_proj.weight": "model.layers.1.mlp.up_proj.weight"}
    assert list(layout.before.values()) == ["model.embed_tokens.weight"]
    assert set(layout.after.values()) == {"model.norm.weight", "lm_head.weight"}
    assert (layout.embedding, layout.head, layout.tied) == ("model.embed_tokens.weight", "lm_head.weight", False)


def test_gpt2_names_with_and_without_the_model_prefix_are_one_architecture():
    def gpt2(prefix: str) -> Checkpoint:
        return checkpoint(
            {"n_layer": 2, "vocab_size": 50},
            *[f"{prefix}{name}" for name in ("wte.weight", "wpe.weight", "ln_f.weight")],
            *layers(f"{prefix}h", 2, "attn.c_attn.weight"),
        )

    layout = find_layout(gpt2("transformer."))
    assert layout.tied
    assert set(layout.before) == {"wte.weight", "wpe.weight"}
    assert layout.embedding == "transformer.wte.weight"
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("long", "short")]
    recipe = Recipe.from_mapping({"merge_method": "linear", "models": models})
    plan = build_plan(recipe, {"long": gpt2("transformer."), "short": gpt2("")})
    assert {(job.inputs[0].tensor, job.inputs[1].tensor) for job in plan.jobs} == {
        (f"transformer.{job.inputs[1].tensor}", job.inputs[1].tensor) for job in plan.jobs
    }
    assert all(job.output.startswith("transformer.") for job in plan.jobs)


def test_neox_head_is_no_embedding():
    layout = find_layout(
        checkpoint(
            {"num_hidden_layers": 1, "vocab_size": 50, "tie_word_embeddings": False},
            "gpt_neox.embed_in.weight",
            *layers("gpt_neox.layers", 1, "mlp.dense.weight"),
            "embed_out.weight",
        )
    )
    assert layout.after == {HEAD: "embed_out.weight"}
    assert layout.head == HEAD
    assert set(layout.before.values()) == {"gpt_neox.embed_in.weight"}


def test_experts_are_not_taken_for_layers():
    names = [f"model.layers.{layer}.moe.experts.{expert}.w1.weight" for layer in range(2) for expert in range(8)]
    layout = find_layout(checkpoint({"num_hidden_layers": 2}, "model.embed.weight", *names))
    assert layout.layer_count == 2
    assert len(layout.layers[0]) == 8


def test_what_stands_beside_the_language_model_is_a_module():
    config = {"text_config": {"num_hidden_layers": 2, "vocab_size": 50}, "vision_config": {"num_hidden_layers": 5}}
    model = checkpoint(
        config,
        "language_model.model.embed_tokens.weight",
        *layers("language_model.model.layers", 2, "mlp.weight"),
        *layers("vision_tower.encoder.layers", 5, "mlp.weight"),
        "vision_tower.embeddings.position_embedding.weight",
        "multi_modal_projector.weight",
        "mystery.weight",
    )
    layout = find_layout(model)
    assert layout.layers_name == "language_model.model.layers"
    assert layout.count_key == ("text_config", "num_hidden_layers")
    assert {name: len(tensors) for name, tensors in layout.modules.items()} == {
        "vision_tower": 6,
        "multi_modal_projector": 1,
        "mystery": 1,
    }
    assert list(layout.before.values()) == ["language_model.model.embed_tokens.weight"]


def test_layers_beyond_the_count_of_the_config_are_extra():
    names = ["model.embed.weight", *layers("model.layers", 3, "mlp.weight")]
    layout = find_layout(checkpoint({"num_hidden_layers": 2}, *names))
    assert (layout.layer_count, len(layout.extra)) == (2, 1)
    assert layout.count_key == ("num_hidden_layers",)


def test_attention_masks_of_old_checkpoints_are_not_weights():
    model = checkpoint({"n_layer": 1}, "wte.weight", *layers("h", 1, "attn.bias", "attn.c_attn.bias"))
    mask = TensorHeader(torch.float32, (1, 1, 8, 8), Path("nowhere"))
    model = Checkpoint(Path("model"), model.config, {**model.tensors, "h.0.attn.bias": mask})
    assert list(find_layout(model).layers[0]) == ["attn.c_attn.bias"]


@pytest.mark.parametrize(
    ("stated", "has_head", "tied"), [(True, True, True), (True, False, True), (False, True, False), (None, False, True)]
)
def test_a_head_is_tied_when_stated_or_absent(stated: bool | None, has_head: bool, tied: bool):
    names = ["model.embed.weight", *layers("model.layers", 1, "mlp.weight")]
    config = {} if stated is None else {"tie_word_embeddings": stated}
    layout = find_layout(checkpoint(config, *names, *(["lm_head.weight"] if has_head else [])))
    assert layout.tied is tied
    assert (layout.head is None) is tied


def test_what_has_no_layers_is_refused():
    with pytest.raises(MergeError, match="no numbered layers"):
        find_layout(checkpoint({}, "weight"))


def test_a_gap_in_the_layers_is_a_damaged_model():
    with pytest.raises(MergeError, match=r"no tensors of model\.layers\.1"):
        find_layout(checkpoint({}, "model.layers.0.weight", "model.layers.2.weight"))


def test_changing_a_layer_count_that_the_config_does_not_state_is_refused():
    model = checkpoint({}, "model.embed.weight", *layers("model.layers", 2, "mlp.weight"))
    slices = [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]
    with pytest.raises(MergeError, match="does not state its number of layers"):
        build_plan(Recipe.from_mapping({"merge_method": "passthrough", "slices": slices}), {"a": model})


def test_distilberts_vocab_projector_is_its_head_and_no_projector():
    names = (
        "distilbert.embeddings.word_embeddings.weight",
        *layers("distilbert.transformer.layer", 2, "ffn.lin1.weight"),
    )
    own = ("vocab_transform.weight", "vocab_projector.weight", "vocab_projector.bias")
    layout = find_layout(checkpoint({"n_layers": 2, "vocab_size": 50, "tie_word_embeddings": False}, *names, *own))
    assert layout.modules == {}
    assert layout.head == HEAD
    assert layout.after[HEAD] == "vocab_projector.weight"


def test_a_trainers_value_head_is_no_part_of_the_model():
    names = ("model.embed_tokens.weight", *layers("model.layers", 2, "mlp.up_proj.weight"))
    config = {"num_hidden_layers": 2, "vocab_size": 50}
    plain, trained = (
        checkpoint(config, *names, *extra) for extra in ((), ("v_head.summary.weight", "v_head.summary.bias"))
    )
    assert find_layout(trained) == find_layout(plain)
    models = [{"model": name, "parameters": {"weight": 1}} for name in ("plain", "trained")]
    recipe = Recipe.from_mapping({"merge_method": "linear", "models": models})
    assert len(build_plan(recipe, {"plain": plain, "trained": trained}).jobs) == len(names)
