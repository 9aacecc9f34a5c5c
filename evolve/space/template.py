"""A recipe with genes in it: the document as it is written, and all that it names, looked up once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from evolve.problems import Place
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
    """

    document: Mapping[str, Any]
    models: tuple[str, ...]
    places: Mapping[str, Place]
    methods: tuple[str, ...]
    settings: tuple[ParameterSetting, ...]

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
        """Short names for models: the last part of the path, or the whole reference where that is ambiguous."""
        short = {model: PurePosixPath(model).name or model for model in self.models}
        ambiguous = {label for label, times in Counter(short.values()).items() if times > 1}
        return {model: (model if label in ambiguous else label) for model, label in short.items()}


def possible_names(value: object) -> list[str]:
    """The names that can be meant in one place: the one written there, or a gene's choices."""
    if isinstance(value, str):
        return [value]
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [str(choice) for choice in choices] if isinstance(choices, list | tuple) else []
