"""The live model of a search is built on the meta device, so that what cannot run is not called sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import COMMON, save_pair
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from evolve.config.machines import BackendConfig
from evolve.preflight.build_check import check_live_model
from evolve.scoring.errors import TaskError
from merge_core import MergeError, MergePlan, Recipe, build_plan, open_checkpoints

LINEAR = Recipe.from_mapping(
    {"merge_method": "linear", "models": [{"model": m} for m in "ab"], "parameters": {"weight": 1}}
)


def plan_of(zoo: Path) -> MergePlan:
    return build_plan(LINEAR, open_checkpoints(LINEAR.references(), zoo))


@pytest.mark.parametrize("family", ["qwen2", "qwen3_moe"])
def test_a_parameter_that_no_candidate_makes_is_named(family: str, tmp_path: Path) -> None:
    zoo = save_pair(family, tmp_path)
    check_live_model(BackendConfig(), plan_of(zoo))
    for name in "ab":
        file = zoo / name / "model.safetensors"
        kept = {key: value for key, value in load_file(file).items() if not key.endswith("1.mlp.down_proj.weight")}
        kept = {key: value for key, value in kept.items() if "experts.1.down_proj" not in key}
        save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"does not make the live parameters model\.layers\.\d\.mlp\.\S*down_proj"):
        check_live_model(BackendConfig(), plan_of(zoo))


def test_a_tensor_that_the_live_model_has_no_parameter_for_is_named(tmp_path: Path) -> None:
    zoo = save_pair("llama", tmp_path)
    for name in "ab":
        file = zoo / name / "model.safetensors"
        extra = {f"model.layers.{layer}.self_attn.gate.weight": torch.ones(3) for layer in range(3)}
        save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"no parameter for model\.layers\.0\.self_attn\.gate\.weight"):
        check_live_model(BackendConfig(), plan_of(zoo))


def test_an_architecture_that_transformers_does_not_know_is_named(tmp_path: Path) -> None:
    zoo = save_pair("llama", tmp_path)
    for name in "ab":
        file = zoo / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "lama"}))
    with pytest.raises(TaskError, match=r"'lama' is not known to transformers .*llama"):
        check_live_model(BackendConfig(), plan_of(zoo))
    check_live_model(BackendConfig(name="vllm"), plan_of(zoo))  # which it may know


class Asking:
    """A scorer of which only this is asked: whose code it runs."""

    def __init__(self, runs_user_code: bool) -> None:
        self.runs_user_code = runs_user_code


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM], ids=["headless", "masked"])
def test_an_encoder_has_only_tasks_that_read_its_vectors(kind: str, auto: Any, tmp_path: Path) -> None:
    settings = {"cls_token_id": 1, "sep_token_id": 2} if kind == "modernbert" else {}
    for name in "ab":
        auto.from_config(AutoConfig.for_model(kind, **{**COMMON, **settings})).save_pretrained(tmp_path / name)
    plan = plan_of(tmp_path)
    check_live_model(BackendConfig(), plan, [Asking(True)])
    with pytest.raises(TaskError, match=f"{kind} is an encoder, which writes no text"):
        check_live_model(BackendConfig(), plan, [Asking(True), Asking(False)])


def test_a_model_that_attends_to_both_sides_has_only_tasks_that_read_its_vectors(tmp_path: Path) -> None:
    plan = plan_of(save_pair("paligemma", tmp_path))
    check_live_model(BackendConfig(), plan, [Asking(True)])
    with pytest.raises(TaskError, match="use_bidirectional_attention"):
        check_live_model(BackendConfig(), plan, [Asking(True), Asking(False)])
