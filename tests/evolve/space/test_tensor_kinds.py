"""Kinds of tensors: every tensor has one, the same one in every layer and of every expert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evolve.space.tensor_kinds import TensorKinds
from merge_core import Checkpoint, TensorHeader
from merge_core.checkpoint.layout import Layout, find_layout

LLAMA = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "input_layernorm")
EXPERTS = (
    "mlp.gate",
    "mlp.experts.0.w1",
    "mlp.experts.1.w1",
    "mlp.experts.0.w2",
    "mlp.experts.1.w2",
    "mlp.shared_experts.w1",
)


def layout_of(modules: tuple[str, ...], root: str = "model.layers", biased: str = "self_attn.q_proj") -> Layout:
    inner = [f"{module}.weight" for module in modules] + [f"{biased}.bias"]
    names = [f"{root}.{layer}.{name}" for layer in range(3) for name in inner]
    outside = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    header = TensorHeader(torch.float32, (50, 8), Path("nowhere"))
    config = {"num_hidden_layers": 3, "vocab_size": 50, "tie_word_embeddings": False}
    return find_layout(Checkpoint(Path("model"), config, dict.fromkeys([*names, *outside], header)))


def kind(kinds: TensorKinds, name: str) -> str:
    """As a recipe reads its filters: the first that is in the name."""
    return next(one for one in kinds.filters if one in name)


@pytest.mark.parametrize("modules", [LLAMA, EXPERTS])
def test_tensors_share_a_kind_if_and_only_if_they_are_the_same_module_in_other_layers_or_experts(
    modules: tuple[str, ...],
) -> None:
    layout = layout_of(modules, biased=modules[0])
    kinds = TensorKinds.of(layout)
    found = {name: kind(kinds, name) for layer in layout.layers for name in layer.values()}

    def module(name: str) -> str:
        inner = name.split(".", 3)[3].rsplit(".", 1)[0]
        return inner.replace("experts.0.", "experts.").replace("experts.1.", "experts.")

    for one, first in found.items():
        for other, second in found.items():
            assert (first == second) == (module(one) == module(other)), (one, other)


def test_what_stands_in_no_layer_is_told_apart() -> None:
    kinds = TensorKinds.of(layout_of(LLAMA))
    assert kinds.outside == {"embed_tokens", "norm", "lm_head"}
    assert kind(kinds, "model.layers.0.input_layernorm.weight") == "input_layernorm"
    assert kind(kinds, "model.norm.weight") == "norm"


def test_a_name_that_is_in_another_comes_after_it() -> None:
    filters = TensorKinds.of(layout_of(("attn", "attn.inner_attn", "norm", "post.norm"), biased="attn")).filters
    for place, one in enumerate(filters):
        assert not any(one in later for later in filters[place + 1 :])
