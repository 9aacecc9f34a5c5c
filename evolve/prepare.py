"""Everything that can go wrong before a model is loaded, found from configs and headers alone, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evolve.config import SearchConfig
from evolve.config_file import SearchFile
from evolve.model_fit import failing_corners, misfits
from evolve.problems import ConfigError, Problem, noted
from evolve.search_models import SearchModels, layers_of, open_models, span_genome, span_recipe
from evolve.search_space import Space
from evolve.search_tasks import find_directories, load_tasks, split_tasks
from evolve.template_models import methods_of
from merge_core import Checkpoint
from merge_core.user_methods import own_method_notice
from tasks import Scorer, Split, is_benchmark_test, load_constraints
from tasks.backends import check_installed


@dataclass(frozen=True)
class PreparedTasks:
    """The tasks of a search that is known to be sound, but for its models.

    Attributes:
        config: the search.
        scorers: the tasks.
        splits: the items of each.
    """

    config: SearchConfig
    scorers: tuple[Scorer, ...]
    splits: Mapping[str, Split]


@dataclass(frozen=True)
class Prepared(PreparedTasks):
    """A search that is known to be sound.

    Attributes:
        directory: of search.yml.
        task_search_path: where what the tasks name is looked for too.
        template: the recipe with genes, or what a genome stands for.
        checkpoints: every model that the recipe names.
        space: what is searched.
        tokenizer_model: whose config and tokenizer a candidate has, unless the recipe says otherwise.
        warnings: what a person should know before the search.
    """

    directory: Path
    task_search_path: tuple[str, ...]
    template: Mapping[str, Any]
    checkpoints: Mapping[str, Checkpoint]
    space: Space
    tokenizer_model: str
    warnings: tuple[str, ...]

    @property
    def same_depth(self) -> bool:
        """Whether all models have as many layers."""
        return len({layers_of(checkpoint) for checkpoint in self.checkpoints.values()}) == 1


def prepare_tasks(file: SearchFile) -> PreparedTasks:
    """Check what a search.yml says about tasks and items.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    search_path = find_directories(file.task_search_path, file.directory, problems)
    tasks = _tasks(file, search_path, problems)
    if problems or tasks is None:
        raise ConfigError(*map(file.document.located, problems))
    return tasks


def prepare(file: SearchFile) -> Prepared:
    """Check models, layers, recipe, tasks, metrics and item counts.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    models = _models(file, problems)
    search_path = find_directories(file.task_search_path, file.directory, problems)
    tasks = _tasks(file, search_path, problems)
    config = file.config
    if config is not None:
        problems += _unsound_settings(config, () if tasks is None else tasks.scorers)
        if config.ray.address is None:  # what a cluster's machines have only they know
            with noted(problems):
                check_installed(config.backend.name)
        for index, constraint in enumerate(config.constraints):
            with noted(problems, "constraints", index):
                load_constraints([constraint], search_path, file.directory)
        if models is not None:
            problems += misfits(config.tasks, models.template, models.tokenizer_model, models.checkpoints)
    if problems or models is None or tasks is None:
        raise ConfigError(*map(file.document.located, problems))
    return Prepared(
        config=tasks.config,
        scorers=tasks.scorers,
        splits=tasks.splits,
        directory=file.directory,
        task_search_path=tuple(map(str, search_path)),
        template=models.template,
        checkpoints=models.checkpoints,
        space=models.space,
        tokenizer_model=models.tokenizer_model,
        warnings=(
            *_warnings(tasks.scorers),
            *(notice for name in methods_of(models.template) if (notice := own_method_notice(name))),
            *failing_corners(models.space, models.checkpoints),
        ),
    )


def _models(file: SearchFile, problems: list[Problem]) -> SearchModels | None:
    """The models are looked for whatever else is wrong with the file; what they span, when its recipe is sound."""
    config = file.config
    if file.recipe is not None:
        with noted(problems, "recipe"):
            checkpoints = open_models(file.recipe, file.directory)
            return span_recipe(file.recipe, checkpoints) if file.recipe_is_sound else None
    if config is not None and config.genome is not None:
        with noted(problems, "genome"):
            return span_genome(config.genome, file.directory, config.seed if config.random_init else None)
    return None


def _tasks(file: SearchFile, search_path: Sequence[Path], problems: list[Problem]) -> PreparedTasks | None:
    """The tasks that are sound by themselves are loaded whatever else is wrong with the file."""
    with noted(problems):
        scorers = load_tasks(file.tasks, search_path, file.seed, file.directory)
        if file.config is not None:
            return PreparedTasks(file.config, scorers, split_tasks(scorers, file.config.items, file.config.seed))
    return None


def _unsound_settings(config: SearchConfig, scorers: Sequence[Scorer]) -> Iterator[Problem]:
    """What fits no task, or no machine, though each setting by itself is sound."""
    minimized = [scorer.name for scorer in scorers if scorer.direction == "minimize"]
    if config.objective == "geometric_mean" and config.normalize == "none" and minimized:
        yield Problem(
            ("objective",),
            f"geometric_mean needs scores above 0, and lower is better for {', '.join(minimized)}, so it counts below "
            "0. Set normalize: parents, or objective: worst",
        )
    for index, scorer in enumerate(scorers):
        # Who tunes on a benchmark's test set must say so: what is tuned on it cannot be compared on it.
        if is_benchmark_test(scorer) and not config.allow_benchmark_test:
            yield Problem(
                ("tasks", index),
                f"{scorer.name} is a public benchmark's test set, and what is tuned on it cannot be compared on it. "
                "Use training items, such as those of configs/tasks, or set allow_benchmark_test: true; the card will "
                "say so",
            )


def _warnings(scorers: Sequence[Scorer]) -> Iterator[str]:
    for name in benchmark_tests(scorers):
        yield f"{name} is a public benchmark's test set, used as allow_benchmark_test says; the card will say so"


def benchmark_tests(scorers: Sequence[Scorer]) -> list[str]:
    """Names of the tasks that measure on a public benchmark's test set."""
    return [scorer.name for scorer in scorers if is_benchmark_test(scorer)]


def default_threads(count: int) -> int:
    """CPU threads for each of `count` workers on this machine."""
    return max(torch.get_num_threads() // count, 1)
