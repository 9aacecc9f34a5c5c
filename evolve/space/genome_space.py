"""The `genome:` format of mergekit-evolve, as a search space that emits the same recipes.

The axes are those of its genotype, a tensor of shape (layer groups, models, filters + 1, parameters), flattened in
that order. Its search is unbounded; ours has a box, wide enough that the first generations stay well inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evolve.problems import ConfigError, Problem
from evolve.space.genes import RangeGene
from evolve.space.space import Coordinate, RecipeMapping, Vector, values_at
from merge_core import METHODS

GENOME_METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
NORMALIZED = ("linear", "ties", "dare_ties")  # what mergekit-evolve writes, whatever the method's own default is
FIRST_SIGMA = 1 / 6  # mergekit-evolve's --sigma0, in the genes' own units
WEIGHT_LIMIT = 2.0


def searched_parameters(merge_method: str) -> tuple[str, ...]:
    """What a genotype sets for every model: its own parameters, or those it cannot do without."""
    method = METHODS[merge_method]
    return method.names("model") or method.required


class GenomeDefinition(BaseModel):
    """The keys of `genome:`, with mergekit-evolve's meaning and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = Field(min_length=1, description="The models to merge.")
    merge_method: str = Field(description=f"One of {', '.join(GENOME_METHODS)}.")
    base_model: str | None = Field(default=None, description="The base of the task vectors.")
    tokenizer_source: str | None = Field(default=None, description="union, base or a model.")
    layer_granularity: int = Field(default=0, description="Layers per group; below 1: one group of all layers.")
    normalize: bool | None = Field(default=None, description="Divide by the sum of weights.")
    allow_negative_weights: bool = Field(default=False, description="Weights may be negative.")
    smooth: bool = Field(default=False, description="Interpolate between the groups.")
    filters: tuple[str, ...] | None = Field(default=None, description="Substrings of tensor names: one gene for each.")

    @model_validator(mode="after")
    def _consistent(self) -> GenomeDefinition:
        problems = list(self._contradictions())
        if problems:
            raise ConfigError(*problems)
        return self

    def _contradictions(self) -> Iterator[Problem]:
        if self.merge_method not in GENOME_METHODS:
            found = f"genome knows {', '.join(GENOME_METHODS)}, got {self.merge_method!r}"
            yield Problem(("merge_method",), f"{found}. For the other methods write a recipe with genes")
            return
        method = METHODS[self.merge_method]
        if method.uses_task_vectors and self.base_model is None:
            yield Problem(("base_model",), f"is required for {self.merge_method}")
        if method.interpolates:  # between two of the models, one of which is the base of its slice
            if self.smooth:
                yield Problem(("smooth",), f"is not supported for {self.merge_method}")
            if self.filters:
                yield Problem(("filters",), f"are not supported for {self.merge_method}")
            if len(self.models) < 2:
                yield Problem(("models",), f"{self.merge_method} needs at least two")

    def template(self) -> dict[str, Any]:
        """As much of a recipe as names the models and the method."""
        template: dict[str, Any] = {
            "merge_method": self.merge_method,
            "models": [{"model": model} for model in self.models],
            "dtype": "bfloat16",
        }
        if self.base_model is not None:
            template["base_model"] = self.base_model
        if self.tokenizer_source is not None:
            template["tokenizer_source"] = self.tokenizer_source
        return template


@dataclass(frozen=True)
class GenomeSpace:
    """Decodes mergekit-evolve's genotype. `random_start` is its `random_init: true`, from a seed of ours."""

    definition: GenomeDefinition
    layer_count: int
    random_start: Sequence[float] | None = None

    def __post_init__(self) -> None:
        granularity = self.definition.layer_granularity
        if granularity > 0 and self.layer_count % granularity:
            message = f"the models have {self.layer_count} layers, not a multiple of {granularity}"
            raise ConfigError(Problem(("layer_granularity",), message))

    @property
    def models(self) -> tuple[str, ...]:
        """Every model, the base last when it is not among them."""
        base = self.definition.base_model
        extra = () if base is None or base in self.definition.models else (base,)
        return (*self.definition.models, *extra)

    @property
    def base_model(self) -> str | None:
        """The definition's base model."""
        return self.definition.base_model

    @property
    def _granularity(self) -> int:
        return self.definition.layer_granularity if self.definition.layer_granularity > 0 else self.layer_count

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """(layer groups, models, filters + 1, parameters), flattened."""
        definition = self.definition
        weight = RangeGene(
            low=-WEIGHT_LIMIT if definition.allow_negative_weights else 0.0,
            high=WEIGHT_LIMIT,
            sigma=FIRST_SIGMA,
        )
        ranges = {
            "weight": weight,
            "density": RangeGene(low=0.0, high=1.0, sigma=FIRST_SIGMA),
            # slerp reads its genes as logits that pick two models and the place between them.
            "t": RangeGene(low=-WEIGHT_LIMIT, high=WEIGHT_LIMIT, sigma=FIRST_SIGMA),
        }
        sets = [f".{name}" for name in definition.filters or ()] + ([".rest"] if definition.filters else [""])
        axes = []
        for group in range(self.layer_count // self._granularity):
            low = group * self._granularity
            for index, model in enumerate(definition.models):
                label = f"{index}:{model.rsplit('/', 1)[-1]}"
                for suffix in sets:
                    for parameter in searched_parameters(definition.merge_method):
                        layers = f"layers{low}-{low + self._granularity - 1}"
                        name = f"{parameter}[{label}]{suffix}.{layers}"
                        axes.append(Coordinate(name, ranges[parameter], parameter, model, layers))
        return tuple(axes)

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """Weights 1/n and density 1, as mergekit-evolve starts, whatever the references score."""
        if self.random_start is not None:
            native = list(self.random_start)
        else:
            share = 1 / len(self.definition.models)
            native = [1.0 if axis.parameter == "density" else share for axis in self.coordinates]
        return [axis.gene.unit(value) for axis, value in zip(self.coordinates, native, strict=True)]

    def decode(self, vector: Vector) -> RecipeMapping:
        """The recipe that mergekit-evolve writes for this genotype."""
        return self.recipe_of(values_at(self.coordinates, vector))

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The recipe that mergekit-evolve writes for these genes."""
        definition = self.definition
        parameters = searched_parameters(definition.merge_method)
        sets = len(definition.filters or ()) + 1
        per_group = len(definition.models) * sets * len(parameters)
        groups = [list(values[start : start + per_group]) for start in range(0, len(values), per_group)]
        normalize = definition.merge_method in NORMALIZED if definition.normalize is None else definition.normalize
        recipe: RecipeMapping = {"merge_method": definition.merge_method}
        if definition.base_model is not None:
            recipe["base_model"] = definition.base_model
        if definition.merge_method == "slerp":
            recipe["slices"] = [self._slerp_slice(index, group) for index, group in enumerate(groups)]
        elif definition.smooth:
            recipe["models"] = [
                {"model": model, "parameters": self._settings(groups, index)}
                for index, model in enumerate(definition.models)
            ]
        else:
            recipe["slices"] = [
                {
                    "sources": [
                        {
                            "model": model,
                            "layer_range": self._layer_range(number),
                            "parameters": self._settings([group], index),
                        }
                        for index, model in enumerate(definition.models)
                    ]
                }
                for number, group in enumerate(groups)
            ]
        self._append_base(recipe)
        recipe["parameters"] = {"normalize": normalize, "int8_mask": True}
        recipe["dtype"] = "bfloat16"
        if definition.tokenizer_source is not None:
            recipe["tokenizer_source"] = definition.tokenizer_source
        return recipe

    @property
    def ranges(self) -> RecipeMapping | None:
        """A recipe with ranges that has each parameter of a model in one place; None where genes choose models."""
        if self.definition.merge_method == "slerp":
            return None
        one_group = {"layer_granularity": 0, "smooth": True, "filters": None}
        whole = replace(self, definition=self.definition.model_copy(update=one_group))
        genes = [axis.gene for axis in whole.coordinates]
        return whole.recipe_of([{"low": gene.low, "high": gene.high} for gene in genes if isinstance(gene, RangeGene)])

    def _layer_range(self, group: int) -> list[int]:
        return [group * self._granularity, (group + 1) * self._granularity]

    def _append_base(self, recipe: RecipeMapping) -> None:
        """The base takes part in every slice, without parameters, where it is not one of the models."""
        base = self.definition.base_model
        if base is None or base in self.definition.models or self.definition.merge_method == "slerp":
            return
        if "models" in recipe:
            recipe["models"].append({"model": base})
        for number, output_slice in enumerate(recipe.get("slices", ())):
            output_slice["sources"].append({"model": base, "layer_range": self._layer_range(number)})

    def _settings(self, groups: Sequence[Sequence[float]], model_index: int) -> dict[str, Any]:
        """The parameters of one model: a number for one group, a gradient for several, filtered if asked."""
        parameters = searched_parameters(self.definition.merge_method)
        filters = self.definition.filters or ()
        settings: dict[str, Any] = {}
        for offset, parameter in enumerate(parameters):
            entries = []
            for set_index in range(len(filters) + 1):
                position = (model_index * (len(filters) + 1) + set_index) * len(parameters) + offset
                knots = [group[position] for group in groups]
                value = knots[0] if len(knots) == 1 else knots
                entries.append(
                    {"filter": filters[set_index], "value": value} if set_index < len(filters) else {"value": value}
                )
            settings[parameter] = entries if filters else entries[0]["value"]
        return settings

    def _slerp_slice(self, number: int, logits: Sequence[float]) -> dict[str, Any]:
        """The two models with the highest logits; t is the second's share of their softmax."""
        order = sorted(range(len(logits)), key=lambda index: -logits[index])[:2]
        first, second = (self.definition.models[index] for index in order)
        t = 1 / (1 + math.exp(logits[order[0]] - logits[order[1]]))
        sources = [{"model": model, "layer_range": self._layer_range(number)} for model in (first, second)]
        return {"sources": sources, "base_model": first, "parameters": {"t": float(f"{t:.6g}")}}
