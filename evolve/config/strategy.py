"""The sections of search.yml on how it is searched, from `items` and `start` to `budget` and `validation`."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from evolve import bounds
from evolve.config.section import Section
from evolve.optimizers import OPTIMIZERS, Optimizer, find_optimizer
from evolve.optimizers.registry import check_options
from evolve.trials.costs import Cost


class ItemsConfig(Section):
    """Which items of each task are used."""

    search: int | None = Field(
        default=None, ge=1, description="Items per task that candidates are scored on; by default up to 100."
    )
    held_out: int | None = Field(
        default=None,
        ge=0,
        description="Items per task kept for the finalists; by default up to 200 of the rest.",
    )
    order: Literal["random", "first"] = Field(
        default="random", description="A seeded sample, or the first items of the task's data."
    )


def optimizer_of(name: str, info: ValidationInfo) -> type[Optimizer]:
    """One that is registered, or the user's own; the context of a validation says where that is looked for."""
    return find_optimizer(name, *([info.context] if info.context is not None else []))


def _optimizer_names() -> list[JsonValue]:
    """For editors: the names that are registered, and that there are others."""
    names: list[JsonValue] = [{"const": name, "description": found.description} for name, found in OPTIMIZERS.items()]
    return [*names, {"pattern": ":", "description": "module:Class of your own"}]


class OptimizerConfig(Section):
    """Who proposes candidates."""

    name: str = Field(
        default="auto",
        description="One of those below, or `module:Class` of your own, beside this file (see extending.md). "
        "`optimizer: cma` is short for `optimizer: {name: cma}`.",
        json_schema_extra=lambda schema: schema.update(anyOf=_optimizer_names()),
    )
    population_size: int | None = Field(
        default=None,
        ge=2,
        le=bounds.POPULATION,
        description="Candidates per batch; by default the optimizer's own number.",
    )
    sigma: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Spread of the first candidates around the start, as a share of every gene's range.",
    )
    mode: Literal["generations", "steady_state"] = Field(
        default="generations",
        description="generations: a batch is scored before the next is proposed, so that workers wait for its last "
        "candidate, and nothing depends on how many there are. steady_state: a free worker is given the next candidate "
        "at once; what is found depends on `workers.count`, not on which candidate is done first.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The optimizer's own, see below.")

    @field_validator("name")
    @classmethod
    def _found(cls, value: str, info: ValidationInfo) -> str:
        return optimizer_of(value, info).name

    @field_validator("options")
    @classmethod
    def _of_the_optimizer(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in info.data:
            check_options(optimizer_of(info.data["name"], info), value)
        return value


Resolution = Literal["auto", "gene", "layer", "model"]


class StartConfig(Section):
    """Where the search begins. A bare name, `start: gradient`, is its method."""

    method: Literal["auto", "gradient", "references", "random"] = Field(
        default="auto",
        description="gradient: follows the gradient of the probability of right answers in the genes that are weights, "
        "and begins at the best point of the way. references: at the best parent or uniform merge. random: anywhere. "
        "auto: gradient where backend, method and tasks allow it, and says so; else references.",
    )
    steps: int = Field(
        default=96,
        ge=1,
        le=bounds.GRADIENT_STEPS,
        description="gradient: steps at most; fewer when more is not worth it.",
    )
    items: int = Field(
        default=2,
        ge=1,
        description="gradient: items per task in the first steps; twice, four and eight times as many later, when "
        "steps are small and what they must tell is finer.",
    )
    rate: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="gradient: how far the first step moves a weight, in the weight's own unit; later ones less, and "
        "a third of it, from the start again, where steps led to nothing better.",
    )
    exponent: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="gradient: q of the loss -(p^q - 1)/q of the probability p of a right answer. 0 is the "
        "log-likelihood, which items that no model can answer dominate; 1 the probability itself, which they do not "
        "touch.",
    )
    targets: Literal["auto", "gold", "parents"] = Field(
        default="auto",
        description="gradient: what is right. gold: the answers that the task has. parents: what parents wrote and was "
        "scored right. auto: both, and gold only where parents' right answers are like it.",
    )


DEFAULT_PLATEAU = 30


class BudgetConfig(Section):
    """When to stop: whichever comes first."""

    evaluations: int | None = Field(default=None, ge=1, description="Candidates to score, exactly.")
    items: int | None = Field(
        default=None,
        ge=1,
        description="Item evaluations of the search, the unit of what a search costs: one item scored is one, in a "
        "step of the gradient three.",
    )
    minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wall time of the search, over all its runs."
    )
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="Stop once a candidate's objective reaches this."
    )
    plateau: int | None = Field(
        default=None,
        ge=1,
        description=f"Stop after this many candidates without a new best; {DEFAULT_PLATEAU} when no bound is given. "
        "With `optimizer: auto` and a gradient that followed every gene fewer: as many as take the items that it took.",
    )

    @property
    def is_bounded(self) -> bool:
        """Whether anything is given."""
        return any(
            bound is not None for bound in (self.evaluations, self.items, self.minutes, self.target, self.plateau)
        )

    @property
    def plateau_limit(self) -> int | None:
        """Candidates without a new best after which more is not worth it; None when only other bounds hold."""
        return self.plateau if self.is_bounded else DEFAULT_PLATEAU

    def bound(self, name: str) -> float | None:
        """One of them by its name; None for anything else, or where there is no such bound."""
        found: float | None = self.plateau_limit if name == "plateau" else getattr(self, name, None)
        return found


class RacingConfig(Section):
    """Candidates stop as soon as it is settled whether they are among the best half of their batch."""

    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="That a candidate which belongs to the best half is not dropped for what it scored on some of the "
        "items. Holds for every candidate, however often one looks.",
    )
    tolerance: float | Literal["resolution"] = Field(
        default="resolution",
        description="By how much of the objective a candidate may miss its side of the cut. `resolution`: by what all "
        "search items together could not tell from chance, estimated from earlier candidates. 0: by nothing, which "
        "settles little but what is plain.",
    )

    @field_validator("tolerance")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 <= value < math.inf:
            raise ValueError("expected a number of at least 0, or resolution")
        return value


class CostWeight(Section):
    """How a cost counts."""

    weight: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight * (cost / the best parent's - 1) is subtracted from the objective: the weight is lost "
        "where the cost is twice the best parent's, and gained where there is none. The best parent is the one of the "
        "highest objective without costs. 0: for `objectives` alone.",
    )


class CostConfig(Section):
    """What a candidate costs, as part of what is searched for: `cost: {answer_tokens: {weight: 0.1}}` wants answers
    that are as good and shorter. Lower is better. Each is either given a weight in the objective, or named in
    `objectives` as one of its own, `[[gsm8k_train], [answer_tokens]]`, or both. Measured while candidates are scored.
    """

    answer_tokens: CostWeight | None = Field(
        default=None,
        description="Tokens of an answer that the model writes, the one that ends it included: the mean over answers, "
        "then over the tasks that have it write.",
    )
    parameters: CostWeight | None = Field(default=None, description="Elements of all tensors of the merged model.")
    layers: CostWeight | None = Field(default=None, description="Layers of the merged language model.")

    @property
    def weights(self) -> dict[Cost, float]:
        """Of those that are measured."""
        found = {cost: getattr(self, cost) for cost in Cost}
        return {cost: section.weight for cost, section in found.items() if section is not None}


class ValidationConfig(Section):
    """The finalists' second exam."""

    finalists: int = Field(
        default=5,
        ge=0,
        description="Best candidates re-scored on held-out items; the best by that score wins. 0: none.",
    )


class SimplifyConfig(Section):
    """At the end: the best recipe with fewer numbers, in `simple/recipe.yml`."""

    allow: float = Field(
        default=0.01,
        ge=0,
        allow_inf_nan=False,
        description="How much of the objective may be lost on the items that decide. Three times as much must be ruled "
        "out there, with 95 % confidence.",
    )
    numbers: int | None = Field(
        default=None, ge=1, description="Numbers at most; by default half of what the best has, and at most 64."
    )
