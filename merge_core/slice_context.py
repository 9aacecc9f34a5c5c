"""One output slice while it is planned: its sources, its base, its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from merge_core.checkpoint_reader import Checkpoint
from merge_core.methods import METHODS, Method
from merge_core.model_reference import ModelReference
from merge_core.parameters import ParameterReader
from merge_core.recipe import OutputSlice, Parameters, Recipe
from merge_core.tensor_job import JobInput, Values


def whole_models(recipe: Recipe) -> list[tuple[ModelReference, Parameters]]:
    """The entries of ``models``, and the base model, without parameters, when it is not among them."""
    entries = [(entry.model, entry.parameters) for entry in recipe.models or ()]
    base, method = recipe.base_model, METHODS[recipe.merge_method]
    if base is not None and base not in dict(entries) and method.adds_base(list(recipe.parameters)):
        entries.append((base, Parameters()))
    return entries


class SliceContext:
    """The sources of one output slice and how their parameters are read.

    Attributes:
        method: the merge method.
        models: reference of every source.
        headers: tensor headers of every source.
        base: position of the base among them, None when the method uses none.
    """

    def __init__(self, recipe: Recipe, part: OutputSlice, checkpoints: Mapping[str, Checkpoint]) -> None:
        method = self.method = METHODS[recipe.merge_method]
        base: ModelReference | None = part.base_model or recipe.base_model
        self.models = [str(source.model) for source in part.sources]
        self.headers = [checkpoints[model].tensors for model in self.models]
        uses_base = method.base != "unused" and base is not None and str(base) in self.models
        self.base = self.models.index(str(base)) if uses_base else None
        shared = (part.parameters, recipe.parameters)
        self._settings = _Readers(method, "global", shared, None)
        self._sources = [
            None if index == self.base else _Readers(method, "model", (source.parameters, *shared), str(source.model))
            for index, source in enumerate(part.sources)
        ]

    def inputs(self, names: Sequence[str], position: float) -> tuple[JobInput, ...]:
        """The sources of a tensor: ``names`` are its names in the models, ``position`` its place in the slice."""
        return tuple(
            [
                JobInput(model, name, () if readers is None else readers.read(name, position))
                for model, name, readers in zip(self.models, names, self._sources, strict=True)
            ]
        )

    def settings(self, output: str, position: float) -> Values:
        """The method's global parameters for an output tensor."""
        return self._settings.read(output, position)


class _Readers:
    """All parameters of one scope; the tuple is shared where no value depends on the tensor."""

    def __init__(self, method: Method, scope: str, levels: Sequence[Parameters], owner: str | None) -> None:
        self._readers = [
            (parameter.name, ParameterReader(parameter, levels, owner))
            for parameter in method.parameters
            if parameter.scope == scope and parameter.name != "int8_mask"
        ]
        self._constant: Values | None = None
        if not any(reader.varies for _, reader in self._readers):
            self._constant = tuple((name, reader.constant) for name, reader in self._readers)

    def read(self, tensor_name: str, position: float) -> Values:
        if self._constant is not None:
            return self._constant
        return tuple([(name, reader.read(tensor_name, position)) for name, reader in self._readers])
