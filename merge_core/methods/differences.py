"""Derivatives of a merge where no formula gives them: by what it becomes a little farther on.

A density decides which entries stay, weights decide which sign wins, and entry by entry both change in jumps. A formula
that holds what was decided does not see these, and there are so many of them that they are most of what a number does.
The difference of two merges has them all, for any method: ``∂L/∂p ≈ ⟨∂L/∂W, W(p + h) − W(p)⟩ / h``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from torch import Tensor

from merge_core.kernels.summation import stable_dot
from merge_core.methods.method import Method, MethodInputs, Parameter, ParameterSlot, SearchRange

STEP = 0.02
"""As a share of the range that a search has by default (of 1 without one); of the number itself where that is
logarithmic. Upwards, so that at a weight of 0 it tells what adding the model does; downwards at the upper end."""


def slopes_by_difference(
    method: Method, inputs: MethodInputs, gradient: Tensor, slots: Collection[ParameterSlot]
) -> dict[ParameterSlot, float]:
    """The derivatives of a number L by parameters.

    Random draws are those of the inputs' keys in all merges.

    Args:
        method: that merges.
        inputs: where.
        gradient: ``G = ∂L/∂W``, of the result's shape.
        slots: of numbers.

    Returns:
        Slot → derivative; 0 of a number that cannot move.

    Raises:
        NotFiniteError: a merge has NaN or infinity.
    """
    moved = {slot: value for slot in slots if (value := _moved(method, inputs, slot)) is not None}
    found = dict.fromkeys(slots, 0.0)
    if moved:
        changes = (method.differences or partial(_by_merges, method))(inputs, gradient, moved)
        found |= {slot: changes[slot] / (value - _value(inputs, slot)) for slot, value in moved.items()}
    return found


def _by_merges(
    method: Method, inputs: MethodInputs, gradient: Tensor, moved: Mapping[ParameterSlot, float]
) -> dict[ParameterSlot, float]:
    """`Method.differences` by a merge for each and one for all."""

    def along_gradient(there: MethodInputs) -> float:
        # One result is held at a time. Products are exact and summed in float64, so that their differences are, too.
        return stable_dot(gradient, method.run(there))

    here = along_gradient(inputs)
    return {slot: along_gradient(inputs.with_value(slot, value)) - here for slot, value in moved.items()}


def _moved(method: Method, inputs: MethodInputs, slot: ParameterSlot) -> float | None:
    """A value beside the slot's that has a meaning; None where there is none."""
    value = _value(inputs, slot)
    step = _step(method.by_name[slot.name], value)
    return next((there for there in (value + step, value - step) if _is_sound(method, inputs, slot, there)), None)


def _step(parameter: Parameter, value: float) -> float:
    search = parameter.search or SearchRange(0.0, 1.0)
    return STEP * (value if search.log else search.high - search.low)


def _value(inputs: MethodInputs, slot: ParameterSlot) -> float:
    if slot.position is None:
        return inputs.number(slot.name)
    return float(inputs.model_values[slot.name][slot.position] or 0.0)


def _is_sound(method: Method, inputs: MethodInputs, slot: ParameterSlot, value: float) -> bool:
    """Whether the number has a meaning there, beside the other parameters of the slot's model."""
    parameter = method.by_name[slot.name]
    if not parameter.least <= value <= parameter.most:
        return False
    if method.fault is None or slot.position is None:
        return True
    own = {name: values[slot.position] for name, values in inputs.model_values.items()}
    return method.fault({**own, slot.name: value}) is None
