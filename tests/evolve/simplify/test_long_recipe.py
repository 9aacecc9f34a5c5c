"""Best recipes of every kind of search as numbers: what they are read as, and that forms of them mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evolve.preflight.search_models import open_models, span_genome, span_recipe
from evolve.simplify.long_recipe import LongRecipe, count_numbers, numbers_in, obstacle
from evolve.simplify.metric import Metric
from evolve.simplify.short_form import Share, ShortForm
from evolve.simplify.short_forms import short_forms
from evolve.simplify.unsaid import skips_weightless
from evolve.space.genome_space import GenomeDefinition
from evolve.space.layer_path import Step
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.space import gene_values
from evolve.space.template import Template
from evolve.trials.trial import Kind, Trial
from merge_core import METHODS, MergePlan, documents_of, plan_recipes
from merge_core.execute.job_runner import run_job

ZOO = Path("configs/demo_zoo").resolve()
EACH = {"low": -0.5, "high": 1.5, "layers": "each"}
EVERY_TENSOR = {**EACH, "filters": "each_tensor"}
DENSITY = {"low": 0.2, "high": 1.0, "layers": {"blocks": 3}}
CHOICE = {"choices": [str(ZOO / name) for name in ("sorting", "reversal")]}
PATH = (0, 1, 2, 1, 2, 3, 5)


def recipe(method: Any, own: dict[str, Any], models: tuple[Any, ...] = ("sorting", "shift"), **more: Any) -> Any:
    named = [name if isinstance(name, dict) else str(ZOO / name) for name in models]
    entries = [{"model": name, **({"parameters": own} if own else {})} for name in named]
    return {"merge_method": method, "base_model": str(ZOO / "base"), "models": entries, "dtype": "float32", **more}


def on_a_path(parameters: dict[str, Any]) -> dict[str, Any]:
    """What `layers: {from: RUN}` stands for."""
    whole = recipe("task_arithmetic", {})
    names = [*(entry["model"] for entry in whole.pop("models")), whole["base_model"]]
    parts = [(0, 3), (1, 4), (5, 6)]
    return whole | {
        "slices": [
            {
                "sources": [
                    {"model": name, "layer_range": list(part)}
                    | ({} if name == names[-1] else {"parameters": parameters})
                    for name in names
                ]
            }
            for part in parts
        ]
    }


WEIGHTS: dict[str, Any] = {"weight": EVERY_TENSOR}
KINDS: dict[str, Any] = {
    "every tensor": recipe("task_arithmetic", WEIGHTS),
    "weights and densities": recipe("ties", {"weight": EACH, "density": DENSITY}),
    "methods by block": recipe(
        {"choices": ["ties", "dare_linear"], "layers": "each"}, {"weight": EACH, "density": DENSITY}
    ),
    "path and weights": recipe("task_arithmetic", WEIGHTS, layers="any"),
    "path and random masks": recipe("dare_linear", {"weight": EACH, "density": 0.5}, layers="any"),
    "weights on a given path": on_a_path({"weight": {"low": 0, "high": 1, "layers": "each"}}),
    "an average": recipe("linear", {"weight": EACH}, ("base", "sorting", "shift")),
    "between two": recipe("slerp", {}, ("base", "sorting"), parameters={"t": {"low": 0, "high": 1, "layers": "each"}}),
    "a choice of models": recipe("task_arithmetic", {"weight": EACH}, (CHOICE, "swapping")),
    "a factor of all": recipe("task_arithmetic", {"weight": 0.5}, parameters={"lambda": EACH}),
}
GENOMES: dict[str, Any] = {
    "a genome": {"merge_method": "ties", "layer_granularity": 2, "filters": ["self_attn", "mlp"]},
    "a smooth genome": {"merge_method": "task_arithmetic", "layer_granularity": 2, "smooth": True},
}
RUN: dict[str, Any] = {"name": "first", **recipe("linear", {"weight": [0.1, 0.9]})}


@cache
def found(kind: str) -> tuple[Any, Trial, LongRecipe]:
    """A search of a kind, what it found, and that as numbers."""
    if kind in GENOMES:
        models = {"models": [str(ZOO / "sorting"), str(ZOO / "shift")], "base_model": str(ZOO / "base")}
        genome = GenomeDefinition.model_validate({**GENOMES[kind], **models, "allow_negative_weights": True})
        spanned = span_genome(genome, ZOO, None)
    elif kind == "a run as a model":
        document = recipe("task_arithmetic", WEIGHTS)
        document["models"].append({"model": "runs/first", "parameters": WEIGHTS})
        template = Template.read(document).with_run_models({"runs/first": "first"}, {"first": (RUN,)})
        spanned = span_recipe(template, open_models(template.places, ZOO, template.run_models))
    else:
        template = Template.read(KINDS[kind])
        spanned = span_recipe(template, open_models(template.places, ZOO))
    prepared: Any = SimpleNamespace(
        space=spanned.space,
        template=spanned.template,
        checkpoints=spanned.checkpoints,
        tokenizer_model=spanned.tokenizer_model,
        config=SimpleNamespace(seed=0),
    )
    space: Any = spanned.space
    vector = np.random.default_rng(0).uniform(size=len(space.coordinates)).tolist()
    if isinstance(space, MergedPathSpace):
        point = space.point_of(tuple(Step(0, layer) for layer in PATH))
        assert point is not None
        vector[: space.place_count] = point[: space.place_count]
    genes = gene_values(space, vector)
    best = Trial(0, Kind.CANDIDATE, "candidate 0", 0, space.decode(vector), genes=genes, vector=tuple(vector))
    assert obstacle(prepared, best) is None
    return prepared, best, LongRecipe.of(prepared, best)


def plan_of(prepared: Any, one: Mapping[str, Any]) -> MergePlan:
    return plan_recipes(documents_of(one), prepared.checkpoints, prepared.config.seed)


def numbers_of(prepared: Any, long: LongRecipe, one: Mapping[str, Any]) -> list[float]:
    """What a recipe sets in every number of the long one, by its own plan."""
    jobs = {job.output: job for job in plan_of(prepared, one).jobs}
    return [
        dict(
            jobs[cell.output].settings
            if cell.slot.position is None
            else jobs[cell.output].inputs[cell.slot.position].parameters
        )[cell.slot.name]
        for cell in long.cells
    ]


ALL = (*KINDS, *GENOMES, "a run as a model")


@pytest.mark.parametrize("kind", ALL)
def test_every_number_that_was_searched_is_read(kind: str) -> None:
    prepared, best, long = found(kind)
    assert [cell.value for cell in long.cells] == numbers_of(prepared, long, best.recipe)
    names = {"between two": {"t"}, "a factor of all": {"lambda"}, "weights and densities": {"weight", "density"}}
    expected = names.get(kind, {"weight", "density"} if kind in ("methods by block", "a genome") else {"weight"})
    assert {cell.slot.name for cell in long.cells} == expected
    assert {cell.output for cell in long.cells} == {job.output for job in plan_of(prepared, best.recipe).jobs}


@pytest.mark.parametrize("kind", ALL)
def test_forms_mean_what_they_are_scored_as(kind: str) -> None:
    """Filters, knots and what is not said: the plan of the written recipe has the numbers that were chosen by."""
    prepared, _, long = found(kind)
    generator = np.random.default_rng(1)
    metric = Metric.of([generator.normal(size=(5, len(long.cells))).tolist()], [cell.moved for cell in long.cells])
    forms = list(short_forms(long.sites, metric, long.least + 7))
    assert forms[0].numbers == long.least
    for form in (forms[0], forms[-1]):
        settings = form.settings(long.sites)
        told = numbers_of(prepared, long, long.with_numbers(settings))
        unsaid = [
            (0.0 if site.default is None else site.default) if not own else 0.0
            for site, own in zip(long.sites, form.shares, strict=True)
            for _ in site.cells
        ]
        assert told == pytest.approx(form.mixture(long.sites) @ form.values + unsaid)
        written = long.written(settings)
        fixed = numbers_in(prepared.template, long.outline.recipe) - len(long.sites)
        assert numbers_in(prepared.template, written) <= form.numbers + fixed
        assert _same_but_for_weightless(plan_of(prepared, long.with_numbers(settings)), plan_of(prepared, written))


def _same_but_for_weightless(whole: MergePlan, written: MergePlan) -> bool:
    def without(plan: MergePlan) -> list[Any]:
        return [
            (
                job.output,
                [one for one in job.inputs if dict(one.parameters).get("weight") != 0.0],
                job.settings,
                job.seed,
            )
            for job in plan.jobs
        ]

    return without(whole) == without(written)


@pytest.mark.parametrize("kind", ["every tensor", "weights and densities", "an average", "a run as a model"])
def test_a_model_without_weight_is_left_out_and_changes_no_bit(kind: str) -> None:
    prepared, _, long = found(kind)
    shares = tuple((Share(None, (0.5 if site.clip(0.5) == 0.5 else site.low,)),) for site in long.sites)
    last = max(number for number, site in enumerate(long.sites) if site.model is not None)
    gone = long.sites[last].model
    assert gone is not None
    shares = tuple((Share(None, (0.0,)),) if number == last else own for number, own in enumerate(shares))
    settings = ShortForm(shares).settings(long.sites)
    whole, written = long.with_numbers(settings), long.written(settings)
    names = [entry["model"] for entry in written.get("documents", [written])[-1]["models"]]
    assert len(names) == gone[-1]
    assert "documents" not in written  # a run that is left out is not made either
    for output in ("model.embed_tokens.weight", "model.layers.3.mlp.down_proj.weight"):
        bits = [
            run_job(next(job for job in plan_of(prepared, one).jobs if job.output == output), prepared.checkpoints)
            for one in (whole, written)
        ]
        assert bool((bits[0] == bits[1]).all())


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if skips_weightless(method)])
def test_methods_that_skip_a_weight_of_0_give_the_same_bits_without_the_model(method: str) -> None:
    models = open_models({str(ZOO / name): () for name in ("base", "sorting", "shift", "swapping")}, ZOO)
    whole = recipe(method, {"weight": 0.4}, ("sorting", "shift", "swapping"))
    whole["models"][1] = {**whole["models"][1], "parameters": {"weight": 0.0}}
    without = {**whole, "models": [whole["models"][0], whole["models"][2]]}
    found = []
    for one in (whole, without):
        plan = plan_recipes(documents_of(one), models, 0)
        found.append(next(job for job in plan.jobs if job.output == "model.layers.3.mlp.down_proj.weight"))
    assert bool((run_job(found[0], models) == run_job(found[1], models)).all())


def test_as_many_models_stay_as_a_method_needs() -> None:
    _, _, long = found("every tensor")
    assert long.least == 1
    assert [site.fewest for site in long.sites] == [1, 1]
    nothing = long.written({site.place: 0.0 for site in long.sites})
    assert [entry["model"] for entry in nothing["models"]] == [str(ZOO / "sorting")]
    _, _, average = found("an average")
    assert [site.model is None for site in average.sites] == [True, False, False]  # the base is no other's task vector


def test_a_density_of_1_needs_no_key() -> None:
    _, _, long = found("weights and densities")
    assert {site.default for site in long.sites if site.place[-1] == "density"} == {1.0}
    settings = {site.place: 1.0 if site.place[-1] == "density" else 0.5 for site in long.sites}
    assert [entry["parameters"] for entry in long.written(settings)["models"]] == [{"weight": 0.5}, {"weight": 0.5}]
    assert count_numbers(long.written(settings)) == 2


def test_a_path_is_a_merge_and_the_order_of_its_layers() -> None:
    _, _, long = found("path and weights")
    merge, path = long.written({site.place: 0.5 for site in long.sites})["documents"]
    assert (merge["name"], [entry["parameters"] for entry in merge["models"][:2]]) == ("merge", [{"weight": 0.5}] * 2)
    layers = [part["sources"] for part in path["slices"]]
    assert layers == [[{"model": "merge", "layer_range": list(part)}] for part in ((0, 3), (1, 4), (5, 6))]
    _, _, given = found("weights on a given path")
    assert given.least == 1
    assert len(given.sites) == 2


def test_where_a_path_has_random_masks_each_stretch_has_numbers_of_its_own() -> None:
    _, _, long = found("path and random masks")
    assert len(long.outline.recipe["slices"]) == 3
    assert len(long.sites) == 6


def test_each_method_of_a_block_has_numbers_of_its_own() -> None:
    _, _, long = found("methods by block")
    assert {site.place[:2] for site in long.sites} == {("documents", 0), ("documents", 1)}
    outputs = [{cell.output for cell in site.cells} for site in long.sites if site.place[-1] == "weight"]
    assert not outputs[0] & outputs[-1]


def test_a_genome_has_a_place_for_each_parameter_of_a_model() -> None:
    _, _, long = found("a genome")
    said = long.written({site.place: 0.5 for site in long.sites})
    assert "slices" not in said
    assert [entry.get("parameters") for entry in said["models"]] == [{"weight": 0.5, "density": 0.5}] * 2 + [None]


def test_numbers_of_the_run_that_is_a_model_are_not_counted() -> None:
    prepared, best, long = found("a run as a model")
    assert count_numbers(best.recipe) == numbers_in(prepared.template, best.recipe) + 4
    assert len(long.sites) == 3
