"""Output slices: ``models`` as one of them, and parts of one in which every tensor keeps its parameter values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from merge_core.methods import METHODS, Method, Parameter
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.parameters import convert, interpolate, layer_position
from merge_core.recipe.parts import ConditionalValue, OutputSlice, Parameters, Scalar, Setting, SliceSource
from merge_core.recipe.recipe import Recipe

SIGNIFICANT_DIGITS = 12
"""Of a gradient's value at a layer: 0.478, not 0.4780000000000001."""


def whole_models(recipe: Recipe) -> list[tuple[ModelReference, Parameters]]:
    """The entries of ``models``, and the base model, without parameters, when it is not among them."""
    entries = [(entry.model, entry.parameters) for entry in recipe.models or ()]
    base, method = recipe.base_model, METHODS[recipe.merge_method]
    if base is not None and base not in dict(entries) and method.adds_base(list(recipe.parameters)):
        entries.append((base, Parameters()))
    return entries


def output_slices(recipe: Recipe, layer_count: int) -> tuple[OutputSlice, ...]:
    """The recipe's slices; ``models`` is one slice of all layers, the base model added when it is not listed.

    Args:
        recipe: one without ``modules``, see `towers.towers`.
        layer_count: layers of the models of a recipe without slices.
    """
    if recipe.slices is not None:
        return recipe.slices
    sources = [SliceSource(model, (0, layer_count), own) for model, own in whole_models(recipe)]
    return (OutputSlice(tuple(sources)),)


def cut_points(
    part: OutputSlice, shared: Parameters, wanted: Collection[int], first: int, end: int, *, is_last: bool
) -> list[int]:
    """Where to cut layers of a slice so that `cut_slice` can keep every tensor's values.

    Args:
        part: the slice.
        shared: the recipe's parameters that go with it.
        wanted: layers of the slice that a part has to begin at.
        first, end: which of its layers are taken, from the one until before the other.
        is_last: whether they are the last of the recipe.

    Returns:
        Layers of the slice, rising from ``first`` to ``end``.
    """
    points = {first, end, *(layer for layer in wanted if first < layer < end)}
    levels = (shared, part.parameters, *(source.parameters for source in part.sources))
    if is_last and points != {0, part.layer_count} and any(map(gradients, levels)):
        # Norm and head read the last slice at t = 0 and would get its first layer's value. A slice of one layer is
        # read at t = 1, which leaves t = 0 to them.
        points.add(end - 1)
    return sorted(points)


def cut_slice(
    part: OutputSlice, shared: Parameters, low: int, high: int, *, method: Method, is_last: bool
) -> OutputSlice:
    """The layers ``low`` to ``high − 1`` of a slice as a slice, with every tensor's values as they were.

    Gradients run over the layers of a slice: they are written anew, those of ``shared`` become the slice's own.

    Args:
        part: the slice.
        shared: the recipe's parameters that move into the slice; they come after its own.
        low, high: neighbours among the `cut_points`.
        method: the recipe's.
        is_last: whether these layers are the last of the recipe.
    """
    count = part.layer_count
    part = dataclasses.replace(part, parameters=part.parameters.over(shared))
    if (low, high) == (0, count):
        return part
    positions = [layer_position(layer, count) for layer in range(low, high)]
    if is_last and high - low == 1:
        positions = [0.0, *positions]
    sources = [
        SliceSource(
            source.model,
            (source.layer_range[0] + low, source.layer_range[0] + high),
            _at_positions(source.parameters, positions, method),
        )
        for source in part.sources
    ]
    return dataclasses.replace(
        part, sources=tuple(sources), parameters=_at_positions(part.parameters, positions, method)
    )


def gradients(parameters: Parameters) -> tuple[str, ...]:
    """The names of the parameters that are a gradient for some tensors."""
    return tuple(
        name for name, setting in parameters.items if any(isinstance(entry.value, tuple) for entry in setting.entries)
    )


def _at_positions(parameters: Parameters, positions: Sequence[float], method: Method) -> Parameters:
    return Parameters(
        tuple(
            (
                name,
                Setting(
                    tuple(
                        ConditionalValue(_value_at(entry.value, positions, method.by_name.get(name)), entry.filter)
                        for entry in setting.entries
                    )
                ),
            )
            for name, setting in parameters.items
        )
    )


def _value_at(
    value: Scalar | tuple[Scalar, ...], positions: Sequence[float], parameter: Parameter | None
) -> Scalar | tuple[Scalar, ...]:
    """A gradient as it is at some positions: one knot for each, or a scalar where all are equal."""
    if not isinstance(value, tuple) or parameter is None:  # what the method does not have is not read
        return value
    gradient = [convert(knot, parameter.kind) for knot in value]
    knots = [_rounded(interpolate(gradient, position)) for position in positions]
    return knots[0] if all(knot == knots[0] for knot in knots) else tuple(knots)


def _rounded(value: Scalar) -> Scalar:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
