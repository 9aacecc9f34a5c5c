"""One tensor of the result: what it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merge_core.checkpoint.expert_forms import ExpertPart, expert_of
from merge_core.checkpoint.quantized.forms import QuantizedForm
from merge_core.checkpoint.reader import Checkpoint
from merge_core.methods import Value
from merge_core.vocabulary.row_map import RowMap

Values = tuple[tuple[str, Value | None], ...]
SourceIdentity = tuple[str, str, RowMap | None, ExpertPart | None]


@dataclass(frozen=True, slots=True)
class JobInput:
    """A source tensor.

    Attributes:
        model: the model's reference as the recipe writes it.
        tensor: the tensor's name in that model.
        parameters: the model's parameters for this tensor; empty for a base, which takes none.
        rows: how its rows are put in the order of the output vocabulary, None to take the tensor as it is.
        experts: what it is read of where the model stores its experts in another form, None where it stores it.
    """

    model: str
    tensor: str
    parameters: Values = ()
    rows: RowMap | None = None
    experts: ExpertPart | None = None

    @property
    def stored(self) -> tuple[str, ...]:
        """The tensors of the model that are read whole."""
        return (self.tensor,) if self.experts is None else self.experts.stored

    @property
    def identity(self) -> SourceIdentity:
        """What the tensor is, of whatever parameters: a candidate's weights change nothing about it."""
        return self.model, self.tensor, self.rows, self.experts

    def read(self, checkpoints: Mapping[str, Checkpoint]) -> Tensor:
        """The source's tensor, in the order of the output vocabulary; do not write to it."""
        checkpoint = checkpoints[self.model]
        stored = checkpoint.read(self.tensor) if self.experts is None else self.experts.read(checkpoint)
        if self.rows is None:
            return stored
        return self.rows.align(stored, lambda model, tensor: checkpoints[model].read(tensor))


@dataclass(frozen=True, slots=True)
class TensorJob:
    """Everything that decides the bits of one output tensor: equal jobs give equal bits.

    Attributes:
        output: the tensor's name in the result.
        method: name of the merge method.
        inputs: the sources, in the order of the recipe.
        base: position of the base model among them, or None.
        settings: the method's global parameters for this tensor.
        shape: of the result; an input with more rows (a longer vocabulary) gives its first ones.
        dtype: of the result.
        seed: of the random numbers; 0 when the method draws none.
        form: in which it is written quantized, None for its dtype alone. Its values are those of what is written.
        experts: of how many experts it is a stack, each of which is merged by itself; 0 where it is merged as it is.
    """

    output: str
    method: str
    inputs: tuple[JobInput, ...]
    base: int | None
    settings: Values
    shape: tuple[int, ...]
    dtype: torch.dtype
    seed: int
    form: QuantizedForm | None = None
    experts: int = 0

    def of_each_expert(self) -> Iterator[TensorJob]:
        """The jobs of a stack's matrices."""
        for expert in range(self.experts):
            inputs = tuple(
                replace(source, experts=expert_of(source.tensor, source.experts, expert, self.shape[1]))
                for source in self.inputs
            )
            output = f"{self.output}.{expert}"
            yield replace(self, output=output, inputs=inputs, shape=self.shape[1:], form=None, experts=0)

    @property
    def stored(self) -> Mapping[str, tuple[torch.dtype, tuple[int, ...]]]:
        """What is written of it: name → dtype and shape."""
        return (
            {self.output: (self.dtype, self.shape)} if self.form is None else self.form.layout(self.output, self.shape)
        )

    @property
    def stored_bytes(self) -> int:
        """Size of what is written of it."""
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in self.stored.values())
