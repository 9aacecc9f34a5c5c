"""From what stands under `layers` of a recipe to the space of its paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from evolve.problems import ConfigError, Problem
from evolve.space.layer_genes import PathGenes, RepeatGenes
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.path_space import PathSpace
from evolve.space.repeat_space import RepeatSpace
from evolve.space.template import Template


def span_layers(
    template: Template, depths: Mapping[str, int], genes: RepeatGenes | PathGenes, tensors: Collection[str]
) -> LayerPathSpace:
    """The space of a recipe with `layers`.

    Args:
        template: the recipe.
        depths: model → number of its layers.
        genes: what stands under `layers`.
        tensors: names of those that the models have.

    Raises:
        ConfigError: filters of no tensor, lengths that no path of these models has, or models that no choice is of.
    """
    problems = _misfits(depths, genes)
    if genes.scale is not None:
        for index, name in enumerate(genes.scale.filters):
            if not any(name in tensor for tensor in tensors):
                message = f"{name!r} is in no tensor's name. Name what a layer's output goes through, such as c_proj"
                problems.append(Problem(("layers", "scale", "filters", index), message))
    if problems:
        raise ConfigError(*problems)
    if isinstance(genes, RepeatGenes):
        return RepeatSpace(template, depths, genes)
    return PathSpace(template, depths, genes)


def _misfits(depths: Mapping[str, int], genes: RepeatGenes | PathGenes) -> list[Problem]:
    found = []
    deepest = max(depths.values())
    if isinstance(genes, RepeatGenes):
        if len(depths) > 1:
            message = f"repeats blocks of one model, got {len(depths)}. Name one, or use path: any"
            found.append(Problem(("layers", "repeat"), message))
        if deepest == 1:
            message = (
                "the model has one layer, so there are no blocks to choose from. Write its slices, or take path: any"
            )
            found.append(Problem(("layers", "repeat"), message))
        if genes.longest is not None and genes.longest <= deepest:
            message = f"the model has {deepest} layers, so a longest of {genes.longest} repeats none. Use more"
            found.append(Problem(("layers", "longest"), message))
    elif genes.path == "same_depth":
        if len(set(depths.values())) > 1:
            counts = ", ".join(f"{model} {count}" for model, count in depths.items())
            message = f"same_depth needs models with as many layers as each other, got {counts}. Use path: any"
            found.append(Problem(("layers", "path"), message))
        if len(depths) == 1 and (genes.shortest or deepest) >= deepest:
            message = "there is nothing to choose: give a shortest below the layers, or another model to take them from"
            found.append(Problem(("layers", "path"), message))
        if genes.shortest is not None and genes.shortest > deepest:
            found.append(Problem(("layers", "shortest"), f"the models have {deepest} layers, got {genes.shortest}"))
        if (genes.longest or deepest) < deepest or genes.scale is not None:
            message = "same_depth passes no layer twice: remove scale, and longest below the models' depth"
            found.append(Problem(("layers",), message))
    return found
