"""What a row of the method table is: the function, its parameters, how many models, the source paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from torch import Tensor

from merge_core.kernels.order_statistics import TaskVectorStatistics
from merge_core.kernels.output import FLOAT32, Output

Value = float | bool | int
"""A resolved parameter value."""


class InvalidParametersError(ValueError):
    """Parameter values that a method cannot work with; the message says which, and the fix."""


class Required:
    """Marks a parameter that a recipe must give."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


@dataclass(frozen=True, slots=True)
class SearchRange:
    """Where a search looks for good values of a number, when it is not told."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        name: as in a recipe.
        kind: what its value is.
        scope: ``model``: one value per model (of the models other than the base, when the method has a base);
            ``global``: one value per output tensor.
        default: the value when the recipe has none; ``None`` means "not applied".
        search: the sensible range for a search; None for what is not searched by default.
        description: one line, for help texts.
        least, most: the values that have a meaning.
    """

    name: str
    kind: Literal["number", "integer", "flag"]
    scope: Literal["model", "global"]
    default: Value | Required | None
    search: SearchRange | None
    description: str
    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class MethodInputs:
    """What a method works on: tensors of one shape on one device, and resolved parameters.

    Attributes:
        tensors: one per model, in the order of the recipe, the base included; in float32, and for methods that
            are `elementwise` in the dtype they are stored in.
        base: position of the base in ``tensors``, or None.
        model_values: parameter name → one value per tensor (None for the base where it takes none).
        settings: parameter name → value.
        key: ``key(i)`` is the key of tensor ``i``'s random numbers, see `random_numbers.draws`.
        statistics: ``statistics(i)`` is what is known of tensor ``i``'s task vector.
        output: what becomes of the result of methods that are `elementwise`.
    """

    tensors: Sequence[Tensor]
    base: int | None
    model_values: Mapping[str, Sequence[Value | None]]
    settings: Mapping[str, Value | None]
    key: Callable[[int], int]
    statistics: Callable[[int], TaskVectorStatistics] = lambda position: TaskVectorStatistics()
    output: Output = FLOAT32

    @property
    def base_tensor(self) -> Tensor:
        """The base model's tensor; a plan gives every method that requires a base one."""
        if self.base is None:
            raise ValueError("this method needs a base tensor")
        return self.tensors[self.base]

    @property
    def others(self) -> list[Tensor]:
        """The tensors that are not the base's."""
        return [tensor for index, tensor in enumerate(self.tensors) if index != self.base]

    def of_models(self, name: str) -> list[float]:
        """A parameter's value for every tensor."""
        return [_number(value, name) for value in self.model_values[name]]

    def with_value(self, slot: ParameterSlot, value: float) -> MethodInputs:
        """These, but for one number."""
        if slot.position is None:
            return replace(self, settings={**self.settings, slot.name: value})
        values = list(self.model_values[slot.name])
        values[slot.position] = value
        return replace(self, model_values={**self.model_values, slot.name: values})

    def of_others(self, name: str) -> list[float]:
        """A parameter's value for every tensor that is not the base's."""
        values = self.model_values[name]
        return [_number(value, name) for index, value in enumerate(values) if index != self.base]

    @property
    def other_positions(self) -> list[int]:
        """The positions of the tensors that are not the base's."""
        return [index for index in range(len(self.tensors)) if index != self.base]

    def flag(self, name: str) -> bool:
        """A global parameter that is true or false."""
        return bool(self.settings[name])

    def number(self, name: str) -> float:
        """A global parameter that is a number."""
        return _number(self.settings[name], name)


def _number(value: Value | None, name: str) -> float:
    if value is None:
        raise ValueError(f"parameter {name} has no value")
    return float(value)


class ParameterSlot(NamedTuple):
    """A place that holds a parameter's value for one tensor.

    Attributes:
        name: of the parameter.
        position: of the model among the tensor's inputs whose own it is; None where one value holds for all.
    """

    name: str
    position: int | None = None

    def __str__(self) -> str:
        return self.name if self.position is None else f"{self.name} of input {self.position}"


@dataclass(frozen=True, slots=True)
class Derivative:
    """How a method's result depends on some of its numbers.

    Attributes:
        parameters: names of these numbers.
        run: given the inputs of a merge and G = ∂L/∂W, the gradient of any number L by the merged tensor (of its
            shape, on the inputs' device), the derivative of L by every slot of these parameters: ⟨G, ∂W/∂p⟩. Of
            other numbers the derivative is found by differences, see `differences`.
    """

    parameters: tuple[str, ...]
    run: Callable[[MethodInputs, Tensor], Mapping[ParameterSlot, float]]


Differences = Callable[[MethodInputs, Tensor, Mapping[ParameterSlot, float]], Mapping[ParameterSlot, float]]
"""See `Method`."""


@dataclass(frozen=True, slots=True)
class Method:
    """One merge method.

    Attributes:
        name: as in a recipe's ``merge_method``.
        title: as on a model card.
        run: the pure function.
        parameters: what it takes.
        base: whether it uses a base model.
        minimum_models, maximum_models: how many models it takes, the base not counted.
        source: where the method comes from.
        randomised: whether it draws random numbers.
        elementwise: whether it reads tensors as they are stored and rounds the result itself, see `kernels`.
        adds_all: whether every entry of every input whose weight is not 0 is in the result, so that one that is not
            finite shows there; of other methods the inputs are looked at.
        elects: whether signs are elected, entry by entry. With ``normalize`` the weights that won there divide an
            entry then, so that a weight of 0 and a tiny one are far apart.
        only_ratios: whether all weights together can be scaled without another result, whatever the settings.
        interpolates: whether its ``t`` leads from the base model (0) to the other one (1).
        fault: says what is wrong with one model's parameters together, or None where nothing is.
        code: of a user's own method a hash of the text that it is made of, else empty.
        on_host: whether it decides by functions, as exponentials, whose last bit is another on another device; it is
            computed by the CPU then, wherever the tensors are.
        derivative: of the result, by those of its parameters that a formula is known for.
        differences: given the inputs of a merge, G as there, and other values of some slots: by how much ⟨G, W⟩ is
            larger where one of these slots alone has its other value. None: it takes a merge for each.
    """

    name: str
    title: str
    run: Callable[[MethodInputs], Tensor]
    parameters: tuple[Parameter, ...]
    base: Literal["required", "optional", "unused"]
    source: str
    minimum_models: int = 1
    maximum_models: int | None = None
    randomised: bool = False
    elementwise: bool = False
    adds_all: bool = False
    elects: bool = False
    only_ratios: bool = False
    interpolates: bool = False
    fault: Callable[[Mapping[str, Value | None]], str | None] | None = None
    code: str = ""
    on_host: bool = False
    derivative: Derivative | None = None
    differences: Differences | None = None
    by_name: Mapping[str, Parameter] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {parameter.name: parameter for parameter in self.parameters})

    @property
    def uses_task_vectors(self) -> bool:
        """Whether it moves the base model by what the others differ from it, so that without them the base is left."""
        return self.base == "required" and not self.interpolates

    @property
    def takes_base_alone(self) -> bool:
        """Whether the base model by itself can be merged, into itself: people fold an adapter in so."""
        return self.uses_task_vectors and self.minimum_models == 1 and self.maximum_models is None

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Names of the parameters that the gradient of a loss can be followed in: by a formula, or by differences."""
        numbers = (parameter for parameter in self.parameters if parameter.kind == "number")
        # The user's own functions do not say where their numbers lie.
        by_difference = (parameter.name for parameter in numbers if parameter.search or self.code)
        return tuple(dict.fromkeys((*self.by_formula, *by_difference)))

    @property
    def by_formula(self) -> tuple[str, ...]:
        """Names of those of them that `derivative` is for."""
        return () if self.derivative is None else self.derivative.parameters

    @property
    def link(self) -> str:
        """Its title in Markdown, linked to its source."""
        return f"[{self.title}]({self.source})" if self.source else f"`{self.title}`"

    def names(self, scope: Literal["model", "global"]) -> tuple[str, ...]:
        """The parameters that are each model's own (`model`), or one value for all (`global`)."""
        return tuple(parameter.name for parameter in self.parameters if parameter.scope == scope)

    @property
    def required(self) -> tuple[str, ...]:
        """The parameters that a recipe has to give."""
        return tuple(parameter.name for parameter in self.parameters if isinstance(parameter.default, Required))

    def adds_base(self, shared: Collection[str]) -> bool:
        """Whether a base model that ``models`` leaves out is merged with them.

        It has no parameters of its own then. Methods that treat it as any other model (`linear`, `karcher`) take it
        if the recipe's shared parameters give it what they require; `passthrough` has room for one model.

        Args:
            shared: names of the recipe's parameters that are no model's own.
        """
        if self.base != "unused":
            return True
        return self.maximum_models is None and all(name in shared for name in self.required)
