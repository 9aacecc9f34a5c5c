"""Read search.yml: every mistake in it at once, each with its line, what was found, and the fix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evolve.config.found_path import follow_found_path, is_found_path, without_layers
from evolve.config.layers_reader import check_layers
from evolve.config.looked_in import looked_in
from evolve.config.mergekit_file import MergekitSettings, from_mergekit, mergekit_settings, without_ignored
from evolve.config.run_models import with_run_models
from evolve.config.schema import SearchConfig
from evolve.config.schema_problems import schema_problems, validated
from evolve.config.yaml_document import YamlDocument, read_document
from evolve.plugins import load_plugins
from evolve.problems import ConfigError, Place, Problem, noted, problems_within
from evolve.scoring import TaskConfig, parse_task
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.space.genes import ChoiceGene, RangeGene, find_genes, looks_like_gene, parse_gene, put, unshared_copy
from evolve.space.layer_genes import merges_layers
from evolve.space.optional_models import misplaced_marks, optional_models, without_marks
from evolve.space.template import Template
from evolve.space.unread_genes import dead_genes
from merge_core import METHODS, MergeError, Recipe
from merge_core.recipe.user_methods import find_method

GENE_EXAMPLE = "Example: weight: {low: 0, high: 1}"


@dataclass(frozen=True)
class SearchFile:
    """A search.yml as far as it could be read.

    Attributes:
        path: of the file.
        document: what stands in it, overrides included.
        config: the whole configuration; None when anything is wrong with it.
        problems: all that is wrong with it.
        ignored: what mergekit-evolve passes over in its files, and we do.
        recipe: the `recipe` section, sound or not; its models can be looked for despite other mistakes.
        recipe_is_sound: whether nothing is wrong with the recipe by itself.
        tasks: those tasks that are sound by themselves, by their place in the list.
        task_search_path: as far as it is sound.
        seed: 0 where it is not sound.
    """

    path: Path
    document: YamlDocument
    config: SearchConfig | None
    problems: tuple[Problem, ...]
    ignored: tuple[Problem, ...]
    recipe: Template | None
    recipe_is_sound: bool
    tasks: Mapping[int, TaskConfig]
    task_search_path: tuple[str, ...]
    seed: int

    @property
    def directory(self) -> Path:
        """Where what the file names is looked for first."""
        return looked_in(self.path, self.document.content)

    @property
    def ignored_lines(self) -> tuple[str, ...]:
        """What is ignored, a line each."""
        return tuple(f"ignored: {self.document.located(found)}" for found in self.ignored)


def read_search(
    path: Path, overrides: Mapping[str, Any] | None = None, *, needs_genes: bool = True, strict: bool = False
) -> SearchFile:
    """Read a search.yml and put `--set` overrides in.

    Args:
        path: the file.
        overrides: dotted path ("budget.evaluations") -> value.
        needs_genes: whether a recipe without any is a mistake.
        strict: keys of mergekit-evolve's files that mean nothing are mistakes, too; in ours they always are.

    Raises:
        ConfigError: the file cannot be read, or is not a YAML mapping; or an override has no place in it.
    """
    return understand_search(read_document(path, overrides or {}), path, needs_genes=needs_genes, strict=strict)


def understand_search(
    document: YamlDocument, path: Path, *, needs_genes: bool = True, strict: bool = False
) -> SearchFile:
    """What a search says, wherever it was written.

    Args:
        document: the search.
        path: its file; or, of one that is in none, a name in the directory where what it names is looked for.
        needs_genes, strict: as of `read_search`.
    """
    load_plugins()
    problems = list(document.problems)
    search, directory = document.content, looked_in(path, document.content)
    if _is_recipe(search):
        raise ConfigError(
            Problem(
                (),
                "is a merge recipe, not a search: evolve merge makes its model. To search, put it under recipe: with "
                "{low: 0, high: 1} in the place of a number, and name tasks: beside it",
                path.name,
            )
        )
    ignored: tuple[Problem, ...] = ()
    if "genome" in search and "recipe" not in search:
        search, ignored = without_ignored(search)
        settings = validated(MergekitSettings, mergekit_settings(search), problems)
        search = from_mergekit(search, settings or MergekitSettings())
        problems += ignored if strict else ()
    if isinstance(search.get("recipe"), dict) and is_found_path(search["recipe"]):
        followed = None
        with noted(problems, "recipe"):
            followed = follow_found_path(search["recipe"], directory)
        search = {**search, "recipe": followed or without_layers(search["recipe"])}
    written = search.get("task_search_path")
    search_path = tuple(text for text in (written if isinstance(written, list) else [written]) if isinstance(text, str))
    search_paths = SearchPaths(directory, tuple(directory / text for text in search_path))
    config = validated(SearchConfig, search, problems, search_paths)
    recipe = Template.read(search["recipe"]) if isinstance(search.get("recipe"), dict) else None
    if config is None and "recipe" not in search and "genome" not in search:
        problems.append(Problem(("recipe",), "missing. A merge recipe with genes in it"))
    if recipe is not None:
        with noted(problems, "recipe"):
            recipe = with_run_models(recipe, directory, search["seed"] if isinstance(search.get("seed"), int) else 0)
    advice = GENE_EXAMPLE if search.get("sweep") is None else f"To run its sweep: evolve sweep {path}"
    recipe_problems = list(check_template(recipe, directory, needs_genes, advice)) if recipe is not None else []
    problems += [problem.within("recipe") for problem in recipe_problems]
    return SearchFile(
        path=path,
        document=document,
        config=None if problems else config,
        problems=tuple(problems),
        ignored=ignored,
        recipe=recipe,
        recipe_is_sound=recipe is not None and not recipe_problems,
        tasks=dict(_sound_tasks(search.get("tasks"))),
        task_search_path=search_path,
        seed=search["seed"] if isinstance(search.get("seed"), int) else 0,
    )


def _is_recipe(content: Mapping[str, Any]) -> bool:
    return "recipe" not in content and "genome" not in content and bool({"merge_method", "slices"} & content.keys())


def check_template(
    template: Template, directory: Path, needs_genes: bool = True, advice: str = GENE_EXAMPLE
) -> Iterator[Problem]:
    """What is wrong with a recipe that has genes in it: with each gene, and with one of the recipes it stands for.

    Args:
        template: the recipe.
        directory: where a module that it names is looked for.
        needs_genes: whether a recipe without any is a mistake.
        advice: what to do about that.
    """
    if looks_like_gene(template.document):
        yield Problem((), "is a gene; expected a recipe with merge_method and models, in which genes stand for numbers")
        return
    filled: Any = unshared_copy(template.document)
    layers = filled.pop("layers", None)
    genes = list(find_genes({key: value for key, value in template.document.items() if key != "layers"}))
    marks = list(misplaced_marks(template))
    yield from marks
    others = list(_other_ranges(template.document))
    yield from others
    if marks or others:
        return
    filled = without_marks(filled)
    if layers is not None:
        misplaced = list(check_layers(template))
        yield from misplaced
        if misplaced or not merges_layers(template):
            return
    if not genes and needs_genes and layers is None and not optional_models(template.document):
        yield Problem((), f"holds no gene, so there is nothing to search. {advice}")
        return
    complained: set[int] = set()
    names: dict[Place, str | None] = {}
    for path, node in genes:
        try:
            gene = parse_gene(node, path)
        except ValidationError as error:
            if id(node) not in complained:  # an anchor is one mistake, however often it is used
                for problem in schema_problems(error, node, ChoiceGene, RangeGene):
                    yield problem.within(*path)
            complained.add(id(node))
            put(filled, path, 0.5)  # the rest of the recipe is looked at all the same
        else:
            names[path] = gene.name
            yield from _meaningless(gene, path, template)
            put(filled, path, gene.value(gene.unit(gene.init) if gene.init is not None else 0.5))  # type: ignore[arg-type]
    if isinstance(template.document.get("merge_method"), Mapping):
        for index, name in enumerate(template.methods):
            try:
                filled["merge_method"] = find_method(name, directory).name
            except MergeError as error:
                yield from problems_within(error, "merge_method", "choices", index)
    try:
        Recipe.from_mapping(filled, where="", directory=directory)
    except MergeError as error:  # a misspelt parameter is no gene that nobody reads
        yield from problems_within(error)
        return
    yield from dead_genes(template, names)


def _meaningless(gene: RangeGene | ChoiceGene, path: Place, template: Template) -> Iterator[Problem]:
    """Values that a gene can take and its parameter cannot: each candidate with one would fail."""
    setting = template.setting_at(path)
    if setting is None or isinstance(gene, ChoiceGene):
        return
    for name in template.methods:
        parameter = METHODS[name].by_name.get(setting.name) if name in METHODS else None
        if parameter is not None and not parameter.least <= gene.low < gene.high <= parameter.most:
            bounds = f"from {parameter.least:g} to {parameter.most:g}"
            found = f"low {gene.low:g} and high {gene.high:g}"
            yield Problem(path, f"{setting.name} of {name} lies {bounds}, got {found}")


def _other_ranges(node: Any, place: Place = ()) -> Iterator[Problem]:
    """Ranges as other programs write them, where they are nothing to a recipe."""
    if isinstance(node, Mapping) and {"min", "max"} <= node.keys():
        written = f"{{low: {node['min']}, high: {node['max']}}}"
        yield Problem(place, f"a gene has low and high, got min and max. Write {written}")
    elif isinstance(node, Mapping | list):
        for key, inner in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _other_ranges(inner, (*place, key))


def _sound_tasks(written: Any) -> Iterator[tuple[int, TaskConfig]]:
    for index, task in enumerate(written if isinstance(written, list) else ()):
        with contextlib.suppress(ValidationError):  # said already, with the whole configuration
            yield index, parse_task(task)
