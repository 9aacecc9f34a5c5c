"""Plans: which tensor is made of what, under which name, with which parameters; and what planning reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core import Checkpoint, JobInput, MergeError, Parameter, Recipe, TensorHeader, build_plan, run_job
from merge_core.plan import slice_context
from merge_core.recipe.parameters import ParameterReader
from merge_core.recipe.parts import Parameters

MakeModel = Callable[..., Path]


def open_all(directory: Path, *names: str) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(directory / name) for name in names}


def recipe(mapping: dict[str, Any], method: str = "linear") -> Recipe:
    return Recipe.from_mapping({"merge_method": method, **mapping})


def weighted(*names: str) -> list[dict[str, Any]]:
    return [{"model": name, "parameters": {"weight": 1}} for name in names]


def source(model: str, first: int, end: int, **parameters: Any) -> dict[str, Any]:
    return {"model": model, "layer_range": [first, end], "parameters": parameters}


def values(plan_jobs: Any, name: str) -> dict[str, Any]:
    """Output tensor → the first source's value of a parameter."""
    return {job.output: dict(job.inputs[0].parameters)[name] for job in plan_jobs}


def test_every_tensor_of_the_models_has_one_job(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")
    plan = build_plan(recipe({"models": weighted("a", "b")}), checkpoints)
    assert sorted(job.output for job in plan.jobs) == sorted(checkpoints["a"].tensors)
    assert all(job.shape == checkpoints["a"].tensors[job.output].shape for job in plan.jobs)


def test_equal_recipes_give_equal_jobs_and_one_weight_changes_only_its_jobs(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")

    def plan(mlp: float) -> Any:
        weight = [{"filter": "mlp", "value": mlp}, {"value": 0.5}]
        models = [{"model": "a", "parameters": {"weight": weight}}, *weighted("b")]
        return build_plan(recipe({"models": models}), checkpoints)

    assert hash(plan(0.3).jobs) == hash(plan(0.3).jobs)
    changed = {one.output for one, two in zip(plan(0.3).jobs, plan(0.4).jobs, strict=True) if one != two}
    assert changed == {name for name in checkpoints["a"].tensors if "mlp" in name}


def test_the_seed_is_part_of_a_job_only_where_numbers_are_drawn(zoo: Path):
    checkpoints = open_all(zoo, "base", "a")
    mapping = {"base_model": "base", "models": weighted("a")}
    for method, same in (("ties", True), ("dare_ties", False)):
        plans = [build_plan(recipe(mapping, method), checkpoints, seed) for seed in (0, 1)]
        assert (plans[0].jobs == plans[1].jobs) is same


def test_slices_are_renumbered_and_read_their_own_ranges(zoo: Path):
    slices = [
        {"sources": [source("a", 1, 3, weight=1), source("base", 0, 2)]},
        {"sources": [source("b", 2, 3, weight=1), source("base", 2, 3)]},
    ]
    plan = build_plan(
        recipe({"base_model": "base", "slices": slices}, "task_arithmetic"), open_all(zoo, "base", "a", "b")
    )
    jobs = {job.output: job for job in plan.jobs}
    name = "model.layers.{}.mlp.up_proj.weight"
    assert [source.tensor for source in jobs[name.format(1)].inputs] == [name.format(2), name.format(1)]
    assert [source.model for source in jobs[name.format(2)].inputs] == ["b", "base"]
    assert jobs[name.format(1)].base == 1
    assert jobs[name.format(1)].inputs[1] == JobInput("base", name.format(1))
    assert name.format(3) not in jobs
    assert plan.config["num_hidden_layers"] == 3


def test_embeddings_follow_the_first_slice_and_norm_and_head_the_last(zoo: Path):
    slices = [
        {"sources": [source("a", 0, 2, scale=[0.5, 0.6])]},
        {"sources": [source("b", 0, 2, scale=[0.7, 0.8])]},
        {"sources": [source("c", 2, 3, scale=[0.1, 0.9])]},
    ]
    plan = build_plan(recipe({"slices": slices}, "passthrough"), open_all(zoo, "a", "b", "c"))
    scales = values(plan.jobs, "scale")
    assert scales["model.embed_tokens.weight"] == 0.5
    assert scales["model.norm.weight"] == scales["lm_head.weight"] == 0.1
    assert [scales[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(5)] == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert plan.config["num_hidden_layers"] == 5


def test_per_model_values_use_the_source_name_and_global_ones_the_output_name(zoo: Path):
    slices = [
        {"sources": [source("a", 0, 1, weight=1)]},
        {
            "sources": [source("a", 2, 3, weight=[{"filter": "layers.2.", "value": 2}, {"value": 3}])],
            "parameters": {"normalize": [{"filter": "layers.1.", "value": False}]},
        },
    ]
    plan = build_plan(recipe({"slices": slices}), open_all(zoo, "a"))
    job = next(job for job in plan.jobs if job.output == "model.layers.1.mlp.up_proj.weight")
    assert dict(job.inputs[0].parameters)["weight"] == 2
    assert dict(job.settings)["normalize"] is False


def test_source_parameters_go_before_slice_and_recipe_parameters(zoo: Path):
    slices = [
        {"sources": [source("a", 0, 1, scale=1)], "parameters": {"scale": 2}},
        {"sources": [source("a", 1, 2)], "parameters": {"scale": 2}},
        {"sources": [source("a", 2, 3)]},
    ]
    plan = build_plan(recipe({"slices": slices, "parameters": {"scale": 3}}, "passthrough"), open_all(zoo, "a"))
    scales = values(plan.jobs, "scale")
    assert [scales[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(3)] == [1, 2, 3]


def test_an_unlisted_base_is_added_without_parameters(zoo: Path):
    plan = build_plan(recipe({"base_model": "base", "models": weighted("a")}, "ties"), open_all(zoo, "base", "a"))
    assert [(source.model, bool(source.parameters)) for source in plan.jobs[0].inputs] == [("a", True), ("base", False)]
    assert plan.jobs[0].base == 1
    assert plan.template == "base"


def test_models_of_other_depth_are_refused_with_the_fix(make_model: MakeModel, tmp_path: Path):
    make_model("a", layers=3)
    make_model("deep", layers=4)
    with pytest.raises(MergeError, match=r'got "a" 3, "deep" 4\. Choose layers with slices'):
        build_plan(recipe({"models": weighted("a", "deep")}), open_all(tmp_path, "a", "deep"))


def test_a_layer_range_past_the_end_is_refused(zoo: Path):
    slices = [{"sources": [source("a", 0, 4)]}]
    with pytest.raises(MergeError, match=r'"a" has layers 0 to 2, got layer_range \[0, 4\]'):
        build_plan(recipe({"slices": slices}, "passthrough"), open_all(zoo, "a"))


def test_a_missing_tensor_is_named_with_its_model(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")
    checkpoints["b"].tensors = {
        name: header for name, header in checkpoints["b"].tensors.items() if "1.mlp.up" not in name
    }
    with pytest.raises(MergeError, match=r'model "b" lacks model\.layers\.1\.mlp\.up_proj\.weight'):
        build_plan(recipe({"models": weighted("a", "b")}), checkpoints)


def test_shapes_that_differ_name_tensor_models_and_shapes(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")
    name = "model.layers.0.mlp.up_proj.weight"
    header = checkpoints["b"].tensors[name]
    checkpoints["b"].tensors = {**checkpoints["b"].tensors, name: TensorHeader(header.dtype, (9, 16), header.file)}
    with pytest.raises(MergeError, match=r'up_proj\.weight: shapes differ: "a" \[24, 16\], "b" \[9, 16\]'):
        build_plan(recipe({"models": weighted("a", "b")}), checkpoints)


def test_longer_vocabularies_give_their_first_rows_with_a_warning(make_model: MakeModel, tmp_path: Path):
    make_model("a", seed=1, vocabulary=44)
    make_model("b", seed=2, vocabulary=40)
    checkpoints = open_all(tmp_path, "a", "b")
    plan = build_plan(recipe({"models": weighted("a", "b")}), checkpoints)
    assert plan.config["vocab_size"] == 40
    assert len(plan.warnings) == 2
    assert "vocabularies differ" in plan.warnings[0]
    job = plan.jobs[0]
    expected = (checkpoints["a"].read(job.output)[:40] + checkpoints["b"].read(job.output)) / 2
    torch.testing.assert_close(run_job(job, checkpoints), expected)


def test_tied_models_stay_tied_and_an_untied_one_unties_the_result(make_model: MakeModel, tmp_path: Path):
    make_model("one", seed=1, tied=True)
    make_model("two", seed=2, tied=True)
    make_model("untied", seed=3)
    checkpoints = open_all(tmp_path, "one", "two", "untied")
    tied = build_plan(recipe({"models": weighted("one", "two")}), checkpoints)
    assert tied.tied
    assert tied.config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in {job.output for job in tied.jobs}
    mixed = build_plan(recipe({"models": weighted("one", "untied")}), checkpoints)
    assert mixed.config["tie_word_embeddings"] is False
    head = next(job for job in mixed.jobs if job.output == "lm_head.weight")
    assert [source.tensor for source in head.inputs] == ["model.embed_tokens.weight", "lm_head.weight"]


def test_the_output_dtype_is_out_dtype_then_dtype_then_the_models_own(make_model: MakeModel, tmp_path: Path):
    make_model("half", seed=1, dtype="bfloat16")
    make_model("other", seed=2, dtype="float16")
    make_model("full", seed=2)
    checkpoints = open_all(tmp_path, "half", "other", "full")

    def dtype(*models: str, **keys: str) -> torch.dtype:
        plan = build_plan(recipe({"models": weighted(*(models or ("half", "full"))), **keys}), checkpoints)
        assert plan.config["dtype"] == str(plan.jobs[0].dtype).removeprefix("torch.")
        return plan.jobs[0].dtype

    assert dtype("half") == torch.bfloat16
    # As in mergekit: a dtype that holds the values of all.
    assert dtype("half", "full") == torch.float32
    assert dtype("half", "other") == torch.float32
    assert dtype(dtype="float16") == torch.float16
    assert dtype(dtype="float32", out_dtype="bfloat16") == torch.bfloat16


def test_per_layer_lists_of_the_config_follow_their_layers(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")
    for name, kinds in (("a", ["x", "y", "x"]), ("b", ["p", "q", "r"])):
        checkpoints[name].config = checkpoints[name].config | {"layer_types": kinds}
    slices = [{"sources": [source("a", 1, 3)]}, {"sources": [source("b", 0, 2)]}]
    plan = build_plan(recipe({"slices": slices}, "passthrough"), checkpoints)
    assert plan.config["layer_types"] == ["y", "x", "p", "q"]


def test_a_pattern_with_a_letter_for_every_layer_follows_them_and_states_their_number(zoo: Path):
    """As Nemotron-H's, whose older configs have it beside a number and newer ones a list of kinds and no number."""
    checkpoints = open_all(zoo, "a", "b")
    for name, pattern in (("a", "M*E"), ("b", "-ME")):
        checkpoints[name].config = checkpoints[name].config | {"hybrid_override_pattern": pattern}
        del checkpoints[name].config["num_hidden_layers"]
    slices = [{"sources": [source("a", 1, 3)]}, {"sources": [source("b", 0, 2)]}]
    plan = build_plan(recipe({"slices": slices}, "passthrough"), checkpoints)
    assert plan.config["hybrid_override_pattern"] == "*E-M"


@pytest.mark.parametrize("indices", [[1], [0, 2], [0, 1, 2], []])
def test_lists_that_name_layers_follow_them(indices: list[int], zoo: Path):
    """As Llama 4's moe_layers does, which is as long as there are layers where all have experts."""
    checkpoints = open_all(zoo, "a", "b")
    for name in ("a", "b"):
        checkpoints[name].config = checkpoints[name].config | {"moe_layers": indices}
    slices = [{"sources": [source("a", 1, 3)]}, {"sources": [source("b", 1, 3)]}]
    plan = build_plan(recipe({"slices": slices}, "passthrough"), checkpoints)
    once = [index for index in indices if index in (1, 2)]
    assert plan.config["moe_layers"] == [index - 1 for index in once] + [index + 1 for index in once]


def with_dense_layer(zoo: Path, **config: Any) -> dict[str, Checkpoint]:
    """A model of three layers, of which the first has other tensors, as DeepSeek-V3's dense ones."""
    file = zoo / "a" / "model.safetensors"
    tensors = {
        name.replace("mlp", "experts") if ".layers.0." not in name else name: tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file)
    checkpoints = open_all(zoo, "a")
    checkpoints["a"].config = checkpoints["a"].config | config
    return checkpoints


@pytest.mark.parametrize(
    ("ranges", "config", "displaced"),
    [
        ([(0, 3), (2, 3)], {"first_k_dense_replace": 1}, None),
        ([(0, 2), (0, 3)], {"first_k_dense_replace": 1}, "layers 2 of"),
        ([(1, 3)], {"first_k_dense_replace": 1}, "layers 0 of"),
        ([(0, 2), (0, 3)], {"mlp_layer_types": ["dense", "sparse", "sparse"]}, None),
    ],
)
def test_a_stack_that_moves_layers_of_one_kind_to_the_place_of_another_is_warned_of(
    ranges: list[tuple[int, int]], config: dict[str, Any], displaced: str | None, zoo: Path
):
    slices = [{"sources": [source("a", *layers)]} for layers in ranges]
    plan = build_plan(recipe({"slices": slices}, "passthrough"), with_dense_layer(zoo, **config))
    found = [warning for warning in plan.warnings if "of another kind" in warning]
    assert len(found) == (displaced is not None)
    assert displaced is None or displaced in found[0]


def test_nan_in_a_model_is_blamed_on_it(zoo: Path):
    checkpoints = open_all(zoo, "a", "b")
    plan = build_plan(recipe({"models": weighted("a", "b")}), checkpoints)
    checkpoints["b"].read("model.norm.weight")[3] = float("nan")
    job = next(job for job in plan.jobs if job.output == "model.norm.weight")
    with pytest.raises(MergeError, match=r'model "b": tensor model\.norm\.weight has NaN'):
        run_job(job, checkpoints)


def test_a_result_too_large_for_its_dtype_is_said_so(zoo: Path):
    checkpoints = open_all(zoo, "a")
    models = [{"model": "a", "parameters": {"scale": 1e6}}]
    plan = build_plan(recipe({"models": models, "dtype": "float16"}, "passthrough"), checkpoints)
    with pytest.raises(MergeError, match="do not fit float16"):
        run_job(plan.jobs[0], checkpoints)


def test_planning_a_candidate_reads_no_data_and_settings_as_often_for_any_depth(monkeypatch: pytest.MonkeyPatch):
    """What a candidate costs before its first tensor: layers look values up in settings that are read already."""

    def checkpoint(name: str, layers: int) -> Checkpoint:
        nowhere = Path("nowhere")
        tensors = {
            f"model.layers.{layer}.{part}.weight": TensorHeader(torch.bfloat16, (64, 64), nowhere)
            for layer in range(layers)
            for part in ("q", "k", "v", "o", "gate", "up", "down", "norm1", "norm2")
        }
        outside = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
        tensors |= {name: TensorHeader(torch.bfloat16, (64, 64), nowhere) for name in outside}
        return Checkpoint(Path(name), {"num_hidden_layers": layers}, tensors)

    read: list[str] = []

    class Counting(ParameterReader):
        def __init__(self, parameter: Parameter, levels: Sequence[Parameters], owner: str | None) -> None:
            read.append(f"{owner}: {parameter.name}")
            super().__init__(parameter, levels, owner)

    monkeypatch.setattr(slice_context, "ParameterReader", Counting)
    weight = [{"filter": "up", "value": [0.1, 0.9]}, {"filter": "q", "value": [0.5, 0.2, 0.1]}, {"value": 0.3}]
    models = [{"model": name, "parameters": {"weight": weight, "density": [0.2, 0.8]}} for name in ("a", "b", "c", "d")]
    candidate = recipe({"base_model": "base", "models": models}, "dare_ties")
    readings = []
    for layers in (3, 33):
        read.clear()
        plan = build_plan(candidate, {name: checkpoint(name, layers) for name in ("base", "a", "b", "c", "d")})
        assert len(plan.jobs) == 9 * layers + 3
        readings.append(sorted(read))
    assert {f"{name}: {key}" for name in ("a", "b", "c", "d") for key in ("weight", "density")} <= set(read)
    assert readings[0] == readings[1]
