"""What is written into a live model is bit for bit what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from merge_core import METHODS, Checkpoint, LiveMerge, MergeError, Recipe, live_fingerprint, merge

MakeModel = Callable[..., Path]


def candidate(weight: Any = 0.5, method: str = "dare_ties", **keys: Any) -> Recipe:
    models = [
        {"model": "a", "parameters": {"weight": weight, "density": 0.4}},
        {"model": "b", "parameters": {"weight": 0.6, "density": 0.7}},
    ]
    return Recipe.from_mapping({"merge_method": method, "base_model": "base", "models": models, **keys})


@pytest.fixture
def checkpoints(zoo: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b", "c")}


@pytest.fixture
def parameters(zoo: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(zoo / "c").named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_live_model_is_bit_for_bit_the_saved_one(
    zoo: Path, checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor], dtype: str
):
    recipe = candidate(dtype=dtype)
    saved = merge(recipe, zoo / "saved", relative_to=zoo, seed=5)
    report = LiveMerge(checkpoints, seed=5).write(recipe, parameters)
    assert live_fingerprint(report.plan, parameters) == saved.fingerprint
    files = Checkpoint.open(saved.path)
    for name, live in parameters.items():
        assert live.dtype == torch.float32
        assert torch.equal(live, files.read(name).float()), "live parameters hold the rounded values"


EVERY_METHOD = {
    **{name: "base" for name, row in METHODS.items() if row.base == "required"},
    **{name: None for name, row in METHODS.items() if row.base != "required"},
}


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_writes_what_it_saves(
    zoo: Path, checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor], method: str
):
    row, base = METHODS[method], EVERY_METHOD[method]
    settings = {"t": 0.3} if "t" in row.by_name else {}
    live_merge = LiveMerge(checkpoints, seed=2)
    # The second candidate finds statistics of the first.
    for density in (0.7, 0.4):
        own = {"weight": 0.4, "density": density, "epsilon": 0.1}
        own = {key: value for key, value in own.items() if key in row.by_name and row.by_name[key].scope == "model"}
        models = [{"model": name, "parameters": own} for name in "abc"[: row.maximum_models]]
        mapping = {"merge_method": method, "models": models, "parameters": settings, "dtype": "bfloat16"}
        recipe = Recipe.from_mapping(mapping | ({"base_model": base} if base else {}))
        report = live_merge.write(recipe, parameters)
        saved = merge(recipe, zoo / f"saved-{density}", relative_to=zoo, seed=2)
        assert live_fingerprint(report.plan, parameters) == saved.fingerprint


def test_only_what_changed_is_merged_again(checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor]):
    live_merge = LiveMerge(checkpoints)
    first = live_merge.write(candidate(0.5), parameters)
    assert (first.merged, first.skipped) == (len(parameters), 0)
    assert live_merge.write(candidate(0.5), parameters).merged == 0
    weight = [{"filter": "mlp", "value": 0.9}, {"value": 0.5}]
    third = live_merge.write(candidate(weight), parameters)
    assert third.merged == sum("mlp" in name for name in parameters)
    fresh = LiveMerge(checkpoints).write(candidate(weight), parameters)
    before = {name: live.clone() for name, live in parameters.items()}
    assert fresh.merged == len(parameters)
    assert all(torch.equal(before[name], live) for name, live in parameters.items())


def test_after_a_failed_candidate_the_next_one_is_right(
    checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor]
):
    live_merge = LiveMerge(checkpoints)
    live_merge.write(candidate(0.5), parameters)
    wanted = {name: live.clone() for name, live in parameters.items()}
    weight = [{"filter": "layers.2.mlp", "value": 1e9}, {"value": 0.7}]
    with pytest.raises(MergeError, match="do not fit float16"):
        live_merge.write(candidate(weight, dtype="float16"), parameters)
    live_merge.write(candidate(0.5), parameters)
    assert all(torch.equal(wanted[name], live) for name, live in parameters.items())


def test_tied_embeddings_are_written_once_and_stay_tied(make_model: MakeModel, tmp_path: Path):
    for seed, name in enumerate(("base", "a", "b")):
        make_model(name, seed=seed, tied=True)
    checkpoints = {name: Checkpoint.open(tmp_path / name) for name in ("base", "a", "b")}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    for live in (dict(model.named_parameters()), dict(model.state_dict())):
        report = LiveMerge(checkpoints).write(candidate(0.3), live)
        saved = merge(candidate(0.3), tmp_path / "saved", relative_to=tmp_path, overwrite=True)
        assert live_fingerprint(report.plan, live) == saved.fingerprint
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens = torch.arange(9)[None]
    assert torch.equal(model(tokens).logits, loaded(tokens).logits)


def test_a_live_parameter_that_nothing_is_written_to_is_named(
    checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor]
):
    with pytest.raises(MergeError, match=r"does not make the live parameters adapter\.weight"):
        LiveMerge(checkpoints).write(candidate(), parameters | {"adapter.weight": torch.zeros(2)})


def test_a_tensor_without_live_parameter_is_named(
    checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor]
):
    del parameters["lm_head.weight"]
    with pytest.raises(MergeError, match=r"no parameter for lm_head\.weight"):
        LiveMerge(checkpoints).write(candidate(), parameters)


def test_a_live_parameter_of_another_shape_is_named(
    checkpoints: dict[str, Checkpoint], parameters: dict[str, torch.Tensor]
):
    parameters["lm_head.weight"] = torch.zeros(3, 4)
    with pytest.raises(
        MergeError, match=r"lm_head\.weight: the merge makes \[40, 16\], the live parameter is \[3, 4\]"
    ):
        LiveMerge(checkpoints).write(candidate(), parameters)
