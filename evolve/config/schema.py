"""search.yml <-> SearchConfig. Every option is declared once, here or in its section: type, default, description."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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

    recipe: dict[str, Any] | None = Field(default=None, description="A merge recipe with genes in it.")
    genome: GenomeDefinition | None = Field(default=None, description="mergekit-evolve's genome, instead of recipe.")
    tasks: tuple[AnyTask, ...] = Field(min_length=1, description="What candidates are scored on.")
    constraints: tuple[ConstraintConfig, ...] = Field(
        default=(), description="What makes a candidate infeasible, whatever it scores."
    )
    task_search_path: tuple[str, ...] = Field(
        default=(), description="Directories with lm-eval task files, and with the modules and files that tasks name."
    )
    relative_to: str | None = Field(
        default=None,
        min_length=1,
        description="The directory in which what this file names is looked for first, as seen from the file; by "
        "default its own. A run's copy of its search says where that was.",
    )
    objective: ObjectiveKind | Annotated[str, Field(pattern=FUNCTION_PATTERN)] = Field(
        default="weighted_sum",
        description="What the tasks' scores become: `weighted_sum`, their weighted mean; `worst`, the lowest of them, "
        "whatever the weights; `geometric_mean`, weighted, and the lowest score where that is 0 or less. Or a function "
        "of yours, `module:function`, from a mapping of task names to scores to a number; larger is better.",
    )
    objectives: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="Several objectives kept apart: a list of lists of task names, `[[gsm8k_train], [arc, mbpp]]`; "
        "those of an inner list become one as `objective` says. Every task is in at least one; one of `cost` stands "
        "alone. The result is the Pareto front, in `pareto/`; the best recipe is the member with the highest "
        "`objective` over all tasks.",
    )
    cost: CostConfig | None = Field(
        default=None,
        description="What a candidate costs beside what it scores: length of answers, parameters, layers.",
    )
    normalize: Literal["none", "parents"] = Field(
        default="none",
        description="`parents`: each task counts on a scale where the base model is 0 (without one, the worst parent) "
        "and the best parent 1, by their scores on the search items, so that tasks of different units can be mixed. "
        "Where no parent gains on the base, 1 is as far above it as the worst parent is below; where all score the "
        "same, one unit of the metric above it.",
    )
    items: ItemsConfig = Field(default_factory=ItemsConfig, description="Which items of each task are used.")
    start: StartConfig = Field(default_factory=StartConfig, description="Where the search begins.")
    warm_start: tuple[str, ...] = Field(
        default=(),
        description="Directories of earlier runs, over the same models: the best of each is a start beside the others. "
        "Genes of the same name carry over, and numbers of the same places where genes are shared otherwise.",
    )
    resolution: Resolution = Field(
        default="auto",
        description="How finely the gradient tells genes apart. model: a parameter of a model moves as one; layer: "
        "each layer of it by itself; gene: each gene. auto: each gene, for as long as items gain that no step saw, "
        "which also choose how much of what differs within layers is kept.",
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="Who proposes candidates.")
    racing: RacingConfig | None = Field(
        default=None,
        description="`racing: {}` stops candidates early: all of a batch see the same items in the same random order, "
        "in rounds of 1/8, 1/4, 1/2 and all of them, and whoever is settled to be in the better or the worse half "
        "stops. Items on which earlier models agree are drawn thinly. Candidates that would be the best so far always "
        "see all items.",
    )
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="When to stop.")
    validation: ValidationConfig = Field(default_factory=ValidationConfig, description="The finalists' second exam.")
    simplify: SimplifyConfig | Literal[False] = Field(
        default_factory=SimplifyConfig,
        description="At the end, where the best recipe has more than 20 numbers: the shortest recipe that does as "
        "well, in `simple/`. `off`: none.",
    )
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="Who scores candidates.")
    ray: RayConfig = Field(default_factory=RayConfig, description="The Ray cluster to use.")
    backend: BackendConfig = Field(default_factory=BackendConfig, description="How a candidate is run.")
    seed: int = Field(default=0, ge=0, description="Of everything random: items, masks, optimizer, intervals.")
    output: str | None = Field(default=None, description="Output directory; by default runs/NAME-OF-THIS-FILE.")
    storage: str | None = Field(
        default=None,
        description="Optuna storage URL, such as `postgresql://host/database` or `mysql://host/database`; by default a "
        "journal file in the output directory. The driver is a package of its own: `psycopg[binary]`, `pymysql`. A "
        "password is better left to the database's own ways, `PGPASSWORD`, `~/.pgpass`, or "
        "`?read_default_file=~/.my.cnf` in the URL: this file is copied into the run.",
    )
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="Who is told of the search as it goes: tensorboard, mlflow, wandb, `module:Class`."
    )
    sweep: SweepConfig | None = Field(
        default=None, description="What `evolve sweep` varies; a recipe without genes is scored as it is, then."
    )
    random_init: bool = Field(default=False, description="mergekit-evolve's word for `start: random`.")
    allow_benchmark_test: bool = Field(
        default=False,
        description="Search on a public benchmark's test set, which is refused otherwise; the card says so.",
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
    yield from _repeated("tasks", names)
    yield from _repeated("constraints", [limit.label for limit in config.constraints])
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


def _repeated(key: str, labels: Sequence[str]) -> Iterator[Problem]:
    for index, label in enumerate(labels):
        if label in labels[:index]:
            yield Problem((key, index), f"{label} is named more than once; give the second an alias")
