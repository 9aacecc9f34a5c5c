"""One tensor of the result: what it is made of, and its making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merge_core.checkpoint_reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.methods import METHODS, MethodInputs, Value
from merge_core.methods.method import InvalidParametersError
from merge_core.row_map import RowMap
from merge_core.sparsify import random_key, uniform

Values = tuple[tuple[str, Value | None], ...]


@dataclass(frozen=True, slots=True)
class JobInput:
    """A source tensor.

    Attributes:
        model: the model's reference as the recipe writes it.
        tensor: the tensor's name in that model.
        parameters: the model's parameters for this tensor; empty for a base, which takes none.
        rows: how its rows are put in the order of the output vocabulary, None to take the tensor as it is.
    """

    model: str
    tensor: str
    parameters: Values = ()
    rows: RowMap | None = None

    def read(self, checkpoints: Mapping[str, Checkpoint]) -> Tensor:
        """The source's tensor, in the order of the output vocabulary; do not write to it."""
        stored = checkpoints[self.model].read(self.tensor)
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
    """

    output: str
    method: str
    inputs: tuple[JobInput, ...]
    base: int | None
    settings: Values
    shape: tuple[int, ...]
    dtype: torch.dtype
    seed: int


def run_job(job: TensorJob, checkpoints: Mapping[str, Checkpoint], device: torch.device | str = "cpu") -> Tensor:
    """Make a tensor: float32 inside, rounded once to the job's dtype.

    Args:
        job: from a plan.
        checkpoints: model reference → its checkpoint.
        device: where the arithmetic runs.

    Returns:
        Tensor of the job's shape and dtype on ``device``. It may share memory with a checkpoint; do not write to it.

    Raises:
        MergeError: NaN or infinity in an input or in the result, or weights that sum to zero.
    """
    stored = [source.read(checkpoints) for source in job.inputs]
    if job.method == "passthrough" and dict(job.inputs[0].parameters).get("scale") is None:
        # Nothing to compute: integers are kept too, which float32 would round.
        return _checked(_rows(stored[0], job.shape).to(device=device, dtype=job.dtype), job, stored)
    tensors = [_rows(tensor, job.shape).to(device=device, dtype=torch.float32) for tensor in stored]

    def draws(position: int) -> Tensor:
        key = random_key(job.seed, job.inputs[position].model, job.output)
        return uniform(key, tensors[position].numel(), tensors[position].device).view(job.shape)

    names = {name for source in job.inputs for name, _ in source.parameters}
    own = [dict(source.parameters) for source in job.inputs]
    inputs = MethodInputs(
        tensors=tensors,
        base=job.base,
        model_values={name: [values.get(name) for values in own] for name in names},
        settings=dict(job.settings),
        draws=draws,
    )
    try:
        with torch.no_grad():
            result = METHODS[job.method].run(inputs)
    except InvalidParametersError as error:
        raise MergeError(f"{job.output}: {error}") from error
    return _checked(result.to(job.dtype), job, stored)


def _rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) == shape:
        return tensor
    for dimension, size in enumerate(shape):
        tensor = tensor.narrow(dimension, 0, size)
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity; one pass, no memory."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _checked(result: Tensor, job: TensorJob, stored: list[Tensor]) -> Tensor:
    if is_finite(result):
        return result
    for source, tensor in zip(job.inputs, stored, strict=True):
        if not is_finite(tensor):
            raise MergeError(
                f'model "{source.model}": tensor {source.tensor} has NaN or infinite values. '
                "Remove the model from the recipe, or fetch its files again"
            )
    dtype = str(job.dtype).removeprefix("torch.")
    raise MergeError(
        f"{job.output}: the merged values do not fit {dtype}. Use smaller weights, or dtype: bfloat16 or float32"
    )
