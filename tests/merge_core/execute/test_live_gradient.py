"""Gradients of a loss by a recipe's numbers, against finite differences of the loss of a merge made in float64."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HIDDEN, INNER
from safetensors.torch import save_file
from tiny_families import TOKENS, new_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from merge_core import (
    Checkpoint,
    LiveGradient,
    LiveMerge,
    ModelReference,
    ParameterSlot,
    Recipe,
    TensorJob,
    build_plan,
    live_parameters,
    open_checkpoints,
    plan_parameters,
    run_job,
)
from merge_core.execute.job_runner import JobRunner
from merge_core.methods import METHODS
from merge_core.plan.tensor_job import Values

MakeModel = Callable[..., Path]
STEP = 1e-4


@contextmanager
def all_in_float64() -> Iterator[None]:
    """Parts of the models fall back to float32, in which differences have no digits; here they do not."""
    to, softmax = Tensor.to, nn.functional.softmax

    def widened(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        found = to(tensor, *args, **options)
        return tensor.double() if found.dtype == torch.float32 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "to", widened)
        patch.setattr(Tensor, "float", Tensor.double)
        patch.setattr(nn.functional, "softmax", lambda values, dim=None, dtype=None: softmax(values, dim=dim))
        yield


def loss(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    with all_in_float64():
        logits = model(input_ids=tokens, use_cache=False).logits
    return nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])


def by_gradient(model: nn.Module, live_merge: LiveMerge, recipe: Recipe) -> dict[str, dict[ParameterSlot, float]]:
    report = live_merge.write(recipe, live_parameters(model))
    with LiveGradient(live_merge, report.plan, model) as gradient:
        loss(model).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    return gradient.totals


def task_arithmetic(weights: dict[str, Any], scaling: Any = 1.0, **keys: Any) -> Recipe:
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    mapping = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    return Recipe.from_mapping({**mapping, "parameters": {"lambda": scaling}, "dtype": "float32", **keys})


def sums_by_name(totals: dict[str, dict[ParameterSlot, float]]) -> dict[ParameterSlot, float]:
    found: dict[ParameterSlot, float] = {}
    for slots in totals.values():
        for slot, value in slots.items():
            found[slot] = found.get(slot, 0.0) + value
    return found


def write_exactly(parameters: dict[str, Tensor], checkpoints: dict[str, Checkpoint], weights: dict[str, float]) -> None:
    """``b + Σ wᵢ (xᵢ − b)`` in float64, into a live model of that precision."""
    for name in checkpoints["base"].tensors:
        base = checkpoints["base"].read(name).double()
        merged = base.clone()
        for model, weight in weights.items():
            merged += weight * (checkpoints[model].read(name).double() - base)
        parameters[name].detach().copy_(merged)


def open_family(family: str, directory: Path) -> dict[str, Checkpoint]:
    """A base and two models that differ from it, stored."""
    for seed, name in enumerate(("base", "a", "b")):
        model = new_model(family, 0)
        if name != "base":
            torch.manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(directory / name)
    return {name: Checkpoint.open(directory / name) for name in ("base", "a", "b")}


def exact_model(directory: Path, **changes: Any) -> nn.Module:
    """A live model in float64; its experts are multiplied one by one, as only that knows this precision."""
    config = AutoConfig.from_pretrained(directory, experts_implementation="eager", **changes)
    model: nn.Module = AutoModelForCausalLM.from_config(config).double().eval()
    return model


def central_difference(function: Callable[[float], float], at: float, step: float = STEP) -> float:
    return (function(at + step) - function(at - step)) / (2 * step)


# Tied embeddings, and experts that are one parameter of the live model, are among them.
@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral", "qwen3_moe"])
def test_the_gradient_of_every_weight_is_that_of_the_loss(family: str, tmp_path: Path):
    checkpoints = open_family(family, tmp_path)
    model = exact_model(tmp_path / "base")
    weights = {"a": 0.4, "b": 0.7}
    found = sums_by_name(by_gradient(model, LiveMerge(checkpoints), task_arithmetic(weights)))
    parameters = live_parameters(model)

    def loss_at(**changed: float) -> float:
        write_exactly(parameters, checkpoints, {**weights, **changed})
        with torch.no_grad():
            return float(loss(model))

    for position, name in enumerate("ab"):
        expected = central_difference(lambda value, name=name: loss_at(**{name: value}), weights[name])
        assert found[ParameterSlot("weight", position)] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    expected = central_difference(lambda value: loss_at(**{name: value * weights[name] for name in weights}), 1.0)
    assert found[ParameterSlot("lambda")] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def models_of(values: dict[str, Any], base: bool = True) -> dict[str, Any]:
    models = [{"model": name, "parameters": own} for name, own in values.items()]
    return {"models": models, "dtype": "float32", **({"base_model": "base"} if base else {})}


SMOOTH = {
    "linear": models_of({"base": {"weight": 0.5}, "a": {"weight": 0.9}, "b": {"weight": -0.3}}, base=False),
    "task_arithmetic": models_of({"a": {"weight": 0.6}, "b": {"weight": 0.3}}) | {"parameters": {"normalize": True}},
    "dare_linear": models_of({"a": {"weight": 0.6, "density": 0.5}, "b": {"weight": 0.0, "density": 0.7}}),
    "breadcrumbs": models_of({"a": {"weight": 0.6, "density": 0.5}, "b": {"weight": 0.3, "density": 0.7}}),
    "della_linear": models_of({"a": {"weight": 0.6, "density": 0.5}, "b": {"weight": 0.3, "density": 0.7}}),
    "slerp": models_of({"a": {}}) | {"parameters": {"t": 0.3}},
    "nuslerp": models_of({"a": {"weight": 0.6}, "b": {"weight": 0.9}}),
    "passthrough": models_of({"a": {"scale": 0.9}}, base=False),
}
"""Recipes of the methods that have a formula."""


@pytest.mark.parametrize("method", SMOOTH)
def test_every_tensor_of_every_method_has_the_slope_of_its_own_parameters(zoo: Path, method: str):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    recipe = Recipe.from_mapping({"merge_method": method, **SMOOTH[method]})
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints, seed=3)
    totals = by_gradient(model, live_merge, recipe)
    plan = build_plan(recipe, checkpoints, 3)
    values, jobs = plan_parameters(plan), {job.output: job for job in plan.jobs}
    assert totals.keys() == jobs.keys()
    parameters = live_parameters(model)
    for output in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"):
        before = parameters[output].clone()
        for slot, value in values[output].items():
            if slot.name not in METHODS[method].by_formula:
                continue

            def loss_at(value: float, output: str = output, slot: ParameterSlot = slot) -> float:
                parameters[output].detach().copy_(run_job(with_value(jobs[output], slot, value), checkpoints))
                with torch.no_grad():
                    return float(loss(model))

            # The merge is rounded to float32, so the step cannot be small.
            expected = central_difference(loss_at, value, 0.01)
            assert totals[output][slot] == pytest.approx(expected, rel=2e-3, abs=1e-5)
        parameters[output].detach().copy_(before)


def test_of_a_method_without_a_formula_the_gradient_meets_the_difference_of_two_merges(zoo: Path):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    values = {"a": {"weight": 0.8, "density": 0.5}, "b": {"weight": 0.4, "density": 0.7}}
    recipe = Recipe.from_mapping({"merge_method": "ties", **models_of(values)})
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints)
    totals = by_gradient(model, live_merge, recipe)
    output, jobs = (
        "model.layers.1.mlp.up_proj.weight",
        {job.output: job for job in build_plan(recipe, checkpoints).jobs},
    )
    weight = dict(model.named_parameters())[output].requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(model), [weight])
    assert len(totals[output]) == 5
    for slot, value in plan_parameters(build_plan(recipe, checkpoints))[output].items():
        step = {"weight": 0.02, "density": 0.018, "lambda": 0.024}[slot.name]  # a fiftieth of the default range
        moved, here = (run_job(with_value(jobs[output], slot, there), checkpoints) for there in (value + step, value))
        expected = float((gradient * (moved.double() - here.double())).sum()) / step
        assert totals[output][slot] == pytest.approx(expected, rel=1e-4, abs=1e-7)  # merges are rounded


def test_only_what_is_asked_for_is_differentiated(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    values = {"a": {"weight": 0.8, "density": 0.5}, "b": {"weight": 0.4, "density": 0.7}}
    recipe = Recipe.from_mapping({"merge_method": "ties", **models_of(values)})
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints)
    every = by_gradient(model, live_merge, recipe)
    wanted = [ParameterSlot("density", 0), ParameterSlot("lambda")]
    with LiveGradient(live_merge, build_plan(recipe, checkpoints), model, wanted) as gradient:
        loss(model).backward()
    assert gradient.totals.keys() == every.keys()
    for output, slots in gradient.totals.items():
        assert slots == {slot: every[output][slot] for slot in slots}
        assert {slot.name for slot in slots} == {"density", "lambda"}


def with_value(job: TensorJob, slot: ParameterSlot, value: float) -> TensorJob:
    """The job with another value of one parameter."""

    def changed(values: Values) -> Values:
        return tuple((name, value if name == slot.name else other) for name, other in values)

    if slot.position is None:
        return replace(job, settings=changed(job.settings))
    inputs = list(job.inputs)
    inputs[slot.position] = replace(inputs[slot.position], parameters=changed(inputs[slot.position].parameters))
    return replace(job, inputs=tuple(inputs))


def test_parameters_over_layers_and_filters_are_values_of_the_tensors(zoo: Path):
    """What a gene does to every tensor is the difference of two plans; the chain rule gives its derivative."""
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints)

    def recipe(knot: float) -> Recipe:
        return task_arithmetic({"a": [{"filter": "mlp", "value": [0.1, knot, 0.9]}, {"value": 0.4}], "b": 0.2}, 0.8)

    def loss_at(knot: float) -> float:
        live_merge.write(recipe(knot), live_parameters(model))
        with torch.no_grad():
            return float(loss(model))

    low, high = (plan_parameters(build_plan(recipe(0.5 + step), checkpoints)) for step in (-0.01, 0.01))
    totals = by_gradient(model, live_merge, recipe(0.5))
    slopes = {
        (output, slot): (high[output][slot] - value) / 0.02
        for output, slots in low.items()
        for slot, value in slots.items()
    }
    moved = {output for (output, slot), slope in slopes.items() if slope}
    assert moved == {f"model.layers.1.mlp.{name}_proj.weight" for name in ("up", "gate", "down")}
    found = sum(slope * totals[output][slot] for (output, slot), slope in slopes.items())
    assert found == pytest.approx(central_difference(loss_at, 0.5, 0.01), rel=2e-3)


def test_layers_from_one_source_have_each_their_own_gradient(zoo: Path):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a")}
    sources = [{"model": "base"}, {"model": "a", "parameters": {"weight": 0.5}}]
    slices = [{"sources": [{**source, "layer_range": part} for source in sources]} for part in ([0, 2], [1, 3])]
    mapping = {"merge_method": "task_arithmetic", "base_model": "base", "slices": slices, "dtype": "float32"}
    recipe = Recipe.from_mapping(mapping)
    model = exact_model(zoo / "base", num_hidden_layers=4)
    totals = by_gradient(model, LiveMerge(checkpoints), recipe)
    jobs = {job.output: job for job in build_plan(recipe, checkpoints).jobs}
    one, two = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in (1, 2))
    assert jobs[one].inputs == jobs[two].inputs
    slot = ParameterSlot("weight", 1)
    for output in (one, two):
        parameter = live_parameters(model)[output]

        def loss_at(value: float, output: str = output, parameter: Tensor = parameter) -> float:
            parameter.detach().copy_(run_job(with_value(jobs[output], slot, value), checkpoints))
            with torch.no_grad():
                return float(loss(model))

        assert totals[output][slot] == pytest.approx(central_difference(loss_at, 0.5, 0.01), rel=2e-3)
        loss_at(0.5)


def test_an_adapter_is_followed_like_any_model(make_model: MakeModel, tmp_path: Path):
    make_model("base")
    module = "model.layers.1.mlp.down_proj"
    factors = {f"base_model.model.{module}.lora_A.weight": torch.randn(2, INNER)}
    factors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(HIDDEN, 2)
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "org/base"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    names = ["base", "base+adapter"]
    checkpoints = open_checkpoints([ModelReference.parse(name) for name in names], tmp_path)
    model, live_merge = exact_model(tmp_path / "base"), LiveMerge(checkpoints)
    totals = by_gradient(model, live_merge, task_arithmetic({"base+adapter": 0.1}))

    def loss_at(weight: float) -> float:
        live_merge.write(task_arithmetic({"base+adapter": weight}), live_parameters(model))
        with torch.no_grad():
            return float(loss(model))

    found = {output: slots[ParameterSlot("weight", 0)] for output, slots in totals.items()}
    assert {output for output, value in found.items() if value} == {f"{module}.weight"}
    assert sum(found.values()) == pytest.approx(central_difference(loss_at, 0.1, 0.001), rel=2e-3)


def test_of_two_tensors_on_one_parameter_the_one_that_is_there_has_the_gradient(zoo: Path):
    """A tied head that has a job of its own is written over the embedding."""
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    model = exact_model(zoo / "base")
    model.lm_head.weight = model.model.embed_tokens.weight
    totals = by_gradient(model, LiveMerge(checkpoints), task_arithmetic({"a": 0.4, "b": 0.7}))
    assert set(totals["model.embed_tokens.weight"].values()) == {0.0}
    assert all(totals["lm_head.weight"].values())


def test_passes_add_up_and_one_gradient_is_held_at_a_time(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints)
    report = live_merge.write(task_arithmetic({"a": 0.4, "b": 0.7}), live_parameters(model))
    contract, alive, most = live_merge.differentiate, set(), []

    def watch(job: TensorJob, gradient: Tensor, wanted: Any) -> Any:
        storage = gradient.untyped_storage()
        alive.add(storage.data_ptr())
        weakref.finalize(storage, alive.discard, storage.data_ptr())
        most.append(len(alive))
        assert all(parameter.grad is None for parameter in model.parameters())
        return contract(job, gradient, wanted)

    monkeypatch.setattr(live_merge, "differentiate", watch)
    texts = TOKENS, TOKENS.flip(1)
    single = []
    for text in texts:
        with LiveGradient(live_merge, report.plan, model) as gradient:
            loss(model, text).backward()
        single.append(gradient.totals)
    with LiveGradient(live_merge, report.plan, model) as gradient:
        for text in texts:
            loss(model, text).backward()
    assert set(most) == {1}
    assert len(most) == 4 * len(report.plan.jobs)
    for output, slots in gradient.totals.items():
        for slot, value in slots.items():
            assert value == single[0][output][slot] + single[1][output][slot]


def test_only_weights_that_parameters_move_require_a_gradient(zoo: Path):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    model, live_merge = exact_model(zoo / "base").requires_grad_(False), LiveMerge(checkpoints)
    report = live_merge.write(task_arithmetic({"a": 0.4}), live_parameters(model))
    with LiveGradient(live_merge, report.plan, model):
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for method, names in (("model_stock", "ab"), ("arcee_fusion", "a")):
        recipe = Recipe.from_mapping({"merge_method": method, **models_of({name: {} for name in names})})
        plan = live_merge.write(recipe, live_parameters(model)).plan
        with LiveGradient(live_merge, plan, model) as gradient:
            assert not any(parameter.requires_grad for parameter in model.parameters())
        assert gradient.totals == plan_parameters(plan) == {}


def test_where_an_accelerator_has_no_room_the_cpu_differentiates_to_the_same_numbers(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    recipe = Recipe.from_mapping({"merge_method": "ties", **models_of({"a": {"weight": 0.8, "density": 0.5}})})
    model, live_merge = exact_model(zoo / "base"), LiveMerge(checkpoints)
    expected = by_gradient(model, live_merge, recipe)
    whole, asked = JobRunner.differentiate, []

    def full_at_first(runner: JobRunner, job: TensorJob, *others: Any) -> Any:
        asked.append(job.output)
        if asked.count(job.output) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(runner, job, *others)

    monkeypatch.setattr(JobRunner, "differentiate", full_at_first)
    assert by_gradient(model, live_merge, recipe) == expected
    assert {asked.count(output) for output in expected} == {2}


def test_after_an_error_the_model_is_as_before(zoo: Path):
    checkpoints = {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}
    model, live_merge = exact_model(zoo / "base").requires_grad_(False), LiveMerge(checkpoints)
    report = live_merge.write(task_arithmetic({"a": 0.4}), live_parameters(model))
    with pytest.raises(RuntimeError), LiveGradient(live_merge, report.plan, model):
        loss(model)[None].expand(2).backward()  # not one number
    assert not any(parameter.requires_grad or parameter._post_accumulate_grad_hooks for parameter in model.parameters())
