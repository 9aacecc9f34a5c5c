"""Whether a merge's inputs and results are sound: finite, and not all zero where nothing is.

Raised are `MergeError`s that name the tensor or the model at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.kernels.dispatch import is_finite
from merge_core.methods import METHODS
from merge_core.plan.tensor_job import TensorJob


def first_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor, of which a longer vocabulary's last rows are cut off."""
    if tuple(tensor.shape) == shape:
        return tensor
    for dimension, size in enumerate(shape):
        tensor = tensor.narrow(dimension, 0, size)
    return tensor


def check_inputs(job: TensorJob, stored: Sequence[Tensor], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse NaN and infinity where the result need not show them: what has no weight, is dropped or is cut."""
    adds_all = METHODS[job.method].adds_all
    for source, tensor in zip(job.inputs, stored, strict=True):
        if adds_all and dict(source.parameters).get("weight") != 0:
            continue
        key = (check_inputs, source.tensor, source.rows, source.experts, job.shape)
        if not checkpoints[source.model].memo(key, partial(is_finite, tensor)):
            raise not_finite(job, stored)


def check_kept(job: TensorJob, stored: Sequence[Tensor], result: Tensor) -> None:
    """Refuse a tensor that is nothing but zeros though no input and no parameter is: weights that cancel or vanish."""
    if result.numel() and not bool(result.reshape(-1)[:64].any()) and not bool(result.any()):
        check_zeros(job, stored)


def check_zeros(job: TensorJob, stored: Sequence[Tensor]) -> None:
    """As `check_kept`, of a result that is known to be nothing but zeros."""
    values = [value for source in job.inputs for _, value in source.parameters] + [value for _, value in job.settings]
    if any(type(value) in (int, float) and value == 0 for value in values):
        return
    if all(bool(first_rows(tensor, job.shape).any()) for tensor in stored):
        dtype = str(job.dtype).removeprefix("torch.")
        raise MergeError(f"{job.output}: every merged value is 0 in {dtype}. Use larger weights that do not cancel")


def not_finite(job: TensorJob, stored: Sequence[Tensor]) -> MergeError:
    """What to say of a result with NaN or infinity."""
    for source, tensor in zip(job.inputs, stored, strict=True):
        if not is_finite(tensor):
            return MergeError(
                f'model "{source.model}": tensor {source.tensor} has NaN or infinite values. '
                "Remove the model from the recipe, or fetch its files again"
            )
    dtype = str(job.dtype).removeprefix("torch.")
    wider = ", or dtype: bfloat16 or float32" if job.dtype == torch.float16 else ""
    return MergeError(f"{job.output}: the merged values do not fit {dtype}. Use smaller weights{wider}")
