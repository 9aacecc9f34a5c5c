"""A recipe with genes in it: the document as it is written, and all that it names, looked up once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from evolve.problems import Place
from evolve.space.genes import put, unshared_copy
from evolve.space.short_names import short_names
from merge_core.recipe.documents import DOCUMENTS, written_documents
from merge_core.recipe.places import ParameterSetting, named_models, parameter_settings


@dataclass(frozen=True)
class Template:
    """A recipe, as YAML data, with genes where numbers and names would stand.

    Attributes:
        document: the recipe.
        models: every model that it merges, once each, as written, in the order of the file, bases last.
        places: every model that it names, those too that only lend a tokenizer; and where it does so first.
        methods: every merge method that it stands for.
        settings: every setting of a parameter.
        run_models: name of a model that stands for the best of an earlier run → the documents that make it.
    """

    document: Mapping[str, Any]
    models: tuple[str, ...]
    places: Mapping[str, Place]
    methods: tuple[str, ...]
    settings: tuple[ParameterSetting, ...]
    run_models: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Template:
        """Look up what a recipe names."""
        models: dict[str, None] = {}
        places: dict[str, Place] = {}
        for mention in named_models(document):
            for name in possible_names(mention.value):
                places.setdefault(name, mention.place)
                if mention.merged:
                    models.setdefault(name)
        methods = possible_names(document.get("merge_method"))
        return cls(document, tuple(models), places, tuple(methods), tuple(parameter_settings(document)))

    def with_run_models(
        self, names: Mapping[str, str], documents: Mapping[str, tuple[Mapping[str, Any], ...]]
    ) -> Template:
        """The recipe with other names of some models, and the documents that make these.

        Args:
            names: as written → the name that the last of its documents has.
            documents: of each such name.
        """
        document = _renamed(self.document, names)
        return replace(Template.read(document), run_models=documents)

    def without_layers(self) -> Template:
        """The recipe without what stands under `layers`."""
        rest = {key: value for key, value in self.document.items() if key != "layers"}
        return replace(Template.read(rest), run_models=self.run_models)

    def complete(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """A recipe of these models, with the documents that make those of earlier runs: a standard one."""
        if not self.run_models:
            return recipe
        documents = written_documents(recipe)
        named = {str(mention.value) for document in documents for mention in named_models(document)}
        made = [document for name, own in self.run_models.items() if name in named for document in own]
        return {DOCUMENTS: [*made, *documents]} if made else recipe

    @property
    def layers(self) -> Any:
        """What stands where layers would be chosen; None where nothing does."""
        return self.document.get("layers")

    @property
    def base_model(self) -> Any:
        """What stands where the base model would; None where nothing does."""
        return self.document.get("base_model")

    def setting_at(self, place: Place) -> ParameterSetting | None:
        """The setting that a place is a part of, if it is of one."""
        prefixes = (place[:length] for length in range(1, len(place) + 1))
        return next((self._by_place[prefix] for prefix in prefixes if prefix in self._by_place), None)

    @cached_property
    def _by_place(self) -> Mapping[Place, ParameterSetting]:
        return {setting.place: setting for setting in self.settings}

    def labels(self) -> dict[str, str]:
        """Model -> its short name, as genes have it."""
        return short_names(self.models)


def _renamed(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A copy with other names of models, among the choices of genes, too."""
    copy: dict[str, Any] = unshared_copy(document)
    for mention in list(named_models(copy)):
        if isinstance(mention.value, str):
            put(copy, mention.place, names.get(mention.value, mention.value))
        elif isinstance(mention.value, dict) and isinstance(mention.value.get("choices"), list):
            mention.value["choices"] = [names.get(str(choice), choice) for choice in mention.value["choices"]]
    return copy


def possible_names(value: object) -> list[str]:
    """The names that can be meant in one place: the one written there, or a gene's choices."""
    if isinstance(value, str):
        return [value]
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [str(choice) for choice in choices] if isinstance(choices, list | tuple) else []
