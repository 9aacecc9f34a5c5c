"""Routers, shared experts and routed experts are told apart by filters, as the page on searching says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import save_pair

from merge_core import Recipe, merge

ROUTER, SHARED, ROUTED, REST = 0.0, 0.25, 0.5, 1.0
WEIGHT: list[dict[str, Any]] = [
    {"filter": ".gate.", "value": ROUTER},
    {"filter": "router", "value": ROUTER},
    {"filter": "shared_expert", "value": SHARED},
    {"filter": "experts", "value": ROUTED},
    {"value": REST},
]
# By whole names, so that no substring decides: which parts of a layer are what.
PARTS = (
    (
        ROUTER,
        re.compile(r"\.(gate\.(weight|e_score_correction_bias)|router\.weight|router\.bias|router\.layer\.weight)$"),
    ),
    (SHARED, re.compile(r"\.(shared_experts?\.\w+\.weight|shared_expert_gate\.weight)$")),
    (ROUTED, re.compile(r"\.experts\.(\d+\.)?\w+(\.weight)?$")),
)
FAMILIES = {
    "mixtral": {ROUTER, ROUTED},
    "qwen3_moe": {ROUTER, ROUTED},
    "gpt_oss": {ROUTER, ROUTED},
    "qwen3_5_moe_text": {ROUTER, SHARED, ROUTED},
    "deepseek_v3": {ROUTER, SHARED, ROUTED},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_router_is_the_bases_where_its_weight_is_zero_and_experts_have_weights_of_their_own(
    family: str, tmp_path: Path
):
    zoo = save_pair(family, tmp_path)
    models = [{"model": "b", "parameters": {"weight": WEIGHT}}]
    recipe = {"merge_method": "task_arithmetic", "base_model": "a", "models": models}
    result = merge(Recipe.from_mapping(recipe), zoo / "m", relative_to=zoo)
    a, b, merged = (load_file(path / "model.safetensors") for path in (zoo / "a", zoo / "b", result.path))
    seen = set()
    for name, tensor in merged.items():
        share = next((share for share, part in PARTS if part.search(name)), REST)
        seen.add(share)
        torch.testing.assert_close(tensor, torch.lerp(a[name], b[name], share), rtol=1e-5, atol=1e-6, msg=name)
    assert seen == FAMILIES[family] | {REST}
