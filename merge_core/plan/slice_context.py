"""The sources of one output slice, its base, and how their parameters are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from merge_core.checkpoint.expert_forms import ExpertPart
from merge_core.methods import METHODS, Method, Value
from merge_core.methods.shared_parameters import EACH_EXPERT
from merge_core.plan.tensor_job import JobInput, Values
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.parameters import ParameterReader
from merge_core.recipe.parts import OutputSlice, Parameters
from merge_core.recipe.recipe import Recipe


class SliceContext:
    """One output slice as its tensors see it.

    Attributes:
        method: the merge method.
        models: reference of every source.
        base: position of the base among them, None when the method uses none.
    """

    def __init__(self, recipe: Recipe, part: OutputSlice) -> None:
        method = self.method = METHODS[recipe.merge_method]
        base: ModelReference | None = part.base_model or recipe.base_model
        self.models = [str(source.model) for source in part.sources]
        uses_base = method.base != "unused" and base is not None and str(base) in self.models
        self.base = self.models.index(str(base)) if uses_base else None
        shared = (part.parameters, recipe.parameters)
        self._settings = _Readers(method, "global", shared, None)
        self._each_expert = ParameterReader(EACH_EXPERT, shared, None)
        self._sources = [
            None if index == self.base else _Readers(method, "model", (source.parameters, *shared), str(source.model))
            for index, source in enumerate(part.sources)
        ]
        if self.base is not None and len(self.models) == 1:  # nothing is added to it
            self.method, self.base = METHODS["passthrough"], None

    def inputs(
        self,
        names: Sequence[str],
        position: float,
        experts: Mapping[tuple[str, str], ExpertPart] = MappingProxyType({}),
    ) -> tuple[JobInput, ...]:
        """The sources of a tensor.

        Args:
            names: its names in the models.
            position: its place in the slice.
            experts: model and name → what it is read of, where the model does not store it so.
        """
        return tuple(
            [
                JobInput(
                    model,
                    name,
                    () if readers is None else readers.read(name, position),
                    experts=experts.get((model, name)),
                )
                for model, name, readers in zip(self.models, names, self._sources, strict=True)
            ]
        )

    def settings(self, output: str, position: float) -> Values:
        """The method's global parameters for an output tensor."""
        return self._settings.read(output, position)

    def each_expert(self, output: str, position: float) -> bool:
        """Whether the experts of a stack are merged one by one."""
        return bool(self._each_expert.read(output, position))

    def possible_inputs(self, parameter: str) -> dict[str, tuple[Value | None, ...]]:
        """Every value that some tensor can get of a model's own parameter, for each model that takes it."""
        return {
            model: values
            for model, readers in zip(self.models, self._sources, strict=True)
            if readers is not None and (values := readers.possible(parameter)) is not None
        }

    def possible_settings(self, parameter: str) -> tuple[Value | None, ...]:
        """Every value that some tensor can get of a global parameter; none where the method has no such parameter."""
        return self._settings.possible(parameter) or ()


class _Readers:
    """All parameters of one scope; the tuple is shared where no value depends on the tensor."""

    def __init__(
        self, method: Method, scope: Literal["model", "global"], levels: Sequence[Parameters], owner: str | None
    ) -> None:
        self._readers = {
            name: ParameterReader(method.by_name[name], levels, owner)
            for name in method.names(scope)
            if name != "int8_mask"
        }
        self._constant: Values | None = None
        if not any(reader.varies for reader in self._readers.values()):
            self._constant = tuple((name, reader.constant) for name, reader in self._readers.items())

    def read(self, tensor_name: str, position: float) -> Values:
        if self._constant is not None:
            return self._constant
        return tuple([(name, reader.read(tensor_name, position)) for name, reader in self._readers.items()])

    def possible(self, parameter: str) -> tuple[Value | None, ...] | None:
        reader = self._readers.get(parameter)
        return None if reader is None else reader.possible()
