"""Genes: the ranges and choices that stand in a recipe where a number or a name would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import optuna
from pydantic import BaseModel, ConfigDict, Field, model_validator

from evolve import bounds
from evolve.problems import Place

SIGNIFICANT_DIGITS = 6  # of an emitted value; it is rounded before it is scored, so the recipe says what was scored


class Blocks(BaseModel):
    """A gene per group of consecutive layers, emitted as slices."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    blocks: int = Field(
        ge=1, le=bounds.GROUPS, description="Number of groups of consecutive layers, of nearly equal sizes."
    )


class Knots(BaseModel):
    """A gene per knot of a gradient over the layers, emitted as a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    knots: int = Field(
        ge=2, le=bounds.GROUPS, description="Number of knots; values between them are interpolated linearly."
    )


Layers = Blocks | Knots | Literal["each"]


class RangeGene(BaseModel):
    """A number to be found between `low` and `high`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(allow_inf_nan=False, ge=-bounds.GENE, le=bounds.GENE, description="Smallest value.")
    high: float = Field(allow_inf_nan=False, ge=-bounds.GENE, le=bounds.GENE, description="Largest value.")
    init: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Where the search starts; by default the best parent or uniform merge.",
    )
    log: bool = Field(default=False, description="Search on a logarithmic scale (low must be above 0).")
    step: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Only the values low, low + step, low + 2*step, ..."
    )
    sigma: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Initial step size in the gene's own unit, for optimizers that use `optimizer.sigma`.",
    )
    layers: Layers | None = Field(
        default=None,
        description="`{blocks: N}`, `{knots: N}` or `each`: one gene per group of layers instead of one for all.",
    )
    filters: tuple[str, ...] | Literal["each_tensor"] = Field(
        default=(),
        description="Substrings of tensor names: one gene for each, and one for the rest. `each_tensor`: one gene for "
        "each kind of tensor in the models, such as `self_attn.q_proj`.",
    )
    name: str | None = Field(default=None, description="Genes with the same name share their value.")

    @model_validator(mode="after")
    def _consistent(self) -> RangeGene:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got low {self.low:g} and high {self.high:g}")
        if self.init is not None and not self.low <= self.init <= self.high:
            raise ValueError(f"init must lie in [{self.low:g}, {self.high:g}], got {self.init:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: remove one")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step {self.step:g} is larger than high - low = {self.high - self.low:g}")
        if self.step is not None and (self.high - self.low) / bounds.STEPS > self.step:
            raise ValueError(
                f"step {self.step:g} makes more than {bounds.STEPS} values of {self.low:g} to {self.high:g}. Make it "
                "larger, or remove it"
            )
        return self

    @property
    def is_integer(self) -> bool:
        """True when every value that the gene can take is a whole number."""
        return self.step is not None and float(self.step).is_integer() and float(self.low).is_integer()

    def value(self, unit: float) -> float | int:
        """The gene's value at `unit` in [0, 1], rounded as it will be written."""
        unit = min(max(unit, 0.0), 1.0)
        if self.log:
            raw = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        elif self.step is not None:
            # Every step owns an equal share of the unit interval.
            raw = self.low + min(math.floor(unit * self.step_count), self.step_count - 1) * self.step
        else:
            raw = self.low + unit * (self.high - self.low)
        if self.is_integer:
            return round(raw)
        return min(max(float(f"{raw:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high)

    def slope(self, unit: float) -> float:
        """The derivative of `value` by the unit, where it has one."""
        return self.value(unit) * math.log(self.high / self.low) if self.log else self.high - self.low

    def unit(self, value: float) -> float:
        """The inverse of `value`, clipped to [0, 1]."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        if self.step is not None:
            return (min(round((value - self.low) / self.step), self.step_count - 1) + 0.5) / self.step_count
        return (value - self.low) / (self.high - self.low)

    @property
    def step_count(self) -> int:
        """How many values the gene can take; 0 without a step."""
        return 0 if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """How Optuna's storage describes the gene."""
        if self.is_integer and self.step is not None:
            high = int(self.low + (self.step_count - 1) * self.step)
            return optuna.distributions.IntDistribution(int(self.low), high, step=int(self.step))
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)


class ChoiceGene(BaseModel):
    """One of several values: names of methods or models, numbers, booleans."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: tuple[str | bool | int | float, ...] = Field(
        min_length=2, max_length=bounds.CHOICES, description="The values to choose from."
    )
    init: str | bool | int | float | None = Field(default=None, description="The choice the search starts at.")
    layers: Blocks | Literal["each"] | None = Field(
        default=None,
        description="For a merge parameter or `merge_method`: `{blocks: N}` or `each`, one choice per group of layers "
        "instead of one for all. If methods differ, the recipe has one document per method and a last one that stacks "
        "their layers.",
    )
    name: str | None = Field(default=None, description="Genes with the same name share their value.")

    @model_validator(mode="after")
    def _consistent(self) -> ChoiceGene:
        if self.init is not None and self.init not in self.choices:
            raise ValueError(f"init must be one of the choices {list(self.choices)}, got {self.init!r}")
        if len(set(self.choices)) != len(self.choices):  # 1, 1.0 and true are one, and found by the first of them
            raise ValueError("the choices must differ from each other")
        return self

    def value(self, unit: float) -> str | bool | int | float:
        """The choice that owns `unit`: every choice owns an equal share of [0, 1]."""
        count = len(self.choices)
        return self.choices[min(int(min(max(unit, 0.0), 1.0) * count), count - 1)]

    def unit(self, value: Any) -> float:
        """The middle of the share of `value`."""
        return (self.choices.index(value) + 0.5) / len(self.choices)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """How Optuna's storage describes the gene."""
        return optuna.distributions.CategoricalDistribution(self.choices)


Gene = RangeGene | ChoiceGene
"""What a person writes where a value would stand."""


def looks_like_gene(node: Any) -> bool:
    """True for a mapping that can only be meant as a gene."""
    return isinstance(node, Mapping) and bool({"low", "high", "choices"} & node.keys())


def find_genes(node: Any, place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every gene in a recipe template, in the order of the file, with its place."""
    if looks_like_gene(node):
        yield place, node
    elif isinstance(node, Mapping):
        for key, child in node.items():
            yield from find_genes(child, (*place, key))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, child in enumerate(node):
            yield from find_genes(child, (*place, index))


def unshared_copy(node: Any) -> Any:
    """A copy in which no two places are the same object: YAML anchors make them so, and genes differ by place."""
    if isinstance(node, Mapping):
        return {key: unshared_copy(child) for key, child in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [unshared_copy(child) for child in node]
    return node


def put(node: Any, place: Place, value: Any) -> None:
    """Replace what stands at a place."""
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value


def remove(node: Any, place: Place) -> None:
    """Take away what stands at a place, and the mapping around it where nothing else is in it."""
    outer = node
    for part in place[:-1]:
        outer = outer[part]
    del outer[place[-1]]
    if not outer and len(place) > 1:
        remove(node, place[:-1])


def parse_gene(node: Mapping[str, Any], place: Place = ()) -> Gene:
    """Read one gene. In a layer range, which is counted in layers, its step is 1 unless it says otherwise.

    Raises:
        pydantic.ValidationError: an unknown key, a missing bound, or bounds that contradict each other.
    """
    if "choices" in node:
        return ChoiceGene.model_validate(dict(node))
    default = {"step": 1} if "layer_range" in place else {}
    return RangeGene.model_validate({**default, **node})
