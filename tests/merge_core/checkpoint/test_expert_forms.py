"""Experts stored apart and experts stored in one stack are the same model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, live_model, new_model, save_pair

from merge_core import (
    Checkpoint,
    LiveMerge,
    MergeError,
    Recipe,
    build_plan,
    live_fingerprint,
    live_parameters,
    merge,
    open_checkpoints,
)

STORED_APART = ("mixtral", "qwen3_moe", "qwen3_5_moe_text", "minimax_m2", "nemotron_h", "glm4_moe")


def recipe(first: str, second: str, method: str = "linear") -> Recipe:
    weights: dict[str, Any] = {"weight": 0.5, "density": 0.5} if method == "ties" else {"weight": 0.25}
    models = [{"model": first, "parameters": weights}, {"model": second, "parameters": {**weights, "weight": 0.75}}]
    base = {"base_model": first, "models": models[1:]} if method == "ties" else {"models": models}
    return Recipe.from_mapping({"merge_method": method, **base})


def stack_experts(source: Path, target: Path, model: torch.nn.Module) -> None:
    """The same model as transformers has it in memory, where every family's experts are stacks."""
    shutil.copytree(source, target)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(params=STORED_APART)
def zoo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Models a and b, and the same with their experts stacked as a_stacked and b_stacked."""
    save_pair(request.param, tmp_path)
    for seed, name in enumerate("ab"):
        stack_experts(tmp_path / name, tmp_path / f"{name}_stacked", new_model(request.param, seed))
    return tmp_path


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_stack_merges_with_experts_apart_as_the_same_experts_apart_do(zoo: Path, method: str):
    assert Checkpoint.open(zoo / "b").tensors.keys() != Checkpoint.open(zoo / "b_stacked").tensors.keys()
    for form in ("", "_stacked"):
        expected = merge(recipe(f"a{form}", f"b{form}", method), zoo / "m", relative_to=zoo, overwrite=True)
        other = "" if form else "_stacked"
        found = merge(recipe(f"a{form}", f"b{other}", method), zoo / "m", relative_to=zoo, overwrite=True)
        assert found.fingerprint == expected.fingerprint
        assert found.tensors == expected.tensors


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "slerp"])
def test_experts_of_a_stack_are_merged_one_by_one_where_that_is_asked_for(tmp_path: Path, method: str):
    """As those that are stored apart; a stack alone is one tensor, of which a density keeps the largest anywhere."""
    save_pair("qwen3_moe", tmp_path)
    for seed, name in enumerate("ab"):
        stack_experts(tmp_path / name, tmp_path / f"{name}_stacked", new_model("qwen3_moe", seed))

    def merged(form: str, second: str, **settings: Any) -> dict[str, torch.Tensor]:
        own = {} if method == "slerp" else {"weight": 0.5, "density": 0.5}
        models = [{"model": f"a{form}"}, {"model": f"b{second}", "parameters": own}]
        document = {"merge_method": method, "base_model": f"a{form}", "models": models, "parameters": settings}
        path = merge(Recipe.from_mapping(document), tmp_path / "m", relative_to=tmp_path, overwrite=True, strict=True)
        return load_file(path.path / "model.safetensors")

    shared = {"t": 0.3} if method == "slerp" else {}
    apart, whole = merged("", "", **shared), merged("_stacked", "_stacked", **shared)
    found = merged("_stacked", "_stacked", each_expert=True, **shared)
    name = "model.layers.1.mlp.experts.down_proj"
    expected = torch.stack([apart[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"] for expert in range(4)])
    assert torch.equal(found[name], expected)
    assert not torch.equal(whole[name], expected)
    assert all(torch.equal(whole[key], found[key]) for key in whole if ".experts." not in key)
    mixed = merged("_stacked", "", each_expert=True, **shared)
    assert all(torch.equal(found[key], mixed[key]) for key in found)


def test_a_live_model_takes_both(tmp_path: Path):
    save_pair("qwen3_moe", tmp_path)
    stack_experts(tmp_path / "b", tmp_path / "b_stacked", new_model("qwen3_moe", 1))
    mixed = recipe("a", "b_stacked")
    saved = merge(mixed, tmp_path / "m", relative_to=tmp_path)
    checkpoints = open_checkpoints(mixed.references(), tmp_path)
    live = live_model("qwen3_moe", build_plan(mixed, checkpoints).config)
    live_merge = LiveMerge(checkpoints)
    plan = live_merge.write(mixed, live_parameters(live)).plan
    assert live_fingerprint(plan, live_parameters(live)) == saved.fingerprint
    assert live_merge.write(mixed, live_parameters(live)).merged == 0


@pytest.mark.parametrize("inner_size", [24, 16, 32])
def test_stacks_of_transposed_matrices_are_known_by_their_shape(tmp_path: Path, inner_size: int):
    # Where the inner size is half the hidden size gate and up together are square, where it is equal, down is.
    settings = {**FAMILIES["qwen3_moe"], "moe_intermediate_size": inner_size}
    for seed, name in enumerate("ab"):
        model = new_model("qwen3_moe", seed, **settings)
        model.save_pretrained(tmp_path / name)
        stacked = {
            key: tensor.mT.contiguous() if "experts" in key else tensor.clone()
            for key, tensor in model.state_dict().items()
        }
        shutil.copytree(tmp_path / name, tmp_path / f"{name}_stacked")
        save_file(stacked, tmp_path / f"{name}_stacked" / "model.safetensors", metadata={"format": "pt"})
    for first, second in (("a", "b_stacked"), ("a_stacked", "b")):
        expected = merge(recipe(first, f"b{first[1:]}"), tmp_path / "m", relative_to=tmp_path, overwrite=True)
        found = merge(recipe(first, second), tmp_path / "m", relative_to=tmp_path, overwrite=True)
        assert found.fingerprint == expected.fingerprint


def test_filters_see_the_names_of_the_result(tmp_path: Path):
    save_pair("qwen3_moe", tmp_path)
    stack_experts(tmp_path / "b", tmp_path / "b_stacked", new_model("qwen3_moe", 1))
    weights = [{"filter": "experts.2.up_proj", "value": 1}, {"value": 0}]
    models = [{"model": "b_stacked", "parameters": {"weight": weights}}]
    only = Recipe.from_mapping({"merge_method": "task_arithmetic", "base_model": "a", "models": models})
    merge(only, tmp_path / "m", relative_to=tmp_path)
    a, b, m = (load_file(tmp_path / name / "model.safetensors") for name in "abm")
    for name in a:
        torch.testing.assert_close(m[name], (b if "experts.2.up_proj" in name else a)[name])


def test_another_number_of_experts_is_refused(tmp_path: Path):
    save_pair("qwen3_moe", tmp_path)
    fewer = new_model("qwen3_moe", 1, **{**FAMILIES["qwen3_moe"], "num_experts": 3})
    stack_experts(tmp_path / "b", tmp_path / "b_stacked", fewer)
    with pytest.raises(MergeError, match=r'"b_stacked" lacks model\.layers\.0\.mlp\.experts\.3\.'):
        merge(recipe("a", "b_stacked"), tmp_path / "m", relative_to=tmp_path)
