"""What `evolve eval` scores: a model as it is, or a recipe that is merged in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evolve.config.looked_in import looked_in_by_recipe
from evolve.problems import ConfigError, Problem, problems_within
from evolve.space.genes import find_genes
from merge_core import MergeError, ModelReference, Recipe, load_recipes, merge
from merge_core.plan.plan_documents import plan_documents
from merge_core.recipe.documents import documents_of, order_documents, written_documents
from merge_core.recipe.ignored import ignored_warnings
from merge_core.yaml_text import read_yaml


@dataclass(frozen=True)
class EvalModel:
    """Something to score.

    Attributes:
        label: as the user wrote it.
        documents: recipes; each after those it uses by name, the one to score last.
        relative_to: where local models are looked for first.
        warnings: what a person should know of its merge, one line each.
    """

    label: str
    documents: tuple[Recipe, ...]
    relative_to: Path
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe to score, as plain data."""
        return self.documents[-1].to_mapping()

    @property
    def models(self) -> tuple[str, ...]:
        """Every model and result of another document that the recipe names, the base model first."""
        return tuple(str(reference) for reference in self.documents[-1].references())

    def merge_intermediates(self, stack: ExitStack, seed: int) -> dict[str, Path]:
        """Merge the documents before the last to disk; return name -> directory.

        Args:
            stack: removes them when it is closed.
            seed: of randomised methods.
        """
        made: dict[str, Path] = {}
        if len(self.documents) > 1:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="evolve-eval-")))
            for number, document in enumerate(self.documents[:-1]):
                target = root / str(number)
                merge(document, target, relative_to=self.relative_to, seed=seed, models=made)
                made[str(document.name)] = target
        return made


def read_models(given: Sequence[str | Mapping[str, Any]], seed: int) -> list[EvalModel]:
    """Models (a directory, a hub id, MODEL+ADAPTER) and recipes (.yml, .yaml, data), opened as far as their headers.

    A recipe that is data is called by its `name`, or by its place among what is given.

    Raises:
        ConfigError: with everything that is wrong with any of them.
    """
    models: list[EvalModel] = []
    problems: list[Problem] = []
    named = {
        one if isinstance(one, str) else str(one.get("name") or f"recipe {place}"): one
        for place, one in enumerate(given, start=1)
    }
    for text, one in named.items():
        try:
            model = _read(text) if isinstance(one, str) else EvalModel(text, settled_recipe(one, text), Path.cwd())
            plans = plan_documents(model.documents, model.relative_to, seed)
        except (MergeError, ConfigError) as error:
            problems += [
                found if found.document else dataclasses.replace(found, document=text)
                for found in problems_within(error)
            ]
        else:
            told = [*ignored_warnings(model.documents), *(line for plan in plans if plan for line in plan.warnings)]
            models.append(dataclasses.replace(model, warnings=tuple(dict.fromkeys(told))))
    if problems:
        raise ConfigError(*problems)
    return models


def _read(text: str) -> EvalModel:
    path = Path(text)
    if path.suffix in (".yml", ".yaml"):
        refuse_searches(path)
        return EvalModel(text, order_documents(load_recipes(path)), looked_in_by_recipe(path))
    reference = ModelReference.parse(text)
    alone = Recipe.from_mapping({"merge_method": "passthrough", "models": [{"model": str(reference)}]}, where=text)
    return EvalModel(text, (alone,), Path.cwd())


def refuse_searches(path: Path) -> None:
    """A search, or a recipe with genes, stands for many models. What cannot be read is left to the recipe's reader.

    Raises:
        ConfigError: it is one.
    """
    try:
        documents = read_yaml(path)
    except MergeError:
        return
    for document in documents:
        _refuse_search(document, str(path))


def settled_recipe(content: Mapping[str, Any], where: str) -> tuple[Recipe, ...]:
    """The documents of a recipe that is data, for one model, the result last.

    Args:
        content: the recipe.
        where: what names it in messages.

    Raises:
        ConfigError: it is a search, or has genes.
        MergeError: with everything that is wrong with it.
    """
    for document in written_documents(content):
        _refuse_search(document, where)
    return order_documents(documents_of(content, where))


def _refuse_search(document: Any, where: str) -> None:
    if isinstance(document, Mapping) and ("tasks" in document or "recipe" in document):
        message = "is a search, not a recipe. Name the best_recipe.yml of its run"
        raise ConfigError(Problem((), message, where))
    gene = next(iter(find_genes(document)), None)
    if gene is not None:
        message = "is a range to search and not a value. Put a number there"
        raise ConfigError(Problem(gene[0], message, where))
