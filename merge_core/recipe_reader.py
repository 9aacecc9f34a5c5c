"""YAML → `Recipe`, with every mistake of a document in one error."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from merge_core.errors import MergeError, Place, Problem, did_you_mean
from merge_core.methods import METHODS, Method, Parameter, is_parameter_of_any
from merge_core.model_reference import ModelReference
from merge_core.recipe import (
    ConditionalValue,
    ModelInput,
    OutputModule,
    OutputSlice,
    Parameters,
    Recipe,
    Scalar,
    Setting,
    SliceSource,
    TokenEmbedding,
    Tokenizer,
    TokenSource,
)
from merge_core.user_methods import find_method

T = TypeVar("T")

LARGEST = sys.float_info.max
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


def load_recipes(path: Path | str) -> tuple[Recipe, ...]:
    """Read the documents of a recipe file.

    Raises:
        MergeError: the file is missing, is not YAML, or has mistakes: every one of every document.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MergeError(f"{path}: cannot be read: {reason}. Name a recipe file") from error
    return parse_recipes(text, path.name, path.resolve().parent)


def parse_recipes(text: str, where: str = "recipe.yml", directory: Path = Path()) -> tuple[Recipe, ...]:
    """Read the documents of a recipe text; as `load_recipes`. Modules of theirs are looked for in ``directory``."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that Python cannot hold
        raise MergeError(Problem((), f"not YAML: {' '.join(str(error).split())}", where)) from error
    if not documents:
        raise MergeError(Problem((), "empty. A recipe needs merge_method and models or slices", where))
    recipes: list[Recipe] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, start=1):
        place = where if len(documents) == 1 else f"{where} (document {number})"
        try:
            recipes.append(read_recipe(document, place, directory))
        except MergeError as error:
            problems.extend(error.problems)
    if problems:
        raise MergeError(*problems)
    return tuple(recipes)


def read_recipe(mapping: object, where: str, directory: Path = Path()) -> Recipe:
    """Read one document; see `Recipe.from_mapping`."""
    reader = _Reader(where, directory)
    recipe = reader.recipe(mapping)
    if reader.problems or recipe is None:
        raise MergeError(*(dataclasses.replace(problem, document=where) for problem in reader.problems))
    return recipe


class _Reader:
    """Reads parts of a document; a mistake is noted and reading goes on."""

    def __init__(self, where: str, directory: Path) -> None:
        self.where = where
        self.directory = directory
        self.problems: list[Problem] = []
        self.method: Method | None = None

    def problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, text))

    def mapping(self, value: object, place: Place, known: Sequence[str]) -> Mapping[str, Any] | None:
        if not isinstance(value, Mapping):
            self.problem(place, f"expected a map with keys among {', '.join(known)}, got {value!r}")
            return None
        for key in value:
            if key not in known:
                self.problem(place, f'unknown key "{key}".{did_you_mean(key, known)}')
        return value

    def entries(self, value: object, place: Place, read: Callable[[object, Place], T | None]) -> tuple[T, ...] | None:
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            self.problem(place, f"expected a list with at least one entry, got {value!r}")
            return None
        results = [read(item, (*place, index)) for index, item in enumerate(value)]
        return tuple(result for result in results if result is not None)

    def reference(self, value: object, place: Place) -> ModelReference | None:
        if value is None:
            return None
        try:
            return ModelReference.parse(value)
        except MergeError as error:
            self.problems += [problem.within(*place) for problem in error.problems]
            return None

    def text(self, value: object, place: Place) -> str | None:
        if value is None or isinstance(value, str):
            return value
        self.problem(place, f"expected a text, got {value!r}")
        return None

    # The document -------------------------------------------------------------------------------------------

    def recipe(self, document: object) -> Recipe | None:
        mapping = self.mapping(document, (), RECIPE_KEYS)
        if mapping is None:
            return None
        self.method = self.merge_method(mapping.get("merge_method"))
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
        recipe_arguments: dict[str, Any] = {
            "merge_method": self.method.name if self.method is not None else "",
            "models": models,
            "slices": slices,
            "modules": modules,
            "base_model": base_model,
            "parameters": self.parameters(mapping.get("parameters"), ("parameters",)),
            "dtype": self.dtype(mapping.get("dtype"), ("dtype",)),
            "out_dtype": self.dtype(mapping.get("out_dtype"), ("out_dtype",)),
            "tokenizer_source": self.vocabulary_source(mapping.get("tokenizer_source"), ("tokenizer_source",)),
            "tokenizer": self.tokenizer(mapping.get("tokenizer")),
            "chat_template": self.text(mapping.get("chat_template"), ("chat_template",)),
            "name": self.text(mapping.get("name"), ("name",)),
            "where": self.where,
        }
        return Recipe(**recipe_arguments)

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
            self.problem(("modules",), f"expected a map from module names, got {value!r}")
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
                    self.parameters(mapping.get("parameters"), (*place, "parameters")),
                )
                results.append((str(name), module))
        return tuple(results)

    def model_input(self, value: object, place: Place) -> ModelInput | None:
        mapping = self.mapping(value, place, ("model", "parameters"))
        if mapping is None:
            return None
        model = self.required_model(mapping, place)
        parameters = self.parameters(mapping.get("parameters"), (*place, "parameters"))
        return None if model is None else ModelInput(model, parameters)

    def required_model(self, mapping: Mapping[str, Any], place: Place) -> ModelReference | None:
        if mapping.get("model") is None:
            self.problem(place, "missing key model. Example: model: org/name")
        return self.reference(mapping.get("model"), (*place, "model"))

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
            self.problem((*place, "residual_weight"), f"expected a number, got {residual!r}")
            residual = None
        return OutputSlice(
            sources,
            self.reference(mapping.get("base_model"), (*place, "base_model")),
            self.parameters(mapping.get("parameters"), (*place, "parameters")),
            residual,
        )

    def slice_source(self, value: object, place: Place) -> SliceSource | None:
        mapping = self.mapping(value, place, ("model", "layer_range", "parameters"))
        if mapping is None:
            return None
        model = self.required_model(mapping, place)
        layers = self.layer_range(mapping.get("layer_range"), (*place, "layer_range"))
        parameters = self.parameters(mapping.get("parameters"), (*place, "parameters"))
        return None if model is None or layers is None else SliceSource(model, layers, parameters)

    def layer_range(self, value: object, place: Place) -> tuple[int, int] | None:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(end, int) and not isinstance(end, bool) for end in value)
        ):
            self.problem(place, f"expected two whole numbers, first layer and end, got {value!r}. Example: [0, 16]")
            return None
        first, end = value
        if not 0 <= first < end:
            self.problem(place, f"expected 0 <= first < end, got {value!r}. [0, 16] is layers 0 to 15")
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
        for model in dict.fromkeys(models):
            # The same layers of one model twice would be one model with both weights: mergekit refuses it too.
            if models.count(model) > 1:
                self.problem(place, f'"{model}" is listed twice. List it once, with the sum of its weights')
        if method.base == "required" and base is None:
            self.problem(place, f"{method.name} needs base_model. Example: base_model: {models[0]}")
            return
        others = [model for model in models if method.base == "unused" or model != base]
        if len(others) < method.minimum_models or len(others) > (method.maximum_models or len(others)):
            self.problem(place, f"{method.name} takes {_count(method)}, got {len(others)}")

    # Parameters ---------------------------------------------------------------------------------------------

    def parameters(self, value: object, place: Place) -> Parameters:
        if value is None:
            return Parameters()
        if not isinstance(value, Mapping):
            self.problem(place, f"expected a map from parameter names, got {value!r}. Example: {{weight: 0.5}}")
            return Parameters()
        items = []
        for name, content in value.items():
            own = self.method.by_name if self.method is not None else {}
            if self.method is not None and name not in own and not is_parameter_of_any(name):
                known = list(own) or ["int8_mask"]
                self.problem(place, f'unknown parameter "{name}" of {self.method.name}.{did_you_mean(name, known)}')
                continue
            setting = self.setting(content, (*place, str(name)), own.get(name))
            if setting is not None:
                items.append((str(name), setting))
        return Parameters(tuple(items))

    def setting(self, value: object, place: Place, parameter: Parameter | None) -> Setting | None:
        if isinstance(value, Mapping):
            value = [value]
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            entries = self.entries(value, place, lambda item, at: self.conditional(item, at, parameter))
            return None if not entries else Setting(entries)
        content = self.value(value, place, parameter)
        return None if content is None else Setting((ConditionalValue(content),))

    def conditional(self, value: object, place: Place, parameter: Parameter | None) -> ConditionalValue | None:
        mapping = self.mapping(value, place, ("filter", "value"))
        if mapping is None:
            return None
        if "value" not in mapping:
            self.problem(place, "missing key value. Example: {filter: mlp, value: 0.5}")
            return None
        name_filter = self.text(mapping.get("filter"), (*place, "filter"))
        content = self.value(mapping["value"], (*place, "value"), parameter)
        return None if content is None else ConditionalValue(content, name_filter)

    def value(self, value: object, place: Place, parameter: Parameter | None) -> Scalar | tuple[Scalar, ...] | None:
        if isinstance(value, list):
            if not value:
                self.problem(place, "an empty list has no value. Example: [0, 0.5, 1]")
                return None
            scalars = [self.scalar(item, (*place, index), parameter) for index, item in enumerate(value)]
            return None if None in scalars else tuple(scalar for scalar in scalars if scalar is not None)
        return self.scalar(value, place, parameter)

    def scalar(self, value: object, place: Place, parameter: Parameter | None) -> Scalar | None:
        if not isinstance(value, (bool, int, float, str)):
            self.problem(place, f"expected a number, a list of numbers or {{filter, value}} entries, got {value!r}")
            return None
        if isinstance(value, (int, float)) and not abs(value) <= LARGEST:
            found = value if isinstance(value, float) else "one with too many digits"
            self.problem(place, f"expected a finite number, got {found}")
            return None
        if isinstance(value, str) and parameter is not None and not _is_number(value):
            expected, example = ("true or false", "true") if parameter.kind == "flag" else ("a number", "0.5")
            self.problem(place, f'expected {expected}, got "{value}". Example: {parameter.name}: {example}')
            return None
        return value

    # Tokenizer ----------------------------------------------------------------------------------------------

    def vocabulary_source(self, value: object, place: Place) -> str | ModelReference | None:
        if value in ("union", "base"):
            return str(value)
        return self.reference(value, place)

    def tokenizer(self, value: object) -> Tokenizer | None:
        if value is None:
            return None
        mapping = self.mapping(value, ("tokenizer",), ("source", "tokens", "pad_to_multiple_of"))
        if mapping is None:
            return None
        padding = mapping.get("pad_to_multiple_of")
        if padding is not None and (not isinstance(padding, int) or isinstance(padding, bool) or padding < 1):
            self.problem(("tokenizer", "pad_to_multiple_of"), f"expected a whole number from 1, got {padding!r}")
            padding = None
        tokens = mapping.get("tokens") or {}
        if not isinstance(tokens, Mapping):
            self.problem(("tokenizer", "tokens"), f"expected a map from token texts, got {tokens!r}")
            tokens = {}
        read = [
            (str(token), self.token(content, ("tokenizer", "tokens", str(token)))) for token, content in tokens.items()
        ]
        source = self.vocabulary_source(mapping.get("source"), ("tokenizer", "source"))
        return Tokenizer(
            source or "union", tuple((token, entry) for token, entry in read if entry is not None), padding
        )

    def token(self, value: object, place: Place) -> TokenEmbedding | None:
        mapping = self.mapping(value, place, ("source", "force"))
        if mapping is None:
            return None
        force = mapping.get("force", False)
        if not isinstance(force, bool):
            self.problem((*place, "force"), f"expected true or false, got {force!r}")
            force = False
        source = mapping.get("source")
        if isinstance(source, Mapping) and "kind" in source:
            return TokenEmbedding(self.token_source(source, (*place, "source")), force)
        reference = self.reference(source, (*place, "source"))
        return TokenEmbedding(None if reference is None else TokenSource("model", reference), force)

    def token_source(self, source: Mapping[str, Any], place: Place) -> TokenSource | None:
        kind = source["kind"]
        if kind == "zero":
            self.mapping(source, place, ("kind",))
            return TokenSource("zero")
        if kind != "model_token":
            self.problem(place, f'unknown kind "{kind}".{did_you_mean(kind, ["zero", "model_token"])}')
            return None
        self.mapping(source, place, ("kind", "model", "token", "token_id"))
        token, token_id = source.get("token"), source.get("token_id")
        if (token is None) == (token_id is None):
            self.problem(place, "expected exactly one of token and token_id")
        elif token_id is not None and (not isinstance(token_id, int) or isinstance(token_id, bool)):
            self.problem((*place, "token_id"), f"expected a whole number, got {token_id!r}")
        return TokenSource(
            "model_token", self.required_model(source, place), self.text(token, (*place, "token")), token_id
        )


def _count(method: Method) -> str:
    beside = " besides the base model" if method.base == "required" else ""
    if method.maximum_models == method.minimum_models:
        number = f"exactly {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    else:
        number = f"at least {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    return number + beside


def _is_number(text: str) -> bool:
    try:
        return float(text) - float(text) == 0.0
    except ValueError:
        return text.lower() in ("true", "false")
