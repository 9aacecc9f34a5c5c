"""YAML → the fields of a `Recipe`, with every mistake of a document in one error."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, Place, check_name, did_you_mean, shown
from merge_core.methods import METHODS, Method
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.part_reader import PartReader
from merge_core.recipe.parts import ModelInput, OutputModule, OutputSlice, SliceSource
from merge_core.recipe.settings_reader import SettingsReader
from merge_core.recipe.tokenizer_reader import TokenizerReader
from merge_core.recipe.user_methods import find_method

DTYPES = ("float32", "float16", "bfloat16")
RECIPE_KEYS = (
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "name",
)


def read_fields(document: object, where: str, directory: Path = Path()) -> dict[str, Any]:
    """Read one document; see `Recipe.from_mapping`.

    Returns:
        The fields of a `Recipe`, by name.
    """
    reader = _RecipeReader(where, directory)
    fields = reader.fields(document)
    if reader.problems:
        raise MergeError(*(dataclasses.replace(problem, document=where) for problem in reader.problems))
    return fields


class _RecipeReader(PartReader):
    """Reads a document: its method first, which says what parameters and how many models are right."""

    def __init__(self, where: str, directory: Path) -> None:
        super().__init__([])
        self.where = where
        self.directory = directory
        self.method: Method | None = None
        self.settings = SettingsReader(self.problems, None)

    def fields(self, document: object) -> dict[str, Any]:
        mapping = self.mapping(document, (), RECIPE_KEYS)
        if mapping is None:
            return {}
        self.method = self.merge_method(mapping.get("merge_method"))
        self.settings = SettingsReader(self.problems, self.method)
        self.one_of(mapping, ("models", "slices", "modules"), ())
        base_model = self.reference(mapping.get("base_model"), ("base_model",))
        models = self.entries(mapping.get("models"), ("models",), self.model_input)
        slices = self.entries(mapping.get("slices"), ("slices",), self.output_slice)
        modules = self.modules(mapping.get("modules"))
        self.check_models(models, base_model, ("models",))
        self.check_slices(slices, base_model, ("slices",))
        for name, module in modules or ():
            self.check_models(module.models, base_model, ("modules", name, "models"))
            self.check_slices(module.slices, base_model, ("modules", name, "slices"))
        if mapping.get("tokenizer_source") is not None and mapping.get("tokenizer") is not None:
            self.problem(("tokenizer_source",), "excludes tokenizer. Keep one: tokenizer: {source: ...}")
        vocabulary = TokenizerReader(self.problems)
        return {
            "merge_method": self.method.name if self.method is not None else "",
            "models": models,
            "slices": slices,
            "modules": modules,
            "base_model": base_model,
            "parameters": self.settings.parameters(mapping.get("parameters"), ("parameters",)),
            "dtype": self.dtype(mapping.get("dtype"), ("dtype",)),
            "out_dtype": self.dtype(mapping.get("out_dtype"), ("out_dtype",)),
            "tokenizer_source": vocabulary.vocabulary_source(mapping.get("tokenizer_source"), ("tokenizer_source",)),
            "tokenizer": vocabulary.read(mapping.get("tokenizer")),
            "chat_template": self.text(mapping.get("chat_template"), ("chat_template",)),
            "name": self.name(mapping.get("name")),
            "where": self.where,
        }

    def name(self, value: object) -> str | None:
        name = self.text(value, ("name",))
        try:
            check_name(name or "")
        except MergeError as error:
            self.problems += [problem.within("name") for problem in error.problems]
        return name

    def merge_method(self, value: object) -> Method | None:
        if value is None:
            self.problem(("merge_method",), f"missing. Known: {', '.join(METHODS)}")
            return None
        try:
            return find_method(str(value), self.directory)
        except MergeError as error:
            self.problems += [problem.within("merge_method") for problem in error.problems]
            return None

    def one_of(self, mapping: Mapping[str, Any], keys: tuple[str, ...], place: Place) -> None:
        given = [key for key in keys if mapping.get(key) is not None]
        if len(given) != 1:
            found = "none of them" if not given else " and ".join(given)
            self.problem(place, f"expected exactly one of {', '.join(keys)}, got {found}")

    def dtype(self, value: object, place: Place) -> str | None:
        if value is None or value in DTYPES:
            return value
        self.problem(place, f'expected one of {", ".join(DTYPES)}, got "{value}".{did_you_mean(value, DTYPES)}')
        return None

    def modules(self, value: object) -> tuple[tuple[str, OutputModule], ...] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping) or not value:
            self.problem(("modules",), f"expected a map from module names, got {shown(value)}")
            return None
        results = []
        for name, content in value.items():
            place = ("modules", str(name))
            mapping = self.mapping(content, place, ("models", "slices", "parameters"))
            if mapping is not None:
                self.one_of(mapping, ("models", "slices"), place)
                module = OutputModule(
                    self.entries(mapping.get("models"), (*place, "models"), self.model_input),
                    self.entries(mapping.get("slices"), (*place, "slices"), self.output_slice),
                    self.settings.parameters(mapping.get("parameters"), (*place, "parameters")),
                )
                results.append((str(name), module))
        return tuple(results)

    def model_input(self, value: object, place: Place) -> ModelInput | None:
        mapping = self.mapping(value, place, ("model", "parameters"))
        if mapping is None:
            return None
        model = self.required_model(mapping, place)
        parameters = self.settings.parameters(mapping.get("parameters"), (*place, "parameters"))
        return None if model is None else ModelInput(model, parameters)

    def output_slice(self, value: object, place: Place) -> OutputSlice | None:
        mapping = self.mapping(value, place, ("sources", "base_model", "parameters", "residual_weight"))
        if mapping is None:
            return None
        if mapping.get("sources") is None:
            self.problem(place, "missing key sources. Example: sources: [{model: org/name, layer_range: [0, 16]}]")
        sources = self.entries(mapping.get("sources"), (*place, "sources"), self.slice_source) or ()
        lengths = {source.layer_range[1] - source.layer_range[0] for source in sources}
        if len(lengths) > 1:
            ranges = ", ".join(f"{source.model} {list(source.layer_range)}" for source in sources)
            self.problem(place, f"all sources of a slice need as many layers, got {ranges}")
        residual = mapping.get("residual_weight")
        if residual is not None and (isinstance(residual, bool) or not isinstance(residual, (int, float))):
            self.problem((*place, "residual_weight"), f"expected a number, got {shown(residual)}")
            residual = None
        return OutputSlice(
            sources,
            self.reference(mapping.get("base_model"), (*place, "base_model")),
            self.settings.parameters(mapping.get("parameters"), (*place, "parameters")),
            residual,
        )

    def slice_source(self, value: object, place: Place) -> SliceSource | None:
        mapping = self.mapping(value, place, ("model", "layer_range", "parameters"))
        if mapping is None:
            return None
        model = self.required_model(mapping, place)
        layers = self.layer_range(mapping.get("layer_range"), (*place, "layer_range"))
        parameters = self.settings.parameters(mapping.get("parameters"), (*place, "parameters"))
        return None if model is None or layers is None else SliceSource(model, layers, parameters)

    def layer_range(self, value: object, place: Place) -> tuple[int, int] | None:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(end, int) and not isinstance(end, bool) for end in value)
        ):
            self.problem(
                place, f"expected two whole numbers, first layer and end, got {shown(value)}. Example: [0, 16]"
            )
            return None
        first, end = value
        if not 0 <= first < end:
            self.problem(place, f"expected 0 <= first < end, got {shown(value)}. [0, 16] is layers 0 to 15")
            return None
        return first, end

    # Counts of models ---------------------------------------------------------------------------------------

    def check_models(self, models: tuple[ModelInput, ...] | None, base: ModelReference | None, place: Place) -> None:
        if models is not None:
            self.check_count([entry.model for entry in models], base, place)

    def check_slices(self, slices: tuple[OutputSlice, ...] | None, base: ModelReference | None, place: Place) -> None:
        for index, output_slice in enumerate(slices or ()):
            own_base = output_slice.base_model or base
            models = [source.model for source in output_slice.sources]
            at = (*place, index, "sources")
            self.check_count(models, own_base, at)
            if self.method is not None and self.method.base == "required" and own_base not in (None, *models):
                first, end = output_slice.sources[0].layer_range if models else (0, 1)
                fix = f"{{model: {own_base}, layer_range: [{first}, {end}]}}"
                self.problem(at, f'the base model "{own_base}" is not among them. Add {fix}')

    def check_count(self, models: list[ModelReference], base: ModelReference | None, place: Place) -> None:
        method = self.method
        if method is None or not models:
            return
        for model, count in Counter(models).items():
            # The same layers of one model twice would be one model with both weights: mergekit refuses it too.
            if count > 1:
                self.problem(place, f'"{model}" is listed twice. List it once, with the sum of its weights')
        if method.base == "required" and base is None:
            self.problem(place, f"{method.name} needs base_model. Example: base_model: {models[0]}")
            return
        others = [model for model in models if method.base == "unused" or model != base]
        if len(others) < method.minimum_models or len(others) > (method.maximum_models or len(others)):
            self.problem(place, f"{method.name} takes {_count(method)}, got {len(others)}")


def _count(method: Method) -> str:
    beside = " besides the base model" if method.base == "required" else ""
    if method.maximum_models == method.minimum_models:
        number = f"exactly {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    else:
        number = f"at least {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    return number + beside
