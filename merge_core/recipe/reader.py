"""YAML → the fields of a `Recipe`, with every mistake of a document in one error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from merge_core.errors import MergeError, Place, check_name, did_you_mean, shown
from merge_core.methods import METHODS, Method, common_parameters
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.part_reader import Notes, PartReader
from merge_core.recipe.parts import ModelInput, OutputModule, OutputSlice, SliceSource
from merge_core.recipe.settings_reader import SettingsReader
from merge_core.recipe.tokenizer_reader import TokenizerReader
from merge_core.recipe.user_methods import find_method

Listed = TypeVar("Listed", ModelInput, SliceSource)

DTYPES = ("float32", "float16", "bfloat16")
OUTPUT_DTYPES = (*DTYPES, "fp8", "mxfp4")
MOST_DIGITS = 10
"""Of a number of layers that is quoted."""

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


def read_fields(document: object, where: str, directory: Path, lenient: bool) -> dict[str, Any]:
    """Read one document; see `Recipe.from_mapping`.

    Returns:
        The fields of a `Recipe`, by name.
    """
    notes = Notes()
    fields = _RecipeReader(notes, where, directory).fields(document)
    ignored = [dataclasses.replace(problem, document=where) for problem in notes.ignored]
    if notes.problems or (ignored and not lenient):  # what is ignored is often why
        raise MergeError(*(dataclasses.replace(problem, document=where) for problem in notes.problems), *ignored)
    return fields | {"ignored": tuple(ignored)}


class _RecipeReader(PartReader):
    """Reads a document: its method first, which says what parameters and how many models are right."""

    def __init__(self, notes: Notes, where: str, directory: Path) -> None:
        super().__init__(notes)
        self.where = where
        self.directory = directory
        self.method: Method | None = None
        self.settings = SettingsReader(notes, None)

    def fields(self, document: object) -> dict[str, Any]:
        if isinstance(document, Mapping):
            if "experts" in document and "merge_method" not in document:
                self.problem(("experts",), "a file of mergekit-moe, no merge recipe. Run: evolve moe FILE.YML OUT")
                return {}
            self.method = self.merge_method(document.get("merge_method"))
        self.notes.advice.update(_advice(self.method))
        mapping = self.mapping(document, (), RECIPE_KEYS)
        if mapping is None:
            return {}
        is_own = ":" in str(mapping.get("merge_method"))  # whose parameters only its module says
        self.settings = SettingsReader(self.notes, self.method, {} if is_own else common_parameters())
        self.one_of(mapping, ("models", "slices", "modules"), ())
        base_model = self.reference(mapping.get("base_model"), ("base_model",))
        models = self.model_inputs(mapping.get("models") or None, ("models",))
        slices = self.entries(mapping.get("slices") or None, ("slices",), self.output_slice)
        modules = self.modules(mapping.get("modules") or None)
        self.check_models(models, base_model, ("models",))
        self.check_slices(slices, base_model, ("slices",))
        for name, module in modules or ():
            self.check_models(module.models, base_model, ("modules", name, "models"))
            self.check_slices(module.slices, base_model, ("modules", name, "slices"))
        if mapping.get("tokenizer_source") is not None and mapping.get("tokenizer") is not None:
            self.problem(("tokenizer_source",), "excludes tokenizer. Keep one: tokenizer: {source: ...}")
        vocabulary = TokenizerReader(self.notes)
        return {
            "merge_method": self.method.name if self.method is not None else "",
            "models": models,
            "slices": slices,
            "modules": modules,
            "base_model": base_model,
            "parameters": self.settings.parameters(mapping.get("parameters"), ("parameters",)),
            "dtype": self.dtype(mapping.get("dtype"), ("dtype",)),
            "out_dtype": self.dtype(mapping.get("out_dtype"), ("out_dtype",), OUTPUT_DTYPES),
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
            self.notes.problems += [problem.within("name") for problem in error.problems]
        return name

    def merge_method(self, value: object) -> Method | None:
        if value is None:
            self.problem(("merge_method",), f"missing. Known: {', '.join(METHODS)}")
            return None
        try:
            return find_method(str(value), self.directory)
        except MergeError as error:
            self.notes.problems += [problem.within("merge_method") for problem in error.problems]
            return None

    def one_of(self, mapping: Mapping[str, Any], keys: tuple[str, ...], place: Place) -> None:
        given = [key for key in keys if mapping.get(key) not in (None, [], {})]
        if len(given) != 1:
            found = "none of them" if not given else " and ".join(given)
            self.problem(place, f"expected exactly one of {', '.join(keys)}, got {found}")

    def dtype(self, value: object, place: Place, known: tuple[str, ...] = DTYPES) -> str | None:
        if value is None or str(value).removeprefix("torch.") in known:
            return None if value is None else str(value).removeprefix("torch.")
        self.problem(place, f'expected one of {", ".join(known)}, got "{value}".{did_you_mean(value, known)}')
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
                    self.model_inputs(mapping.get("models"), (*place, "models")),
                    self.entries(mapping.get("slices"), (*place, "slices"), self.output_slice),
                    self.settings.parameters(mapping.get("parameters"), (*place, "parameters")),
                )
                results.append((str(name), module))
        return tuple(results)

    def model_inputs(self, value: object, place: Place) -> tuple[ModelInput, ...] | None:
        entries = self.entries(value, place, self.model_input)
        return None if entries is None else self.once(entries, place)

    def once(self, entries: tuple[Listed, ...], place: Place) -> tuple[Listed, ...]:
        """Each model's first entry: what mergekit made of models that are listed twice, until 0.1.5 refused them."""
        first: dict[ModelReference, Listed] = {}
        for index, entry in enumerate(entries):
            if first.setdefault(entry.model, entry) is not entry:
                self.ignore((*place, index), f'"{entry.model}" is listed twice. List it once, with all of its weight')
        return tuple(first.values())

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
        at = (*place, "sources")
        sources = self.entries(mapping.get("sources"), at, self.slice_source) or ()
        if len({(source.model, source.layer_range) for source in sources}) > len({one.model for one in sources}):
            self.problem(at, "different layers of one model cannot be merged with each other. Save it under two names")
        sources = self.once(sources, at)
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
        ends = [_whole(end) for end in value] if isinstance(value, list) and len(value) == 2 else []
        first, end = ends or (None, None)
        if first is None or end is None:
            self.problem(
                place, f"expected two whole numbers, first layer and end, got {shown(value)}. Example: [0, 16]"
            )
            return None
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
            if self.method is None or self.method.base != "required":
                continue
            has_room = len(models) <= (self.method.maximum_models or len(models))
            if has_room and own_base not in (None, *models):
                first, end = output_slice.sources[0].layer_range if models else (0, 1)
                fix = f"{{model: {own_base}, layer_range: [{first}, {end}]}}"
                self.problem(at, f'the base model "{own_base}" is not among them. Add {fix}')

    def check_count(self, models: list[ModelReference], base: ModelReference | None, place: Place) -> None:
        method = self.method
        if method is None or not models:
            return
        if method.base == "required" and base is None:
            one_of_two = not method.uses_task_vectors or method.maximum_models is not None
            example = models[0] if one_of_two else "THE-MODEL-THEY-WERE-TRAINED-FROM"
            self.problem(place, f"{method.name} needs base_model. Example: base_model: {example}")
            return
        others = [model for model in models if method.base == "unused" or model != base]
        if not others and method.takes_base_alone:
            self.ignore(place, f'the base model is alone: {method.name} leaves "{base}" as it is')
        elif len(others) < method.minimum_models or len(others) > (method.maximum_models or len(others)):
            fix = ". Make one of them base_model" if base not in models and method.base == "required" else ""
            self.problem(place, f"{method.name} takes {_count(method)}, got {len(others)}{fix}")


def _whole(value: object) -> int | None:
    """A whole number, also one that is quoted or has a point; None where it is none."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < MOST_DIGITS:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _advice(method: Method | None) -> dict[str, str]:
    """What to do with keys that mean something elsewhere: people put them in many places."""
    own = () if method is None else method.by_name
    others = {name for other in METHODS.values() for name in other.by_name if name not in own}
    return {
        **dict.fromkeys(RECIPE_KEYS, "It belongs at the top level"),
        **({} if method is None else dict.fromkeys(others, f"{method.name} has no such parameter")),
        **dict.fromkeys((*own, "int8_mask"), "It belongs under parameters"),
        "layer_range": "It belongs to the sources of slices",
        "revision": "Write it after the name: MODEL@REVISION",
        "experts": "This is a file of mergekit-moe, which makes mixtures of experts: nothing here does",
        "random_seed": "It is an option of the command: --seed",
    }


def _count(method: Method) -> str:
    beside = " besides the base model" if method.base == "required" else ""
    if method.maximum_models == method.minimum_models:
        number = f"exactly {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    else:
        number = f"at least {method.minimum_models} model{'s' if method.minimum_models > 1 else ''}"
    return number + beside
