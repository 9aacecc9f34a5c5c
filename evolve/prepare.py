"""Everything that can go wrong before a model is loaded, found from configs and headers alone, all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evolve.config import ConfigError, SearchConfig
from evolve.config_file import SearchFile
from evolve.mergekit_genome import GenomeSpace
from evolve.model_fit import failing_corners, misfits
from evolve.search_space import RecipeSpace, Space, models_of, tokenizer_models
from merge_core import Checkpoint, MergeError, ModelReference, Recipe, build_plan, resolve_model
from merge_core.architecture import find_layout
from tasks import Scorer, Split, TaskConfig, TaskError, is_benchmark_test, load_constraints, load_scorers, split_items
from tasks.backends import check_installed

DEFAULT_SEARCH_ITEMS = 100
DEFAULT_HELD_OUT_ITEMS = 200


@dataclass(frozen=True)
class Prepared:
    """A search that is known to be sound."""

    config: SearchConfig
    directory: Path  # of search.yml
    space: Space
    template: Mapping[str, Any]  # the recipe with genes, or what a genome stands for
    layer_count: int
    same_depth: bool  # whether all models have as many layers
    tokenizer_model: str
    checkpoints: Mapping[str, Checkpoint]
    scorers: tuple[Scorer, ...]
    splits: Mapping[str, Split]
    task_search_path: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PreparedTasks:
    """The tasks of a search and their items, without its models."""

    config: SearchConfig
    scorers: tuple[Scorer, ...]
    splits: Mapping[str, Split]


def prepare_tasks(file: SearchFile) -> PreparedTasks:
    """Checks what a search.yml says about tasks and items.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    search_path = _search_path(file, file.path.resolve().parent, problems)
    scorers = _load_tasks(file, file.tasks, search_path, problems)
    splits = _split(file, file.config, scorers, problems) if file.config is not None else {}
    if problems or file.config is None:
        raise ConfigError(problems or [f"{file.path.name}: could not be read"])
    return PreparedTasks(file.config, scorers, splits)


def prepare(file: SearchFile) -> Prepared:
    """Checks models, layers, recipe, tasks, metrics and item counts.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    directory = file.path.resolve().parent
    template = _template(file)
    checkpoints: dict[str, Checkpoint] = {}
    space: Space | None = None
    if template is not None:
        checkpoints = _open_models(file, template, directory, problems)
        sound = file.recipe is None or file.recipe_is_sound
        if sound and checkpoints and set(models_of(template)) <= set(checkpoints):
            space = _space(file, template, checkpoints, problems)
    search_path = _search_path(file, directory, problems)
    scorers = _load_tasks(file, file.tasks, search_path, problems)
    config = file.config
    if config is not None:
        _load_constraints(file, config, search_path, problems)
    splits = _split(file, config, scorers, problems) if config is not None else {}
    if config is not None:
        problems += _check_backend(file, config)
        problems += _check_objective(file, config, scorers)
        problems += _check_benchmarks(file, config, scorers)
    if config is not None and space is not None and template is not None:
        model = space.base_model or space.models[0]
        problems += misfits(file, config.tasks, template, model, checkpoints[model])
    if problems:
        raise ConfigError(problems)
    if config is None or space is None or template is None:
        raise ConfigError([f"{file.path.name}: could not be read"])
    depths = {layers_of(checkpoint) for checkpoint in checkpoints.values()}
    base = space.base_model or space.models[0]
    return Prepared(
        config=config,
        directory=directory,
        space=space,
        template=template,
        layer_count=layers_of(checkpoints[base]),
        same_depth=len(depths) == 1,
        tokenizer_model=base,
        checkpoints=checkpoints,
        scorers=scorers,
        splits=splits,
        task_search_path=tuple(str(path) for path in search_path),
        warnings=(*_warnings(scorers), *failing_corners(space, checkpoints)),
    )


def _check_backend(file: SearchFile, config: SearchConfig) -> Iterator[str]:
    """The engine's package must be here; what a cluster's machines have only they know."""
    try:
        if config.ray.address is None:
            check_installed(config.backend.name)
    except TaskError as error:
        yield file.place(("backend", "name"), str(error).removeprefix("backend.name: "))


def _template(file: SearchFile) -> dict[str, Any] | None:
    """The recipe, or for a genome as much of one as names the models."""
    if file.recipe is not None:
        return file.recipe
    if file.config is None or file.config.genome is None:
        return None
    genome = file.config.genome
    template: dict[str, Any] = {
        "merge_method": genome.merge_method,
        "models": [{"model": model} for model in genome.models],
        "dtype": "bfloat16",
    }
    if genome.base_model is not None:
        template["base_model"] = genome.base_model
    if genome.tokenizer_source is not None:
        template["tokenizer_source"] = genome.tokenizer_source
    return template


def _open_models(
    file: SearchFile, template: Mapping[str, Any], directory: Path, problems: list[str]
) -> dict[str, Checkpoint]:
    checkpoints = {}
    for model in [*models_of(template), *tokenizer_models(template)]:
        try:
            checkpoints[model] = Checkpoint.open(resolve_model(ModelReference.parse(model), directory))
        except MergeError as error:
            problems += [file.place(_place_of_model(file, model), line) for line in str(error).splitlines()]
    return checkpoints


def _place_of_model(file: SearchFile, model: str) -> tuple[str | int, ...]:
    """Where the file names a model first."""

    def search(node: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
        children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            found = (*path, key) if child == model else search(child, (*path, key))
            if found is not None:
                return found
        return None

    return search(file.raw, ()) or ("recipe",)


def _space(
    file: SearchFile, template: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint], problems: list[str]
) -> Space | None:
    base = template.get("base_model") or next(iter(checkpoints))
    config = file.config
    space: Space
    try:
        layer_count = layers_of(checkpoints[base if isinstance(base, str) else next(iter(checkpoints))])
        if config is not None and config.genome is not None:
            space = GenomeSpace(config.genome, layer_count, _random_start(config, layer_count))
        else:
            space = RecipeSpace.from_template(template, layer_count)
        recipe = Recipe.from_mapping(space.decode(space.start(None)), where=f"{file.path.name}: recipe")
        build_plan(recipe, checkpoints, 0)
    except ValueError as error:
        problems += [
            line if line.startswith(file.path.name) else f"{file.path.name}: {line}" for line in str(error).splitlines()
        ]
        return None
    return space


def _random_start(config: SearchConfig, layer_count: int) -> tuple[float, ...] | None:
    """mergekit-evolve's `random_init`: uniform in [0, 1] in the genes' own units."""
    if not config.random_init or config.genome is None:
        return None
    generator = random.Random(config.seed)
    genes = len(GenomeSpace(config.genome, layer_count).coordinates)
    return tuple(generator.random() for _ in range(genes))


def _search_path(file: SearchFile, directory: Path, problems: list[str]) -> list[Path]:
    written = file.raw.get("task_search_path") or ()
    paths = []
    for index, text in enumerate([written] if isinstance(written, str) else written):
        if not isinstance(text, str):
            continue
        found = next((path for path in (directory / text, Path(text)) if path.is_dir()), None)
        if found is None:
            problems.append(
                file.place(("task_search_path", index), f"{text} is not a directory beside the file or here")
            )
        else:
            paths.append(found.resolve())
    return paths


def _load_tasks(
    file: SearchFile, tasks: Mapping[int, TaskConfig], search_path: list[Path], problems: list[str]
) -> tuple[Scorer, ...]:
    if not tasks:
        return ()
    seed = file.raw.get("seed", 0)
    try:
        return load_scorers(
            tuple(tasks.values()), search_path, seed if isinstance(seed, int) else 0, file.path.resolve().parent
        )
    except TaskError as error:
        for line in str(error).splitlines():
            names = [(repr(name), index) for index, task in tasks.items() for name in (task.label, task.default_label)]
            named = {line.find(name): index for name, index in names if name in line}
            place = ("tasks", named[min(named)]) if named else ("tasks",)
            problems.append(file.place(place, line.removeprefix("tasks: ")))
        return ()


def _load_constraints(file: SearchFile, config: SearchConfig, search_path: list[Path], problems: list[str]) -> None:
    for index, constraint in enumerate(config.constraints):
        try:
            load_constraints([constraint], search_path, file.path.resolve().parent)
        except TaskError as error:
            problems += [file.place(("constraints", index), line) for line in error.problems]


def _check_objective(file: SearchFile, config: SearchConfig, scorers: tuple[Scorer, ...]) -> Iterator[str]:
    """A geometric mean needs scores above 0, and a task where lower is better counts as minus its score."""
    minimized = [scorer.name for scorer in scorers if scorer.direction == "minimize"]
    if config.objective == "geometric_mean" and config.normalize == "none" and minimized:
        yield file.place(
            ("objective",),
            f"geometric_mean needs scores above 0, and lower is better for {', '.join(minimized)}, so it counts below "
            "0. Set normalize: parents, or objective: worst",
        )


def _check_benchmarks(file: SearchFile, config: SearchConfig, scorers: tuple[Scorer, ...]) -> Iterator[str]:
    """What is tuned on a benchmark's test set cannot be compared on it; who does so must say it."""
    for index, scorer in enumerate(scorers):
        if is_benchmark_test(scorer) and not config.allow_benchmark_test:
            yield file.place(
                ("tasks", index),
                f"{scorer.name} is a public benchmark's test set, and what is tuned on it cannot be compared on it. "
                "Use training items, such as those of configs/tasks, or set allow_benchmark_test: true; the card will "
                "say so",
            )


def _warnings(scorers: tuple[Scorer, ...]) -> Iterator[str]:
    """What a person should know before the search."""
    for name in benchmark_tests(scorers):
        yield f"{name} is a public benchmark's test set, used as allow_benchmark_test says; the card will say so"


def benchmark_tests(scorers: Sequence[Scorer]) -> list[str]:
    """Names of the tasks that measure on a public benchmark's test set."""
    return [scorer.name for scorer in scorers if is_benchmark_test(scorer)]


def layers_of(checkpoint: Checkpoint) -> int:
    """Number of layers, from tensor names and config."""
    return find_layout(checkpoint).layer_count


def _split(
    file: SearchFile, config: SearchConfig, scorers: tuple[Scorer, ...], problems: list[str]
) -> dict[str, Split]:
    splits = {}
    for scorer in scorers:
        ids = scorer.item_ids()
        search, held_out = item_counts(config, len(ids))
        try:
            if config.items.order == "random":
                splits[scorer.name] = split_items(ids, search, held_out, config.seed)
            else:
                # Same checks of the counts, then the first items instead of a sample.
                split_items(ids, search, held_out, config.seed)
                splits[scorer.name] = Split(tuple(ids[:search]), tuple(ids[search : search + held_out]))
        except TaskError as error:
            problems += [f"{file.path.name}: items: {scorer.name}: {line}" for line in str(error).splitlines()]
    return splits


def item_counts(config: SearchConfig, available: int) -> tuple[int, int]:
    """How many items to search on and to hold out, where the file leaves it open."""
    search, held_out = config.items.search, config.items.held_out
    if search is None:
        limit = available - (held_out if held_out is not None else available // 2)
        # A mergekit-evolve file without `limit` holds nothing out and searches on everything.
        search = max(limit if held_out == 0 else min(DEFAULT_SEARCH_ITEMS, limit), 1)
    if held_out is None:
        held_out = max(min(DEFAULT_HELD_OUT_ITEMS, available - search), 0)
    return search, held_out


def default_threads(count: int) -> int:
    """CPU threads for each of `count` workers on this machine."""
    return max(torch.get_num_threads() // count, 1)
