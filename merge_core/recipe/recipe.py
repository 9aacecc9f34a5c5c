"""A recipe: one document of the recipe language. What it does is in `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from merge_core.bounds import RECIPE_BYTES
from merge_core.errors import MergeError, Problem
from merge_core.input_files import read_text
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.parts import (
    ModelInput,
    OutputModule,
    OutputSlice,
    Parameters,
    Tokenizer,
    inputs_mapping,
    without_empty,
)
from merge_core.recipe.places import named_models
from merge_core.recipe.reader import read_fields
from merge_core.yaml_text import FIX, parse_yaml


@dataclass(frozen=True, slots=True)
class Recipe:
    """One document of a recipe file. Exactly one of ``models``, ``slices`` and ``modules`` is given.

    What its file says and nothing reads is in ``ignored``, as mistakes for those who want it told so.

    >>> recipe = Recipe.from_mapping({"merge_method": "passthrough", "models": [{"model": "org/name"}]})
    >>> [str(reference) for reference in recipe.references()]
    ['org/name']
    """

    merge_method: str
    models: tuple[ModelInput, ...] | None = None
    slices: tuple[OutputSlice, ...] | None = None
    modules: tuple[tuple[str, OutputModule], ...] | None = None
    base_model: ModelReference | None = None
    parameters: Parameters = field(default_factory=Parameters)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | ModelReference | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    name: str | None = None
    where: str = field(default="recipe.yml", compare=False)
    ignored: tuple[Problem, ...] = field(default=(), compare=False)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        where: str = "recipe.yml",
        directory: Path = Path(),
        *,
        lenient: bool = False,
    ) -> Recipe:
        """Read a recipe from YAML data.

        Args:
            mapping: the document as `yaml.safe_load` gives it.
            where: the file's name, for messages; empty when the caller knows it.
            directory: where a module is looked for that ``merge_method: module:function`` names.
            lenient: whether what has no effect is no mistake but noted in ``ignored``.

        Raises:
            MergeError: with every mistake in the document.
        """
        return cls(**read_fields(mapping, where, directory, lenient))

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data that reads back as an equal recipe, references as the user wrote them."""
        tokenizer_source = self.tokenizer_source
        if isinstance(tokenizer_source, ModelReference):
            tokenizer_source = tokenizer_source.to_mapping()  # type: ignore[assignment]
        modules = None if self.modules is None else {name: module.to_mapping() for name, module in self.modules}
        return without_empty(
            {
                "name": self.name,
                "merge_method": self.merge_method,
                "base_model": None if self.base_model is None else self.base_model.to_mapping(),
                **inputs_mapping(self.models, self.slices),
                "modules": modules,
                "parameters": self.parameters.to_mapping(),
                "dtype": self.dtype,
                "out_dtype": self.out_dtype,
                "tokenizer_source": tokenizer_source,
                "tokenizer": None if self.tokenizer is None else self.tokenizer.to_mapping(),
                "chat_template": self.chat_template,
            }
        )

    def to_yaml(self) -> str:
        """The recipe as a YAML document."""
        return dump_recipes((self,))

    def references(self) -> tuple[ModelReference, ...]:
        """Every model the recipe names, once, in order of first mention; the base model first of all."""
        return self._named(vocabularies=True)

    def merged_models(self) -> tuple[ModelReference, ...]:
        """As `references`, without the models of which only tokenizer or tokens are used."""
        return self._named(vocabularies=False)

    def _named(self, vocabularies: bool) -> tuple[ModelReference, ...]:
        mentions = [mention for mention in named_models(self.to_mapping()) if mention.merged or vocabularies]
        found = [ModelReference.parse(mention.value) for mention in mentions]
        return tuple(dict.fromkeys(found if self.base_model is None else [self.base_model, *found]))


def dump_recipes(recipes: tuple[Recipe, ...]) -> str:
    """Write recipes as one YAML file, documents separated by ``---``."""
    return yaml.safe_dump_all(
        [recipe.to_mapping() for recipe in recipes], sort_keys=False, allow_unicode=True, width=110
    )


def load_recipes(path: Path | str) -> tuple[Recipe, ...]:
    """Read the documents of a recipe file, which may say things that have no effect: see `ignored`.

    Raises:
        MergeError: the file is missing, is not YAML, or has mistakes: every one of every document.
    """
    path = Path(path)
    return parse_recipes(read_text(path, RECIPE_BYTES, FIX), path.name, path.resolve().parent)


def parse_recipes(text: str, where: str = "recipe.yml", directory: Path = Path()) -> tuple[Recipe, ...]:
    """Read the documents of a recipe text; as `load_recipes`. Modules of theirs are looked for in ``directory``."""
    documents = [document for document in parse_yaml(text, where) if document is not None]
    if not documents:
        raise MergeError(Problem((), "empty. A recipe needs merge_method and models or slices", where))
    recipes: list[Recipe] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, start=1):
        place = where if len(documents) == 1 else f"{where} (document {number})"
        try:
            recipes.append(Recipe.from_mapping(document, place, directory, lenient=True))
        except MergeError as error:
            problems.extend(error.problems)
    if problems:
        raise MergeError(*problems)
    return tuple(recipes)
