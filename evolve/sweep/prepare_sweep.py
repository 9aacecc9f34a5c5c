"""A sweep as it is in its file: every variant prepared, before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evolve.config.reader import SearchFile, read_search
from evolve.config.schema import SearchConfig
from evolve.config.sweep import SweepConfig, Variant, variants_of
from evolve.preflight.prepare import Prepared, prepare, prepare_tasks
from evolve.preflight.search_models import open_models
from evolve.preflight.search_tasks import SearchTasks
from evolve.problems import ConfigError, Problem, problems_within
from evolve.space.genes import find_genes
from merge_core import Checkpoint, MergeError, Recipe, documents_of, plan_recipes

RunModel = tuple[Mapping[str, Any], ...]
"""The documents that make a model."""


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that is known to be sound.

    Attributes:
        config: of the file.
        directory: of the file.
        tasks: that it names.
        variants: what is compared.
        searches: name of a variant → its search; empty where recipes are compared.
        recipes: name of a variant → its recipe; empty where searches are.
        models: of the recipes.
        run_models: those of them that earlier runs found → the documents that make them.
        warnings: what a person should know before the sweep, one line each.
    """

    config: SearchConfig
    directory: Path
    tasks: SearchTasks
    variants: Sequence[Variant]
    searches: Mapping[str, Prepared]
    recipes: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Checkpoint]
    run_models: Mapping[str, RunModel]
    warnings: tuple[str, ...]


def prepare_sweep(path: Path, overrides: Mapping[str, Any]) -> PreparedSweep:
    """Read a search.yml with a `sweep` section, and prepare every variant.

    Without genes in its recipe, recipes are compared and none is searched.

    Args:
        path: the file.
        overrides: dotted path → value.

    Raises:
        ConfigError: with what is wrong with the file or any variant.
    """
    file = read_search(path, overrides, needs_genes=False)
    if file.problems or file.config is None:
        raise ConfigError(*map(file.document.located, file.problems))
    config = file.config
    if config.sweep is None:
        problem = Problem((), "has no sweep section. Example: sweep: {vary: {seed: [0, 1, 2]}}")
        raise ConfigError(file.document.located(problem))
    variants = variants_of(config.sweep, config.seed, _labels(file, config.sweep))
    files = _files(path, overrides, variants)
    genomes = config.genome is not None
    searched = {name for name, one in files.items() if genomes or any(find_genes(one.document.content["recipe"]))}
    if 0 < len(searched) < len(files):
        names = ", ".join(name for name in files if name not in searched)
        raise ConfigError(Problem(("sweep",), f"some variants hold genes and others none: {names}"))
    tasks = prepare_tasks(read_search(path, {**overrides, "sweep": None}, needs_genes=False))
    searches: dict[str, Prepared] = {}
    plain = _Recipes()
    if searched:
        searches = _prepared_searches(files)
        warnings = dict.fromkeys(line for one in searches.values() for line in one.warnings)
    else:
        _refuse_other_comparisons(variants)
        _refuse_what_only_searches_have(file)
        plain = _prepared_recipes(files, config.seed)
        warnings = plain.warnings
    return PreparedSweep(
        config,
        file.directory,
        tasks,
        variants,
        searches,
        plain.recipes,
        plain.models,
        plain.run_models,
        tuple(warnings),
    )


def _labels(file: SearchFile, sweep: SweepConfig) -> dict[str, str]:
    """Path of a setting → its name with the model's or the task's, where it is one of these."""
    found: dict[str, str] = {}
    for key in sweep.vary:
        first, *parts = key.replace("[", ".").replace("]", "").split(".")
        place = tuple(int(part) if part.isdigit() else part for part in parts)
        if first == "recipe" and file.recipe is not None:
            setting = file.recipe.setting_at(place)
            if setting is not None and isinstance(setting.model, str):
                whose = f"{setting.name}[{file.recipe.labels().get(setting.model, setting.model)}]"
                found[key] = ".".join([whose, *map(str, place[len(setting.place) :])])
        elif first == "tasks" and len(place) == 2 and isinstance(number := place[0], int) and number in file.tasks:
            found[key] = f"{place[1]}[{file.tasks[number].label}]"
    return found


def _files(path: Path, overrides: Mapping[str, Any], variants: Sequence[Variant]) -> dict[str, SearchFile]:
    """The file with each variant's settings put in."""
    found: dict[str, SearchFile] = {}
    problems: list[Problem] = []
    for variant in variants:
        try:
            settings = {**overrides, **variant.settings, "sweep": None}
            found[variant.name] = read_search(path, settings, needs_genes=False)
        except ConfigError as error:  # a setting without a place in the file
            keys = [one.document.removeprefix("--set ") for one in error.problems]
            problems += [
                replace(one, document=f"{path.name}: sweep: {key}")
                for one, key in zip(error.problems, keys, strict=True)
            ]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))  # several variants may have the same setting
    return found


def _refuse_other_comparisons(variants: Sequence[Variant]) -> None:
    keys = {key for variant in variants for key in variant.settings}
    wrong = sorted(key for key in keys if key.partition(".")[0] != "recipe")
    if wrong:
        message = f"{', '.join(wrong)}: recipes are compared on the same items in the same way. Vary recipe.… alone"
        raise ConfigError(Problem(("sweep",), message))


def _refuse_what_only_searches_have(file: SearchFile) -> None:
    """Recipes are compared by their tasks' scores alone; a table that left the rest out would be taken for more."""
    config = file.config
    if config is None:
        return
    said = {
        "constraints": bool(config.constraints),
        "cost": config.cost is not None,
        "normalize": config.normalize != "none",
        "objectives": bool(config.objectives),
    }
    message = "holds for searches, and these are recipes, which are compared by the scores of their tasks. Remove it"
    problems = [Problem((key,), message) for key, is_said in said.items() if is_said]
    if problems:
        raise ConfigError(*map(file.document.located, problems))


def _prepared_searches(files: Mapping[str, SearchFile]) -> dict[str, Prepared]:
    found: dict[str, Prepared] = {}
    problems: list[Problem] = []
    for name, file in files.items():
        try:
            found[name] = prepare(file)
        except ConfigError as error:
            problems += [replace(problem, document=f"{name}: {problem.document}") for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return found


@dataclass
class _Recipes:
    """Variants that are recipes: name → recipe, with what they name."""

    recipes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    models: dict[str, Checkpoint] = field(default_factory=dict)
    run_models: dict[str, RunModel] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, file: SearchFile, seed: int) -> None:
        """Prepare a variant.

        Raises:
            ConfigError, MergeError: with what is wrong with it.
        """
        if file.problems or file.recipe is None:
            raise ConfigError(*file.problems)
        template = file.recipe
        written = Recipe.from_mapping(template.document, where=name, directory=file.directory).to_mapping()
        for model, documents in template.run_models.items():
            if self.run_models.setdefault(model, documents) != documents:
                message = f"two runs are called {model}, here and in another variant. Give one of them another name"
                raise ConfigError(Problem(("recipe",), message))
        models = open_models(template.places, file.directory, template.run_models, seed)
        recipe = template.complete(written)
        self.warnings |= dict.fromkeys(plan_recipes(documents_of(recipe, name), models, seed).warnings)
        self.models |= models
        self.recipes[name] = recipe


def _prepared_recipes(files: Mapping[str, SearchFile], seed: int) -> _Recipes:
    found = _Recipes()
    problems: list[Problem] = []
    for name, file in files.items():
        try:
            found.add(name, file, seed)
        except (ConfigError, MergeError) as error:
            problems += [replace(problem, document=name) for problem in problems_within(error)]
    if problems:
        raise ConfigError(*problems)
    return found
