"""What every candidate is compared with: the models as they are, and their plain average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evolve.space.genes import RangeGene, looks_like_gene
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.space import Space
from evolve.space.template import Template
from evolve.trials.trial import OPENING, Fitness, Kind, Trial
from merge_core import METHODS, documents_of
from merge_core.plan.slice_context import SliceContext
from merge_core.plan.towers import towers
from merge_core.recipe.slices import output_slices

UNIFORM = "uniform merge"  # its label
WHOLE: Mapping[str, float] = {"density": 1.0, "gamma": 0.0, "lambda": 1.0}
"""What parameters must be for a model of weight 1, beside others of weight 0, to be what comes out as it is."""
ROUNDED = {"multislerp"}  # where such a model comes out but for rounding


def reference_trials(space: Space, template: Template, mergeable: bool) -> list[Trial]:
    """The parents (the base model first), then the uniform merge.

    Args:
        space: names the models.
        template: the recipe with genes; output dtype and tokenizer settings are taken over.
        mergeable: whether all models have the same number of layers, so that an average exists.
    """
    document = template.document
    shared = {key: document[key] for key in ("dtype", "out_dtype") if isinstance(document.get(key), str)}
    trials = [
        Trial(
            number=number,
            kind=Kind.PARENT,
            label=model,
            batch=OPENING,
            recipe=template.complete({"merge_method": "passthrough", "models": [{"model": model}], **shared}),
        )
        for number, model in enumerate(sorted(space.models, key=lambda model: model != space.base_model))
    ]
    merged = fine_tunes(space)
    if mergeable and len(merged) > 1:
        recipe = {
            "merge_method": "linear",
            "models": [{"model": model, "parameters": {"weight": 1.0}} for model in merged],
            **shared,
        }
        for key in ("tokenizer", "tokenizer_source"):
            if key in document:
                recipe[key] = document[key]
        if "tokenizer" in recipe or "tokenizer_source" in recipe:
            recipe["base_model"] = space.base_model
        trials.append(Trial(len(trials), Kind.UNIFORM, UNIFORM, OPENING, template.complete(recipe)))
    return trials


def fine_tunes(space: Space) -> Sequence[str]:
    """The models to average: all but the base that task vectors are taken against, unless that leaves one alone."""
    others = [model for model in space.models if model != space.base_model]
    return others if len(others) > 1 else space.models


def known_points(
    space: Space, template: Template, scored: Sequence[Trial]
) -> tuple[tuple[tuple[float, ...], Fitness], ...]:
    """The points of the search space that are scored already, with their fitness: candidates, and some references."""
    candidates = [(trial.vector, trial.fitness) for trial in scored if trial.vector is not None]
    found = [(vector, fitness) for vector, fitness in candidates if fitness is not None]
    points = reference_points(space, template, scored)
    references = [(points[trial.number], trial.fitness) for trial in scored if trial.number in points]
    return (*found, *((vector, fitness) for vector, fitness in references if fitness is not None))


def reference_points(space: Space, template: Template, trials: Sequence[Trial]) -> dict[int, tuple[float, ...]]:
    """Number of a reference -> its point, of those that are points of the search space.

    Parents are where ranges reach what leaves one model as it is, see `parent_point`; the uniform merge where a weight
    gene for every model is all there is.

    Args:
        space: what is searched.
        template: the recipe with genes.
        trials: whose references are looked at.
    """
    if isinstance(space, LayerPathSpace):
        paths = {trial.number: space.point_of_recipe(trial.recipe) for trial in trials if trial.is_reference}
        return {number: point for number, point in paths.items() if point is not None}
    found = {
        trial.number: parent_point(space, template, trial.label)
        if trial.kind is Kind.PARENT
        else _uniform_point(space, template)
        for trial in trials
        if trial.is_reference
    }
    return {number: point for number, point in found.items() if point is not None}


def parent_point(space: Space, template: Template, model: str) -> tuple[float, ...] | None:
    """The point at which a model comes out as it is; None where there is none, or nobody knows it.

    That is a weight of 1 for it and of 0 for all others, and `WHOLE`; of 0 for all where it is the base; or the end of
    an interpolation.
    """
    methods = [METHODS[name] for name in template.methods if name in METHODS]
    if "models" not in template.document or not methods or len(methods) < len(template.methods):
        return None
    if any(method.code for method in methods):  # the user's own
        return None
    interpolates = all(method.interpolates for method in methods)
    if not interpolates and not all("weight" in method.by_name and method.name not in ROUNDED for method in methods):
        return None
    if model == space.base_model and not all(method.uses_task_vectors or method.interpolates for method in methods):
        return None

    def needed(name: str | None, of: object) -> float | None:
        """The value of a parameter; None: any will do."""
        if name == "weight":
            return float(of == model)
        if name == "t" and interpolates:
            return float(model != space.base_model)
        return WHOLE.get(name or "") if of in (model, None) and model != space.base_model else None

    given = {(setting.name, setting.model) for setting in template.settings}
    for parameter in (parameter for method in methods for parameter in method.parameters):
        value = needed(parameter.name, model)
        is_given = not given.isdisjoint({(parameter.name, model), (parameter.name, None)})
        if parameter.name != "weight" and not is_given and value is not None and value != parameter.default:
            return None
    for setting in template.settings:
        value, is_gene = needed(setting.name, setting.model), looks_like_gene(setting.value)
        is_shared = setting.name == "weight" and (setting.model is None or (is_gene and "name" in setting.value))
        if is_shared or (value is not None and not is_gene and setting.value != value):
            return None
    point = []
    for axis, unit in zip(space.coordinates, space.start(None), strict=True):
        value = needed(axis.parameter, axis.model)
        if axis.is_switch:
            point.append(axis.gene.unit(True))
        elif axis.parameter is None and axis.name != "merge_method":
            return None  # which models or layers there are
        elif value is None:
            point.append(unit)
        elif not isinstance(axis.gene, RangeGene) or axis.gene.value(axis.gene.unit(value)) != value:
            return None
        else:
            point.append(axis.gene.unit(value))
    return tuple(point)


def _uniform_point(space: Space, template: Template) -> tuple[float, ...] | None:
    if not weights_are_all(space, template):
        return None
    equal = 1 / len(fine_tunes(space))
    point = []
    for axis in space.coordinates:
        if not axis.is_switch and not (isinstance(axis.gene, RangeGene) and axis.gene.low <= equal <= axis.gene.high):
            return None
        point.append(axis.gene.unit(axis.is_switch or equal))
    return tuple(point)


def recipes_of_references(
    space: Space, template: Template, references: Sequence[Trial]
) -> dict[int, Mapping[str, Any]]:
    """Number of a reference -> the recipe of the space that makes the same model, of those that there is one for.

    The sum of a base and task vectors is rounded otherwise than the average of the models, and another model.
    """
    if {"tokenizer", "tokenizer_source", "chat_template"} & template.document.keys():  # a parent has its own of these
        return {}
    points = reference_points(space, template, references)
    averages = space.base_model is None and only_ratios_count(space)
    return {
        trial.number: space.decode(points[trial.number])
        for trial in references
        if trial.number in points and (averages or trial.kind is not Kind.UNIFORM)
    }


def weights_are_all(space: Space, template: Template) -> bool:
    """Whether a weight of every model, which a gene sets, is all that a recipe of the space can differ in.

    Then the uniform merge is equal weights, as far as the ranges reach these.
    """
    axes = [axis for axis in space.coordinates if not axis.is_switch]
    base, document = space.base_model, template.document
    expected = {model for model in space.models if model != base}
    method = METHODS.get(str(document.get("merge_method")))
    if method is None or not method.adds_all or method.uses_task_vectors != (base is not None):
        return False
    # Anything but the weights of whole models, or a weight that no gene sets, and the references are something else.
    if "models" not in document or any(setting.name != "weight" for setting in template.settings):
        return False
    if any(not looks_like_gene(setting.value) or "step" in setting.value for setting in template.settings):
        return False
    return all(axis.parameter == "weight" for axis in axes) and {axis.model for axis in axes} == expected


def only_ratios_count(space: Space) -> bool:
    """Whether all weights together can be scaled without another model coming of it, at the start of the space."""
    normalized = all(
        part.method.only_ratios or part.possible_settings("normalize") == (True,) for part in _parts_at_the_start(space)
    )
    by_genes = {axis.model for axis in space.coordinates if axis.parameter == "weight"}
    return normalized and by_genes >= {*fine_tunes(space)}


def tiny_weights_count(space: Space) -> bool:
    """Whether a weight of 0 and a tiny one make models that are far apart, at the start of the space."""
    return any(
        part.method.elects and True in part.possible_settings("normalize") for part in _parts_at_the_start(space)
    )


def _parts_at_the_start(space: Space) -> list[SliceContext]:
    recipe = documents_of(space.decode(space.start(None)))[-1]
    return [SliceContext(tower, part) for tower in towers(recipe) for part in output_slices(tower, layer_count=0)]


def weights_of(trial: Trial, space: Space) -> dict[str, float]:
    """A reference as weights of the models: 1 for a parent, 1/n each for the uniform merge."""
    if trial.kind is Kind.PARENT:
        return {trial.label: 1.0}
    merged = fine_tunes(space)
    return {model: 1 / len(merged) for model in merged}
