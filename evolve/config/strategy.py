"""The sections of search.yml on how it is searched, from `items` and `start` to `budget` and `validation`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo, field_validator

from evolve import bounds
from evolve.config.section import Section
from evolve.config.share import share
from evolve.optimizers import OPTIMIZERS, Optimizer, find_optimizer
from evolve.optimizers.registry import check_options
from evolve.trials.costs import Cost


class ItemsConfig(Section):
    """Which items of each task are used."""

    search: int | None = Field(
        default=None, ge=1, description="Items per task on which candidates are scored; by default up to 150."
    )
    held_out: int | None = Field(
        default=None,
        ge=0,
        description="Items per task reserved for the finalists; by default up to 200 of the rest.",
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
    return [*names, {"pattern": ":", "description": "your own module:Class"}]


class OptimizerConfig(Section):
    """What proposes candidates."""

    name: str = Field(
        default="auto",
        description="One of those below, or your own `module:Class` beside this file (see extending.md). "
        "`optimizer: cma` is short for `optimizer: {name: cma}`.",
        json_schema_extra=lambda schema: schema.update(anyOf=_optimizer_names()),
    )
    population_size: int | None = Field(
        default=None,
        ge=2,
        le=bounds.POPULATION,
        description="Candidates per batch; the default depends on the optimizer.",
    )
    sigma: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Initial step size: spread of the first candidates around the start, as a share of a gene's range.",
    )
    mode: Literal["generations", "steady_state"] = Field(
        default="generations",
        description="generations: a batch is scored completely before the next is proposed. Workers wait for its last "
        "candidate, and results do not depend on their number. steady_state: a free worker gets the next candidate at "
        "once. Results depend on `workers.count`, but not on which candidate finishes first.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The optimizer's own options, see below.")

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
    """Where the search begins. `start: gradient` is short for `start: {method: gradient}`."""

    method: Literal["auto", "gradient", "references", "random"] = Field(
        default="auto",
        description="gradient: follow the gradient of the probability of right answers in the weights, and begin at "
        "the best point found. references: begin at the best parent or the uniform merge. random: at a random point. "
        "auto: gradient if backend, method and tasks allow it, otherwise references; the run says which.",
    )
    steps: int = Field(
        default=96,
        ge=1,
        le=bounds.GRADIENT_STEPS,
        description="gradient: maximum number of steps; it stops earlier when the score no longer improves.",
    )
    items: int = Field(
        default=2,
        ge=1,
        description="gradient: items per task in the first steps; twice, four and eight times as many later, when "
        "smaller steps need less noise.",
    )
    rate: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="gradient: how far the first step moves a weight, in its own unit; later steps are smaller. If "
        "they lead to nothing better, the search starts again with a third of it.",
    )
    exponent: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="gradient: q in the loss -(p^q - 1)/q, where p is the probability of a right answer. 0 is the "
        "log-likelihood, dominated by items that no model can answer; 1 is the probability itself, to which they add "
        "nothing.",
    )
    targets: Literal["auto", "gold", "parents"] = Field(
        default="auto",
        description="gradient: which answers are right. gold: the task's own. parents: those that parents wrote and "
        "that were scored right. auto: both, but gold only if parents' right answers look like it.",
    )


DEFAULT_PLATEAU = 30


class BudgetConfig(Section):
    """When to stop: at the first bound that is reached."""

    evaluations: int | None = Field(
        default=None,
        ge=1,
        description="Number of candidates to score, exactly. Parents, the uniform merge, steps and looks of a gradient "
        "come on top, which `items` bounds as well, and held-out items and shorter recipes, which it does not.",
    )
    items: int | None = Field(
        default=None,
        ge=1,
        description="Item evaluations, the unit of a search's cost: one item scored is one, an item of a gradient step "
        "is three. Parents, the uniform merge and the gradient count; held-out items and shorter recipes do not.",
    )
    minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wall time of the search, resumed runs included."
    )
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="Stop once a candidate's objective reaches this."
    )
    plateau: int | None = Field(
        default=None,
        ge=1,
        description=f"Stop after this many candidates without a new best; {DEFAULT_PLATEAU} if no bound is given. With "
        "`optimizer: auto` and a gradient for every gene, fewer: as many as use the items that the gradient used.",
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
    """Candidates stop as soon as it is settled whether they belong to the better half of their batch."""

    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="Probability that a candidate of the better half is not dropped because of its score on some of "
        "the items. It holds for every candidate, over all rounds together.",
    )
    tolerance: float | Literal["resolution"] = Field(
        default="resolution",
        description="By how much of the objective a candidate may miss its half. `resolution`: by a difference that "
        "all search items together could not tell from chance, estimated from earlier candidates. 0: by nothing, so "
        "that only clear cases are settled.",
    )

    @field_validator("tolerance")
    @classmethod
    def _not_negative(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 <= value < math.inf:
            raise ValueError("expected a number of at least 0, or resolution")
        return value


class CostWeight(Section):
    """How a cost counts in the objective."""

    weight: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight * (cost / the best parent's cost - 1) is subtracted from the objective. So a cost of twice "
        "the best parent's loses the weight, and a cost of 0 gains it. The best parent is the one with the highest "
        "objective without costs. 0: the cost is only used in `objectives`.",
    )


class CostConfig(Section):
    """Costs as part of the objective: `cost: {answer_tokens: {weight: 0.1}}` asks for answers that are as good and
    shorter. Lower is better. Each cost has a weight in the objective, or is an objective of its own in `objectives`,
    `[[gsm8k_train], [answer_tokens]]`, or both. Costs are measured while candidates are scored.
    """

    answer_tokens: CostWeight | None = Field(
        default=None,
        description="Generated tokens per answer, the end token included: the mean over answers, then over the tasks "
        "that generate.",
    )
    parameters: CostWeight | None = Field(default=None, description="Number of parameters of the merged model.")
    layers: CostWeight | None = Field(default=None, description="Number of layers of the merged language model.")

    @property
    def weights(self) -> dict[Cost, float]:
        """Of those that are measured."""
        found = {cost: getattr(self, cost) for cost in Cost}
        return {cost: section.weight for cost, section in found.items() if section is not None}


class ValidationConfig(Section):
    """Scoring the finalists on held-out items."""

    finalists: int = Field(
        default=5,
        ge=0,
        description="How many of the best candidates are scored on held-out items; the best there wins. 0: none.",
    )


_SHARE = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"%\s*$")]  # what editors take


class SimplifyConfig(Section):
    """At the end of a run: a shorter recipe that does as well as the best, in `simple/recipe.yml`."""

    allow: Annotated[float, BeforeValidator(share, json_schema_input_type=_SHARE)] = Field(
        default=0.01,
        ge=0,
        allow_inf_nan=False,
        description="How much of the objective may be lost on the deciding items, such as 0.005 or 0.5%. A loss of "
        "three times as much must be ruled out there with 95 % confidence.",
    )
    numbers: int | None = Field(
        default=None, ge=1, description="Maximum count of numbers; by default half of the best recipe's, at most 64."
    )
