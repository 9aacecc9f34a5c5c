"""search.yml <-> SearchConfig. Every option is declared once, here: type, default, range, description."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator, model_validator

from evolve.optimizers import OPTIMIZERS, Optimizer, find_optimizer
from evolve.optimizers.registry import check_options, require_several_objectives
from evolve.problems import ConfigError, Problem, noted
from evolve.scoring import AnyTask, ConstraintConfig, ObjectiveKind
from evolve.scoring.backends.backend_options import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, BackendName, BackendOptions
from evolve.space.genome_space import GenomeDefinition
from evolve.trials.costs import Cost


class Section(BaseModel):
    """Frozen, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


def _optimizer(name: str, info: ValidationInfo) -> type[Optimizer]:
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
        default=None, ge=2, description="Candidates per batch; by default the optimizer's own number."
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
        return _optimizer(value, info).name

    @field_validator("options")
    @classmethod
    def _of_the_optimizer(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in info.data:
            check_options(_optimizer(info.data["name"], info), value)
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
    steps: int = Field(default=96, ge=1, description="gradient: steps at most; fewer when more is not worth it.")
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
        description="gradient: how far the first step moves a weight, in the weight's own unit; later ones less.",
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
        description=f"Stop after this many candidates without a new best; {DEFAULT_PLATEAU} when no bound is given.",
    )

    @property
    def plateau_limit(self) -> int | None:
        """Candidates without a new best after which more is not worth it; None when only other bounds hold."""
        bounds = (self.evaluations, self.items, self.minutes, self.target, self.plateau)
        return DEFAULT_PLATEAU if all(bound is None for bound in bounds) else self.plateau

    def bound(self, name: str) -> float | None:
        """One of them by its name; None for anything else, or where there is no such bound."""
        found: float | None = self.plateau_limit if name == "plateau" else getattr(self, name, None)
        return found


class WorkersConfig(Section):
    """Who scores candidates. Has no influence on what is found, but with `optimizer.mode: steady_state`."""

    count: int = Field(default=1, ge=1, description="Workers, each with a live model of its own.")
    cpus: int | None = Field(
        default=None, ge=1, description="CPU threads of each; by default this machine's, shared out."
    )
    gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of each; by default 1 where there is one. 0.5 lets two share one.",
    )
    engine: Literal["auto", "ray", "in_process"] = Field(
        default="auto", description="auto: in this process for one worker, Ray actors for more."
    )

    @property
    def threads(self) -> int:
        """CPU threads of each; as many as torch would use, shared out, where the file leaves it open."""
        import torch

        return self.cpus or max(torch.get_num_threads() // self.count, 1)


class RayConfig(Section):
    """The Ray cluster to use."""

    address: str | None = Field(
        default=None,
        description="A running cluster, such as auto or HOST:6379; by default a local one is started.",
    )


class BackendConfig(Section):
    """How a candidate is run."""

    name: BackendName = Field(
        default="hf",
        description="hf: transformers, in the worker's process. vllm: one vLLM engine per worker, weights replaced in "
        "place (pip install 'vllm>=0.32').",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of the forward pass; auto: the recipe's on a GPU, float32 on a CPU."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; vllm chooses for itself.")
    max_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description=f"Tokens per batch, padding included; by default {CPU_BATCH_TOKENS} on a CPU, "
        f"{GPU_BATCH_TOKENS} on a GPU. vllm: tokens computed at once (max_num_batched_tokens).",
    )
    attention: str | None = Field(
        default=None, description="hf: transformers' attn_implementation, such as sdpa or flash_attention_2."
    )
    device_map: str | dict[str, int | str] | None = Field(
        default=None,
        description="hf: spreads the model over several GPUs: auto, balanced, balanced_low_0, or the device of each "
        "part by name.",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        default="none",
        description="hf: scores every candidate with its linear layers, but for the head, rounded after the merge: "
        "8bit as LLM.int8 rounds weights (by row), 4bit as NF4 does (blocks of 64). The scores of a quantised model, "
        "neither its speed nor its memory: a second copy of the model is kept.",
    )
    compile: bool = Field(
        default=False,
        description="hf: torch.compile of forwards without a key-value cache, which is all but generation. vllm: let "
        "it compile the model and record graphs instead of running eagerly.",
    )
    probe: bool = Field(
        default=True,
        description="vllm: compare the first candidate's log-probabilities with transformers' on the CPU, where the "
        "model must fit into memory once.",
    )
    model_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Passed on as they are: to vllm.LLM (tensor_parallel_size, gpu_memory_utilization, "
        "max_model_len, …), or with hf to AutoModelForCausalLM.from_config (trust_remote_code, …). Both take "
        "add_bos_token, hf max_length too.",
    )

    @model_validator(mode="after")
    def _of_one_backend(self) -> BackendConfig:
        if self.name == "vllm":
            wrong = [name for name in ("attention", "device_map") if getattr(self, name) is not None]
            wrong += ["quantization"] if self.quantization != "none" else []
            if wrong:
                fix = "vLLM's own options go into model_args, such as model_args: {tensor_parallel_size: 2}"
                raise ConfigError(*(Problem((name,), f"only with name: hf. {fix}") for name in wrong))
        return self

    @property
    def gpus(self) -> int:
        """GPUs that one worker's model is spread over, as far as the file says so."""
        sizes = [self.model_args.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
        return math.prod(sizes) if self.name == "vllm" else 1

    def options(self, config: Mapping[str, Any], device: str) -> BackendOptions:
        """What the engine is told.

        Args:
            config: The merged model's config.json.
            device: What `device: auto` came to.
        """
        dtype: str = self.dtype
        if dtype == "auto":
            saved = str(config.get("dtype") or config.get("torch_dtype") or "float32")
            dtype = "float32" if device == "cpu" else saved
        return BackendOptions(
            name=self.name,
            dtype=dtype,
            device=device,
            max_batch_tokens=self.max_batch_tokens,
            attention=self.attention,
            device_map=self.device_map,
            quantization=None if self.quantization == "none" else self.quantization,
            compile=self.compile,
            probe=self.probe,
            model_args=self.model_args,
        )


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
    objective: ObjectiveKind = Field(
        default="weighted_sum",
        description="What the tasks' scores become: `weighted_sum`, their weighted mean; `worst`, the lowest of them, "
        "whatever the weights; `geometric_mean`, weighted, and the lowest score where that is 0 or less.",
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
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="Who scores candidates.")
    ray: RayConfig = Field(default_factory=RayConfig, description="The Ray cluster to use.")
    backend: BackendConfig = Field(default_factory=BackendConfig, description="How a candidate is run.")
    seed: int = Field(default=0, ge=0, description="Of everything random: items, masks, optimizer, intervals.")
    output: str | None = Field(default=None, description="Output directory; by default runs/NAME-OF-THIS-FILE.")
    storage: str | None = Field(
        default=None, description="Optuna storage URL; by default a journal file in the output directory."
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

    @field_validator("objectives", mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        return [[group] if isinstance(group, str) else group for group in value] if isinstance(value, list) else value

    @field_validator("start", mode="before")
    @classmethod
    def _method_alone(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("task_search_path", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> SearchConfig:
        problems = list(self._contradictions())
        if self.racing is not None:
            problems += self._wrong_racing(_optimizer(self.optimizer.name, info))
        if self.objectives:
            problems += self._wrong_objectives(_optimizer(self.optimizer.name, info))
        if self.cost is not None:
            problems += self._wrong_cost()
        if problems:
            raise ConfigError(*problems)
        return self

    def _contradictions(self) -> Iterator[Problem]:
        if (self.recipe is None) == (self.genome is None):
            found = "neither" if self.recipe is None else "both"
            yield Problem((), f"exactly one of recipe and genome is needed, found {found}")
        if self.workers.engine == "in_process" and self.workers.count > 1:
            message = "in_process has one worker; set workers.count to 1, or engine to ray"
            yield Problem(("workers", "engine"), message)
        names = [task.label for task in self.tasks]
        yield from _repeated("tasks", names)
        yield from _repeated("constraints", [limit.label for limit in self.constraints])
        for index, limit in enumerate(self.constraints):
            if limit.answers_of is not None and limit.answers_of not in names:
                message = f"no task is called {limit.answers_of}; there are {', '.join(names)}"
                yield Problem(("constraints", index, "answers_of"), message)

    def _wrong_racing(self, optimizer: type[Optimizer]) -> Iterator[Problem]:
        place = ("racing",)
        if self.objectives:
            yield Problem(place, "a Pareto search has no best half of a batch. Remove racing, or objectives")
        elif not optimizer.selects_half:
            able = ", ".join(name for name, found in OPTIMIZERS.items() if found.selects_half)
            message = f"{optimizer.name} learns from every score, not from the best half of a batch"
            yield Problem(place, f"{message}. Remove racing, or set optimizer.name to one of {able}")
        if self.optimizer.mode == "steady_state":
            yield Problem(place, "in steady state there are no batches. Remove racing, or set mode: generations")
        if self.objective != "weighted_sum":
            message = f"{self.objective} is no mean over items, of which some would tell. Remove racing, or objective"
            yield Problem(place, message)
        if self.constraints:
            message = "constraints are measured on all of a candidate's answers. Remove racing, or constraints"
            yield Problem(place, message)
        if self.cost is not None:
            message = "costs are measured on all of a candidate's answers. Remove racing, or cost"
            yield Problem(place, message)

    def _wrong_cost(self) -> Iterator[Problem]:
        if not self.cost_weights:
            yield Problem(("cost",), f"names none; there are {', '.join(Cost)}")
        grouped = {name for group in self.objectives for name in group}
        for cost, weight in self.cost_weights.items():
            if not weight and cost not in grouped:
                example = f"give it a weight, such as cost: {{{cost}: {{weight: 0.1}}}}, or name it in objectives"
                yield Problem(("cost", cost), f"counts nowhere; {example}")
            for index, task in enumerate(self.tasks):
                if task.label == cost:
                    yield Problem(("tasks", index), f"{cost} is a cost of this search; give the task another alias")

    def _wrong_objectives(self, optimizer: type[Optimizer]) -> Iterator[Problem]:
        place = ("objectives",)
        names = [task.label for task in self.tasks]
        costs = list(map(str, self.cost_weights))
        grouped = {name for group in self.objectives for name in group}
        if unknown := sorted(grouped - {*names, *costs}):
            known = ", ".join([*names, *costs])
            example = next((f". For the cost, add cost: {{{name}: {{}}}}" for name in unknown if name in set(Cost)), "")
            yield Problem(place, f"no task is called {', '.join(unknown)}; there are {known}{example}")
        if mixed := next((group for group in self.objectives if len(group) > 1 and set(group) & set(costs)), None):
            cost = next(name for name in mixed if name in costs)
            yield Problem(place, f"{cost} is a cost, and an objective of its own: [..., [{cost}]]")
        if left_out := sorted(set(names) - grouped):
            yield Problem(place, f"{', '.join(left_out)} is in none of them; add it to one")
        if len(self.objectives) < 2 or not all(self.objectives):
            yield Problem(place, "at least two are needed, each with a task. For one, set objective")
        if any(len(set(group)) < len(group) for group in self.objectives):
            yield Problem(place, "a task is named twice in one of them; name it once")
        problems: list[Problem] = []
        with noted(problems, *place):
            require_several_objectives(optimizer)
        yield from problems


def _repeated(key: str, labels: Sequence[str]) -> Iterator[Problem]:
    for index, label in enumerate(labels):
        if label in labels[:index]:
            yield Problem((key, index), f"{label} is named more than once; give the second an alias")
