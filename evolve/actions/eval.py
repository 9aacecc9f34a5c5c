"""`evolve eval` from its options to its results: which tasks, which items, which engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evolve.config.machines import BackendConfig
from evolve.config.reader import read_search
from evolve.config.schema_problems import schema_problems
from evolve.evaluation.eval_models import read_models
from evolve.evaluation.score_models import ModelScores, choose_items, score_models
from evolve.preflight.prepare import prepare_tasks
from evolve.problems import ConfigError, Problem
from evolve.report.eval_table import render_scores
from evolve.scoring import Objective, Scorer, TaskError, every_metric, load_scorers, parse_task
from evolve.scoring.backends.factory import check_device, check_installed
from evolve.search_loop.objective import objective_of


@dataclass(frozen=True)
class EvalOptions:
    """What stands on the command line; None is what was not given.

    Attributes:
        models: models, and recipes as files or data.
        tasks: names of lm-eval tasks, or entries as in search.yml.
        tasks_from: a search.yml whose tasks are used instead.
        held_out: only the items that the search holds out.
        task_path: directories with the user's task files.
        limit: items per task.
        seed: of the sample of items, few-shot examples and randomised merge methods.
        task_settings: of every task in `tasks`: num_fewshot, apply_chat_template.
        backend_settings: name, device, dtype, max_batch_tokens; laid over those of the search.
    """

    models: Sequence[str | Mapping[str, Any]]
    tasks: Sequence[str | Mapping[str, Any]]
    tasks_from: Path | None
    held_out: bool
    task_path: Sequence[Path]
    limit: int | None
    seed: int | None
    task_settings: Mapping[str, Any]
    backend_settings: Mapping[str, Any]


@dataclass(frozen=True)
class EvalOutcome:
    """The scores of every model, and as text."""

    results: tuple[ModelScores, ...]
    text: str

    @property
    def failed(self) -> bool:
        """Whether a model has no scores, or not all of them."""
        return any(scores.error is not None for scores in self.results)

    @property
    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """Model -> task -> metric -> score."""
        return {
            found.label: {
                task: {metric: one.score.value for metric, one in metrics.items()}
                for task, metrics in found.tasks.items()
            }
            for found in self.results
        }

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class _Tasks:
    scorers: tuple[Scorer, ...]
    objective: Objective | None  # None: of a search whose scale its parents set
    items: Mapping[str, Sequence[int]] | None  # None: all of them
    seed: int
    backend: BackendConfig = field(default_factory=BackendConfig)
    ignored: Sequence[str] = ()  # what the file says without effect
    steered: Mapping[str, Collection[int]] = field(default_factory=dict)  # the items that the search is made on


def run_eval(options: EvalOptions, on_progress: Callable[[str], None]) -> EvalOutcome:
    """Score the models.

    Args:
        options: the command line.
        on_progress: is told how it goes.

    Raises:
        ConfigError: with what is wrong with the options, the models or the tasks; nothing was scored.
    """
    tasks = _named_tasks(options) if options.tasks_from is None else _tasks_of_search(options, options.tasks_from)
    backend = _backend(options.backend_settings, tasks.backend)
    check_installed(backend.name, backend.quantization)
    check_device(backend.device)
    items = choose_items(tasks.scorers, options.limit, tasks.seed, tasks.items)
    for name, chosen in items.items():
        if options.limit is not None and len(chosen) < options.limit:
            on_progress(f"--limit {options.limit}: task {name} has {len(chosen)} items, and is scored on all of them")
    if (steered := sum(len(set(chosen) & set(tasks.steered.get(name, ()))) for name, chosen in items.items())) > 0:
        counted = f"{steered} of these {sum(map(len, items.values()))} items"
        on_progress(
            f"warning: {counted} are those that the search is made on, and flatter what it found. To leave them out: "
            "--held-out"
        )
    models = read_models(options.models, tasks.seed)
    for warning in dict.fromkeys([*tasks.ignored, *(line for model in models for line in model.warnings)]):
        on_progress(f"warning: {warning}")
    results = tuple(score_models(models, tasks.scorers, items, backend, tasks.seed, on_progress))
    directions = {
        scorer.name: {other.metric: other.direction for other in every_metric(scorer)} for scorer in tasks.scorers
    }
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    return EvalOutcome(results, render_scores(results, directions, tasks.objective, width))


def _backend(settings: Mapping[str, Any], of_search: BackendConfig) -> BackendConfig:
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        return BackendConfig.model_validate({**of_search.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        problems = schema_problems(error, given, BackendConfig)
        raise ConfigError(*(_of_option(problem.within("backend")) for problem in problems)) from None


def _of_option(problem: Problem) -> Problem:
    """A problem with the `backend` section as one with the option that sets it."""
    _, key, *_ = (*problem.place, "name")
    option = {"name": "backend", "max_batch_tokens": "batch-tokens"}.get(str(key), str(key))
    return Problem((), problem.message, f"--{option}")


def _named_tasks(options: EvalOptions) -> _Tasks:
    problems = []
    if not options.tasks:
        message = "no task is named. Give --tasks NAME[,NAME...], or --tasks-from SEARCH.YML"
        problems.append(Problem((), message, "--tasks"))
    if options.held_out:
        message = "which items are held out is what a search says. Give --tasks-from SEARCH.YML"
        problems.append(Problem((), message, "--held-out"))
    problems += [
        Problem((), f"{path} is not a directory", "--task-path") for path in options.task_path if not path.is_dir()
    ]
    if problems:
        raise ConfigError(*problems)
    seed = options.seed or 0
    settings = {key: value for key, value in options.task_settings.items() if value is not None}
    entries = [{"name": task, **settings} if isinstance(task, str) else task for task in options.tasks]
    try:
        scorers = load_scorers([parse_task(entry) for entry in entries], options.task_path, seed)
    except ValidationError as error:
        raise ConfigError(*(problem.within("tasks") for problem in schema_problems(error, entries[0]))) from None
    except TaskError as error:
        raise ConfigError(*(Problem((), problem.message, "--tasks") for problem in error.problems)) from None
    return _Tasks(scorers, objective_of(scorers), None, seed)


def _tasks_of_search(options: EvalOptions, path: Path) -> _Tasks:
    given = [key for key, value in options.task_settings.items() if value is not None]
    given += [name for name, value in (("tasks", options.tasks), ("task_path", options.task_path)) if value]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        message = f"the tasks and their settings are those of {path.name}; remove {names}"
        raise ConfigError(Problem((), message, "--tasks-from"))
    file = read_search(path, {} if options.seed is None else {"seed": options.seed})
    found = prepare_tasks(file)
    items = {name: split.held_out for name, split in found.splits.items()} if options.held_out else None
    objective = objective_of(found.scorers, found.config, found.objective) if found.config.normalize == "none" else None
    steered = {name: split.search for name, split in found.splits.items()}
    return _Tasks(found.scorers, objective, items, found.config.seed, found.config.backend, file.ignored_lines, steered)
