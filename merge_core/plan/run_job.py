"""The making of one tensor of the result, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.kernels.constants import INFINITY
from merge_core.kernels.dispatch import NotFiniteError, is_finite
from merge_core.kernels.order_statistics import Memo, TaskVectorStatistics
from merge_core.kernels.output import FLOAT32, LargestMagnitudes, Output
from merge_core.kernels.random_numbers import random_key
from merge_core.kernels.statistics_cache import StatisticsCache
from merge_core.methods import METHODS, MethodInputs, ParameterSlot
from merge_core.methods.method import InvalidParametersError
from merge_core.plan.job_checks import check_inputs, check_kept, check_zeros, first_rows, not_finite
from merge_core.plan.tensor_job import JobInput, SourceIdentity, TensorJob

Statistics = dict[tuple[SourceIdentity, SourceIdentity, tuple[int, ...]], TaskVectorStatistics]
"""Source and base, and the shape → what is known of the task vector in any recipe."""


def run_job(
    job: TensorJob,
    checkpoints: Mapping[str, Checkpoint],
    device: torch.device | str = "cpu",
    *,
    statistics: Statistics | None = None,
    statistics_cache: StatisticsCache | None = None,
    read: Callable[[JobInput], Tensor] | None = None,
    out: Tensor | None = None,
    largest: LargestMagnitudes[TensorJob] | None = None,
) -> Tensor:
    """Make a tensor: float32 inside, rounded once to the job's dtype.

    Args:
        job: from a plan.
        checkpoints: model reference → its checkpoint.
        device: where the arithmetic runs.
        statistics: what is known of task vectors, and gets to be known.
        statistics_cache: where what is known is kept for other processes.
        read: gives an input, perhaps from memory of the device; by default it is read from its checkpoint.
        out: contiguous tensor of the job's shape that the result may be written to at once, if its dtype is the
            job's or float32. Whether it was is seen from the result's memory.
        largest: for results on an accelerator that are not looked at here, but by `check_largest` later.

    Returns:
        Tensor of the job's shape and dtype (``out``'s, when it was written to) on ``device``. It may share memory
        with a checkpoint; do not write to it.

    Raises:
        MergeError: NaN or infinity in an input or in the result, or weights that sum to zero.
    """
    if job.form is not None:
        exact = run_job(
            replace(job, form=None, dtype=torch.float32),
            checkpoints,
            device,
            statistics=statistics,
            statistics_cache=statistics_cache,
            read=read,
        )
        return job.form.values(job.form.store(job.output, exact.cpu())).to(device=device, dtype=job.dtype)
    if job.experts:
        one_by_one = (
            run_job(one, checkpoints, device, statistics=statistics, statistics_cache=statistics_cache, read=read)
            for one in job.of_each_expert()
        )
        return torch.stack(list(one_by_one))
    method = METHODS[job.method]
    stored = _stored(job, checkpoints, read)
    if job.method == "passthrough" and dict(job.inputs[0].parameters).get("scale") is None:
        # Nothing to compute: integers are kept too, which float32 would round.
        result = stored[0].to(device=device, dtype=job.dtype)
        if not is_finite(result):
            raise not_finite(job, stored)
        return result
    check_inputs(job, stored, checkpoints)
    unchecked = 0 if largest is None else largest.count
    output = Output(job.dtype, out, None if largest is None else partial(largest.place, job))
    inputs = _method_inputs(job, stored, checkpoints, device, statistics, statistics_cache, output)
    try:
        with torch.no_grad():
            result = method.run(inputs)
            if not method.elementwise:
                result = result.to(job.dtype)
                if not is_finite(result):
                    raise NotFiniteError
    except InvalidParametersError as error:
        raise MergeError(f"{job.output}: {error}") from error
    except NotFiniteError as error:
        raise not_finite(job, stored) from error
    if largest is None or largest.count == unchecked:
        check_kept(job, stored, result)
    return result.to(device)


def check_largest(
    largest: LargestMagnitudes[TensorJob],
    checkpoints: Mapping[str, Checkpoint],
    read: Callable[[JobInput], Tensor] | None = None,
) -> None:
    """Look at what `run_job` has left to be looked at.

    Args:
        largest, checkpoints, read: as there.

    Raises:
        MergeError: as there.
    """
    for job, bits in largest.read():
        if bits >= INFINITY:
            raise not_finite(job, _stored(job, checkpoints, read))
        if bits == 0:
            check_zeros(job, _stored(job, checkpoints, read))


def store_job(
    job: TensorJob, checkpoints: Mapping[str, Checkpoint], device: torch.device | str = "cpu"
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Make a tensor, and what is written of it.

    Args:
        job, checkpoints, device: as in `run_job`.

    Returns:
        The result of `run_job` and the tensors of `TensorJob.stored`, in memory of the CPU.

    Raises:
        MergeError: as `run_job`.
    """
    if job.form is None:
        tensor = run_job(job, checkpoints, device).cpu()
        return tensor, {job.output: tensor}
    exact = run_job(replace(job, form=None, dtype=torch.float32), checkpoints, device)
    stored = job.form.store(job.output, exact.cpu())
    return job.form.values(stored).to(job.dtype), stored


def differentiate_job(
    job: TensorJob,
    checkpoints: Mapping[str, Checkpoint],
    gradient: Tensor,
    device: torch.device | str = "cpu",
    *,
    statistics: Statistics | None = None,
    statistics_cache: StatisticsCache | None = None,
    read: Callable[[JobInput], Tensor] | None = None,
) -> Mapping[ParameterSlot, float]:
    """The derivatives of a number L by a job's parameters, given its gradient by the tensor that the job makes.

    The rounding to the job's dtype is not seen.

    Args:
        job: from a plan.
        gradient: ∂L/∂W, of the job's shape and any floating-point dtype.
        checkpoints, device, statistics, statistics_cache, read: as in `run_job`.

    Returns:
        Slot → derivative, for the slots of `job_parameters`.

    Raises:
        MergeError: weights that sum to zero, or a derivative of the user's own that leaves a slot out.
    """
    values = job_parameters(job)
    derivative = METHODS[job.method].derivative
    if derivative is None or not values:
        return {}
    if job.experts:
        totals = dict.fromkeys(values, 0.0)
        for one, part in zip(job.of_each_expert(), gradient, strict=True):
            found = differentiate_job(
                one,
                checkpoints,
                part,
                device,
                statistics=statistics,
                statistics_cache=statistics_cache,
                read=read,
            )
            totals = {slot: total + found[slot] for slot, total in totals.items()}
        return totals
    stored = _stored(job, checkpoints, read)
    inputs = _method_inputs(job, stored, checkpoints, device, statistics, statistics_cache)
    try:
        with torch.no_grad():
            found = derivative.run(inputs, gradient.detach().to(inputs.tensors[0].device))
    except InvalidParametersError as error:
        raise MergeError(f"{job.output}: {error}") from error
    missing = [slot for slot in values if slot not in found]
    if missing:
        raise MergeError(
            f"the derivative of {job.method} gives nothing for {missing[0]}. Return every slot's derivative"
        )
    return {slot: float(found[slot]) for slot in values}


def job_parameters(job: TensorJob) -> dict[ParameterSlot, float]:
    """The values of the numbers that a job's result is differentiable in; none of a method without derivative."""
    names = METHODS[job.method].differentiable
    own = (
        (ParameterSlot(name, position), value)
        for position, source in enumerate(job.inputs)
        for name, value in source.parameters
    )
    shared = ((ParameterSlot(name), value) for name, value in job.settings)
    return {slot: float(value) for slot, value in (*own, *shared) if slot.name in names and value is not None}


def _stored(
    job: TensorJob, checkpoints: Mapping[str, Checkpoint], read: Callable[[JobInput], Tensor] | None
) -> list[Tensor]:
    read = read or (lambda source: source.read(checkpoints))
    return [first_rows(read(source), job.shape) for source in job.inputs]


def _method_inputs(
    job: TensorJob,
    stored: Sequence[Tensor],
    checkpoints: Mapping[str, Checkpoint],
    device: torch.device | str,
    statistics: Statistics | None,
    statistics_cache: StatisticsCache | None,
    output: Output = FLOAT32,
) -> MethodInputs:
    method = METHODS[job.method]
    where = "cpu" if method.on_host else device

    def known(position: int) -> TaskVectorStatistics:
        if statistics is None or job.base is None:
            return TaskVectorStatistics()
        source, base = job.inputs[position], job.inputs[job.base]
        key = (source.identity, base.identity, job.shape)
        if key not in statistics:
            statistics[key] = TaskVectorStatistics(_memo(source, base, job.shape, checkpoints, statistics_cache))
        return statistics[key]

    names = {name for source in job.inputs for name, _ in source.parameters}
    own = [dict(source.parameters) for source in job.inputs]
    return MethodInputs(
        tensors=[tensor.to(device=where, dtype=None if method.elementwise else torch.float32) for tensor in stored],
        base=job.base,
        model_values={name: [values.get(name) for values in own] for name in names},
        settings=dict(job.settings),
        key=lambda position: random_key(job.seed, job.inputs[position].model, job.output),
        statistics=known,
        output=output,
    )


def _memo(
    source: JobInput,
    base: JobInput,
    shape: tuple[int, ...],
    checkpoints: Mapping[str, Checkpoint],
    statistics_cache: StatisticsCache | None,
) -> Memo | None:
    """Keep arrays under everything that they depend on: files as they are now, tensors, rows and shape."""
    if statistics_cache is None or any(part.rows is not None or part.experts is not None for part in (source, base)):
        return None
    inputs = [checkpoints[part.model].cache_key(part.tensor) for part in (source, base)]
    if None in inputs:
        return None
    key = "\0".join([*map(str, inputs), str(shape)])
    return lambda name, make: statistics_cache.array(f"{key}\0{name}", make)
