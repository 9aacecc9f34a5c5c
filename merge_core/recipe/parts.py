"""What a recipe is made of, as frozen data: settings of parameters, models, slices, modules, the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from merge_core.recipe.model_reference import ModelReference

Scalar = bool | int | float | str
"""A parameter value in a recipe. Strings are numbers that YAML 1.1 does not read as such, like ``1e-5``."""


@dataclass(frozen=True, slots=True)
class ConditionalValue:
    """A value, or a gradient of values, for the tensors whose name contains ``filter``.

    Attributes:
        value: a scalar, or a tuple of scalars to interpolate over the layers.
        filter: a substring of tensor names; None and ``*`` stand for every tensor.
    """

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None

    def matches(self, tensor_name: str) -> bool:
        """Whether this entry decides for the tensor."""
        return self.filter is None or self.filter == "*" or self.filter in tensor_name

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"value": value} if self.filter is None else {"filter": self.filter, "value": value}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a recipe says about one parameter: entries in order, the first that matches a tensor decides."""

    entries: tuple[ConditionalValue, ...]

    def to_mapping(self) -> object:
        """Plain YAML data: the bare value when there is no filter."""
        if len(self.entries) == 1 and self.entries[0].filter is None:
            return self.entries[0].to_mapping()["value"]
        return [entry.to_mapping() for entry in self.entries]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameter name → setting, in the order of the recipe. Hashable."""

    items: tuple[tuple[str, Setting], ...] = ()

    def get(self, name: str) -> Setting | None:
        """The setting of a parameter, None when the recipe has none here."""
        for key, setting in self.items:
            if key == name:
                return setting
        return None

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items)

    def __bool__(self) -> bool:
        return bool(self.items)

    def over(self, outer: Parameters) -> Parameters:
        """These parameters, and for what they leave open those of the next level."""
        levels = dict(self.items)
        for name, setting in outer.items:
            levels[name] = Setting((*levels[name].entries, *setting.entries)) if name in levels else setting
        return Parameters(tuple(levels.items()))

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        return {name: setting.to_mapping() for name, setting in self.items}


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An entry of ``models``: a whole model."""

    model: ModelReference
    parameters: Parameters = Parameters()

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        return without_empty({"model": self.model.to_mapping(), "parameters": self.parameters.to_mapping()})


@dataclass(frozen=True, slots=True)
class SliceSource:
    """An entry of ``sources``: layers ``first`` to ``last − 1`` of a model."""

    model: ModelReference
    layer_range: tuple[int, int]
    parameters: Parameters = Parameters()

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        return without_empty(
            {
                "model": self.model.to_mapping(),
                "layer_range": list(self.layer_range),
                "parameters": self.parameters.to_mapping(),
            }
        )


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """An entry of ``slices``: consecutive layers of the result.

    ``residual_weight`` is part of the language and changes nothing, there as here.
    """

    sources: tuple[SliceSource, ...]
    base_model: ModelReference | None = None
    parameters: Parameters = Parameters()
    residual_weight: float | None = None

    @property
    def layer_count(self) -> int:
        """How many layers of the result it makes."""
        first, end = self.sources[0].layer_range
        return end - first

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        return without_empty(
            {
                "sources": [source.to_mapping() for source in self.sources],
                "base_model": None if self.base_model is None else self.base_model.to_mapping(),
                "parameters": self.parameters.to_mapping(),
                "residual_weight": self.residual_weight,
            }
        )


@dataclass(frozen=True, slots=True)
class OutputModule:
    """An entry of ``modules``: one tower of a model that has several."""

    models: tuple[ModelInput, ...] | None = None
    slices: tuple[OutputSlice, ...] | None = None
    parameters: Parameters = Parameters()

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        return without_empty(inputs_mapping(self.models, self.slices) | {"parameters": self.parameters.to_mapping()})


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where the embedding of one token of the output vocabulary comes from.

    Attributes:
        kind: ``model`` (the token's own row in ``model``), ``model_token`` (the row of another token), ``zero``.
        model: the model to read from, None for ``zero``.
        token: the other token, by text.
        token_id: the other token, by row.
    """

    kind: str
    model: ModelReference | None = None
    token: str | None = None
    token_id: int | None = None

    def to_mapping(self) -> object:
        """Plain YAML data."""
        model = None if self.model is None else self.model.to_mapping()
        if self.kind == "model":
            return model
        return without_empty({"kind": self.kind, "model": model, "token": self.token, "token_id": self.token_id})


@dataclass(frozen=True, slots=True)
class TokenEmbedding:
    """An entry of ``tokenizer.tokens``."""

    source: TokenSource | None = None
    force: bool = False

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        source = None if self.source is None else self.source.to_mapping()
        return without_empty({"source": source, "force": self.force or None})


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The ``tokenizer`` block.

    Attributes:
        source: ``"union"``, ``"base"`` or a model.
        tokens: token text → where its embedding comes from.
        pad_to_multiple_of: pad the vocabulary to a multiple of this.
    """

    source: str | ModelReference = "union"
    tokens: tuple[tuple[str, TokenEmbedding], ...] = ()
    pad_to_multiple_of: int | None = None

    def to_mapping(self) -> dict[str, object]:
        """Plain YAML data."""
        source = self.source if isinstance(self.source, str) else self.source.to_mapping()
        tokens = {token: embedding.to_mapping() for token, embedding in self.tokens}
        return without_empty({"source": source, "tokens": tokens, "pad_to_multiple_of": self.pad_to_multiple_of})


def inputs_mapping(models: tuple[ModelInput, ...] | None, slices: tuple[OutputSlice, ...] | None) -> dict[str, object]:
    """Plain YAML data of what is merged."""
    return {
        "models": None if models is None else [entry.to_mapping() for entry in models],
        "slices": None if slices is None else [output_slice.to_mapping() for output_slice in slices],
    }


def without_empty(mapping: dict[str, object]) -> dict[str, object]:
    """The keys that say something."""
    return {key: value for key, value in mapping.items() if value is not None and value != {}}
