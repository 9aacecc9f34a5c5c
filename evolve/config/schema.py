"""search.yml <-> SearchConfig. Every option is declared once, here or in its section: type, default, description."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from evolve.config.callbacks import CallbackConfig
from evolve.config.machines import BackendConfig, RayConfig, WorkersConfig
from evolve.config.section import Section
from evolve.config.strategy import (
    BudgetConfig,
    CostConfig,
    ItemsConfig,
    OptimizerConfig,
    RacingConfig,
    Resolution,
    SimplifyConfig,
    StartConfig,
    ValidationConfig,
    optimizer_of,
)
from evolve.config.sweep import SweepConfig
from evolve.optimizers import OPTIMIZERS, Optimizer
from evolve.optimizers.registry import require_several_objectives
from evolve.problems import ConfigError, Problem, noted
from evolve.scoring import AnyTask, ConstraintConfig, ObjectiveKind
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN
from evolve.space.genome_space import GenomeDefinition
from evolve.trials.costs import Cost


class SearchConfig(Section):
    """A whole search.yml."""

    recipe: dict[str, Any] | None = Field(default=None, description="A merge recipe with genes.")
    genome: GenomeDefinition | None = Field(default=None, description="mergekit-evolve's genome, instead of recipe.")
    tasks: tuple[AnyTask, ...] = Field(min_length=1, description="What candidates are scored on.")
    constraints: tuple[ConstraintConfig, ...] = Field(
        default=(), description="Bounds outside of which a candidate is infeasible, whatever it scores."
    )
    task_search_path: tuple[str, ...] = Field(
        default=(), description="Directories with lm-eval task files, modules and files that tasks name."
    )
    relative_to: str | None = Field(
        default=None,
        min_length=1,
        description="The directory, relative to this file, in which files named here are looked for first; by default "
        "the file's own. The copy of the search in a run's directory records the original place here.",
    )
    objective: ObjectiveKind | Annotated[str, Field(pattern=FUNCTION_PATTERN)] = Field(
        default="weighted_sum",
        description="How the tasks' scores are combined: `weighted_sum`, their weighted mean; `worst`, the lowest of "
        "them, whatever the weights; `geometric_mean`, weighted, or the lowest score if that is 0 or less. Or your own "
        "`module:function`, which maps task names with scores to a number; larger is better.",
    )
    objectives: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="Several separate objectives: a list of lists of task names, `[[gsm8k_train], [arc, mbpp]]`. Each "
        "inner list is combined as `objective` says. Every task must be in at least one; a cost has a list of its own. "
        "The result is the Pareto front, in `pareto/`; the best recipe is its member with the highest `objective` over "
        "all tasks.",
    )
    cost: CostConfig | None = Field(
        default=None,
        description="Costs that count beside the scores: length of answers, parameters, layers.",
    )
    normalize: Literal["none", "parents"] = Field(
        default="none",
        description="`parents`: each task is rescaled so that the base model is 0 (without one, the worst parent) and "
        "the best parent 1, by their scores on the search items. So tasks with different units can be mixed. If no "
        "parent is above the base, 1 is as far above it as the worst parent is below; if all score the same, one unit "
        "of the metric above it.",
    )
    items: ItemsConfig = Field(default_factory=ItemsConfig, description="Which items of each task are used.")
    start: StartConfig = Field(default_factory=StartConfig, description="Where the search begins.")
    warm_start: tuple[str, ...] = Field(
        default=(),
        description="Directories of earlier runs over the same models. The best of each is an additional start. Genes "
        "of the same name are carried over; where genes are shared differently, the numbers of the same places.",
    )
    resolution: Resolution = Field(
        default="auto",
        description="Which genes the gradient moves together. model: all genes of a parameter of a model; layer: those "
        "of each layer; gene: each gene separately. auto: each gene separately, as long as the score on items that no "
        "step uses improves; these items also choose how much of the differences within a layer to keep.",
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="What proposes candidates.")
    racing: RacingConfig | None = Field(
        default=None,
        description="`racing: {}` stops candidates early. All candidates of a batch are scored on the same items in "
        "the same random order, in rounds of 1/8, 1/4, 1/2 and all of them; one stops when it is settled to be in the "
        "better or the worse half. Items on which earlier models agree are drawn rarely. Candidates that would be the "
        "best so far are always scored on all items.",
    )
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="When to stop.")
    validation: ValidationConfig = Field(
        default_factory=ValidationConfig, description="Scoring the finalists on held-out items."
    )
    simplify: SimplifyConfig | Literal[False] = Field(
        default_factory=SimplifyConfig,
        description="At the end, if the best recipe has more than 20 numbers, find the shortest recipe that does as "
        "well and save it in `simple/`. `off`: skip this.",
    )
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="What scores candidates.")
    ray: RayConfig = Field(default_factory=RayConfig, description="The Ray cluster to use.")
    backend: BackendConfig = Field(default_factory=BackendConfig, description="How a candidate is run.")
    seed: int = Field(default=0, ge=0, description="For everything random: items, masks, optimizer, intervals.")
    output: str | None = Field(default=None, description="Output directory; by default runs/NAME-OF-THIS-FILE.")
    storage: str | None = Field(
        default=None,
        description="Optuna storage URL, such as `postgresql://host/database` or `mysql://host/database`; by default a "
        "journal file in the output directory. The driver is a separate package: `psycopg[binary]`, `pymysql`. Do not "
        "put a password here, because this file is copied into the run: use `PGPASSWORD`, `~/.pgpass`, or "
        "`?read_default_file=~/.my.cnf` in the URL.",
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="Trackers of the search: tensorboard, mlflow, wandb, or your own `module:Class`."
    )
    sweep: SweepConfig | None = Field(
        default=None, description="What `evolve sweep` varies. A recipe without genes is then scored as it is."
    )
    random_init: bool = Field(default=False, description="mergekit-evolve's name for `start: random`.")
    allow_benchmark_test: bool = Field(
        default=False,
        description="Allow tuning on a public benchmark's test set, which is otherwise refused; the card says so.",
    )

    @field_validator("optimizer", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def starts_at_random(self) -> bool:
        """As `start: random` says, or in mergekit-evolve's files `random_init: true`."""
        return self.start.method == "random" or (self.random_init and self.start.method == "auto")

    @property
    def cost_weights(self) -> dict[Cost, float]:
        """Of the costs that are measured."""
        return {} if self.cost is None else self.cost.weights

    @field_validator("simplify", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return {"off": False, True: {}}.get(value, value) if isinstance(value, str | bool) else value

    @field_validator("objectives", mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        return [[group] if isinstance(group, str) else group for group in value] if isinstance(value, list) else value

    @field_validator("callbacks", mode="before")
    @classmethod
    def _callback_names_alone(cls, value: Any) -> Any:
        listed = [value] if isinstance(value, str) else value
        return [{"name": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else value

    @field_validator("output")
    @classmethod
    def _at_home(cls, value: str | None) -> str | None:
        return None if value is None else os.path.expanduser(value)  # as a shell would, or a `~` is made here

    @field_validator("storage")
    @classmethod
    def _outlives_the_process(cls, value: str | None) -> str | None:
        scheme, separator, place = (value or "").partition("://")
        if separator and scheme.partition("+")[0] == "sqlite" and place.partition("?")[0] in ("", "/", "/:memory:"):
            raise ValueError(f"{value} is in memory, and gone with the process. Name a file, such as sqlite:///runs.db")
        return value

    @field_validator("start", mode="before")
    @classmethod
    def _method_alone(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("task_search_path", "warm_start", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> SearchConfig:
        if problems := list(_contradictions(self, optimizer_of(self.optimizer.name, info))):
            raise ConfigError(*problems)
        return self


def _contradictions(config: SearchConfig, optimizer: type[Optimizer]) -> Iterator[Problem]:
    """Every one of them, with its place in the file.

    Args:
        config: The whole search.
        optimizer: Who proposes its candidates.
    """
    yield from _of_parts(config)
    if config.racing is not None:
        yield from _of_racing(config, optimizer)
    if config.objectives:
        yield from _of_objectives(config, optimizer)
    if config.cost is not None:
        yield from _of_costs(config)


def _of_parts(config: SearchConfig) -> Iterator[Problem]:
    if (config.recipe is None) == (config.genome is None):
        found = "neither" if config.recipe is None else "both"
        yield Problem((), f"exactly one of recipe and genome is needed, found {found}")
    if config.workers.engine == "in_process" and config.workers.count > 1:
        message = "in_process has one worker; set workers.count to 1, or engine to ray"
        yield Problem(("workers", "engine"), message)
    names = [task.label for task in config.tasks]
    limits = [limit.label for limit in config.constraints]
    for index, label in enumerate(limits):
        if label in limits[:index]:
            yield Problem(("constraints", index), f"{label} is named more than once; give the second an alias")
    for index, limit in enumerate(config.constraints):
        if limit.answers_of is not None and limit.answers_of not in names:
            message = f"no task is called {limit.answers_of}; there are {', '.join(names)}"
            yield Problem(("constraints", index, "answers_of"), message)


def _of_racing(config: SearchConfig, optimizer: type[Optimizer]) -> Iterator[Problem]:
    place = ("racing",)
    if config.objectives:
        yield Problem(place, "a Pareto search has no best half of a batch. Remove racing, or objectives")
    elif not optimizer.selects_half:
        able = ", ".join(name for name, found in OPTIMIZERS.items() if found.selects_half)
        message = f"{optimizer.name} learns from every score, not from the best half of a batch"
        yield Problem(place, f"{message}. Remove racing, or set optimizer.name to one of {able}")
    if config.optimizer.mode == "steady_state":
        yield Problem(place, "in steady state there are no batches. Remove racing, or set mode: generations")
    if config.objective != "weighted_sum":
        message = f"{config.objective} is no mean over items, of which some would tell. Remove racing, or objective"
        yield Problem(place, message)
    if config.constraints:
        message = "constraints are measured on all of a candidate's answers. Remove racing, or constraints"
        yield Problem(place, message)
    if config.cost is not None:
        message = "costs are measured on all of a candidate's answers. Remove racing, or cost"
        yield Problem(place, message)


def _of_costs(config: SearchConfig) -> Iterator[Problem]:
    if not config.cost_weights:
        yield Problem(("cost",), f"names none; there are {', '.join(Cost)}")
    grouped = {name for group in config.objectives for name in group}
    for cost, weight in config.cost_weights.items():
        if not weight and cost not in grouped:
            example = f"give it a weight, such as cost: {{{cost}: {{weight: 0.1}}}}, or name it in objectives"
            yield Problem(("cost", cost), f"counts nowhere; {example}")
        for index, task in enumerate(config.tasks):
            if task.label == cost:
                yield Problem(("tasks", index), f"{cost} is a cost of this search; give the task another alias")


def _of_objectives(config: SearchConfig, optimizer: type[Optimizer]) -> Iterator[Problem]:
    place = ("objectives",)
    if ":" in config.objective:
        yield Problem(place, f"{config.objective} is a function of all tasks. Remove objectives, or objective")
    names = [task.label for task in config.tasks]
    costs = list(map(str, config.cost_weights))
    grouped = {name for group in config.objectives for name in group}
    if unknown := sorted(grouped - {*names, *costs}):
        known = ", ".join([*names, *costs])
        example = next((f". For the cost, add cost: {{{name}: {{}}}}" for name in unknown if name in set(Cost)), "")
        yield Problem(place, f"no task is called {', '.join(unknown)}; there are {known}{example}")
    if mixed := next((group for group in config.objectives if len(group) > 1 and set(group) & set(costs)), None):
        cost = next(name for name in mixed if name in costs)
        yield Problem(place, f"{cost} is a cost, and an objective of its own: [..., [{cost}]]")
    if left_out := sorted(set(names) - grouped):
        yield Problem(place, f"{', '.join(left_out)} is in none of them; add it to one")
    if len(config.objectives) < 2 or not all(config.objectives):
        yield Problem(place, "at least two are needed, each with a task. For one, set objective")
    if any(len(set(group)) < len(group) for group in config.objectives):
        yield Problem(place, "a task is named twice in one of them; name it once")
    problems: list[Problem] = []
    with noted(problems, *place):
        require_several_objectives(optimizer)
    yield from problems
