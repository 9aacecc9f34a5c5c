"""The making of one tensor of the result, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.execute.job_checks import check_inputs, check_kept, check_zeros, first_rows, not_finite
from merge_core.kernels.constants import INFINITY
from merge_core.kernels.dispatch import NotFiniteError, is_finite
from merge_core.kernels.order_statistics import Memo, TaskVectorStatistics
from merge_core.kernels.output import FLOAT32, LargestMagnitudes, Output
from merge_core.kernels.random_numbers import random_key
from merge_core.kernels.statistics_cache import StatisticsCache
from merge_core.methods import METHODS, MethodInputs, ParameterSlot
from merge_core.methods.differences import slopes_by_difference
from merge_core.methods.method import InvalidParametersError, Method
from merge_core.plan.tensor_job import JobInput, SourceIdentity, TensorJob

Statistics = dict[tuple[SourceIdentity, SourceIdentity, tuple[int, ...]], TaskVectorStatistics]
"""Source and base, and the shape → what is known of the task vector in any recipe."""


class JobRunner:
    """Makes the tensors of plans on a device.

    Args:
        checkpoints: model reference → its checkpoint.
        device: where the arithmetic runs.
        statistics: what is known of task vectors, and gets to be known; None forgets it.
        statistics_cache: where what is known is kept for other processes.
        read: gives an input, perhaps from memory of the device; by default it is read from its checkpoint.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        device: torch.device | str = "cpu",
        *,
        statistics: Statistics | None = None,
        statistics_cache: StatisticsCache | None = None,
        read: Callable[[JobInput], Tensor] | None = None,
    ) -> None:
        self._checkpoints, self._device = checkpoints, device
        self._statistics, self._statistics_cache = statistics, statistics_cache
        self._read = read or (lambda source: source.read(checkpoints))

    def run(
        self, job: TensorJob, *, out: Tensor | None = None, largest: LargestMagnitudes[TensorJob] | None = None
    ) -> Tensor:
        """Make a tensor: float32 inside, rounded once to the job's dtype.

        Args:
            job: from a plan.
            out: contiguous tensor of the job's shape that the result may be written to at once, if its dtype is the
                job's or float32. Whether it was is seen from the result's memory.
            largest: for results on an accelerator that are not looked at here, but by `check_largest` later.

        Returns:
            Tensor of the job's shape and dtype (``out``'s, when it was written to) on the device. It may share memory
            with a checkpoint; do not write to it.

        Raises:
            MergeError: NaN or infinity in an input or in the result, or weights that sum to zero.
        """
        if job.form is not None:
            stored = job.form.store(job.output, self._exact(job))
            return job.form.values(stored).to(device=self._device, dtype=job.dtype)
        if job.experts:
            return torch.stack([self.run(one) for one in job.of_each_expert()])
        method = METHODS[job.method]
        inputs = self._inputs(job)
        if job.method == "passthrough" and dict(job.inputs[0].parameters).get("scale") is None:
            # Nothing to compute: integers are kept too, which float32 would round.
            result = inputs[0].to(device=self._device, dtype=job.dtype)
            if not is_finite(result):
                raise not_finite(job, inputs)
            return result
        check_inputs(job, inputs, self._checkpoints)
        unchecked = 0 if largest is None else largest.count
        output = Output(job.dtype, out, None if largest is None else partial(largest.place, job))
        try:
            with torch.no_grad():
                result = method.run(self._method_inputs(job, inputs, output))
                if not method.elementwise:
                    result = result.to(job.dtype)
                    if not is_finite(result):
                        raise NotFiniteError
        except InvalidParametersError as error:
            raise MergeError(f"{job.output}: {error}") from error
        except NotFiniteError as error:
            raise not_finite(job, inputs) from error
        if largest is None or largest.count == unchecked:
            check_kept(job, inputs, result)
        return result.to(self._device)

    def check_largest(self, largest: LargestMagnitudes[TensorJob]) -> None:
        """Look at what `run` has left to be looked at.

        Raises:
            MergeError: as there.
        """
        for job, bits in largest.read():
            if bits >= INFINITY:
                raise not_finite(job, self._inputs(job))
            if bits == 0:
                check_zeros(job, self._inputs(job))

    def store(self, job: TensorJob) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Make a tensor, and what is written of it.

        Returns:
            The result of `run` and the tensors of `TensorJob.stored`, in memory of the CPU.

        Raises:
            MergeError: as `run`.
        """
        if job.form is None:
            tensor = self.run(job).cpu()
            return tensor, {job.output: tensor}
        stored = job.form.store(job.output, self._exact(job))
        return job.form.values(stored).to(job.dtype), stored

    def differentiate(
        self, job: TensorJob, gradient: Tensor, wanted: Collection[ParameterSlot] | None = None
    ) -> Mapping[ParameterSlot, float]:
        """The derivatives of a number L by a job's parameters, given its gradient by the tensor that the job makes.

        The rounding to the job's dtype is not seen.

        Args:
            job: from a plan.
            gradient: ∂L/∂W, of the job's shape and any floating-point dtype.
            wanted: which slots; None for all of `job_parameters`.

        Returns:
            Slot → derivative, for the wanted ones of `job_parameters`.

        Raises:
            MergeError: weights that sum to zero, or a derivative of the user's own that leaves a slot out.
        """
        slots = [slot for slot in job_parameters(job) if wanted is None or slot in wanted]
        if not slots:
            return {}
        if job.experts:
            parts = [self.differentiate(*one, slots) for one in zip(job.of_each_expert(), gradient, strict=True)]
            return {slot: sum(part[slot] for part in parts) for slot in slots}
        read = self._inputs(job)
        inputs = self._method_inputs(job, read)
        try:
            with torch.no_grad():
                return _slopes(METHODS[job.method], inputs, gradient.detach().to(inputs.tensors[0].device), slots)
        except InvalidParametersError as error:
            raise MergeError(f"{job.output}: {error}") from error
        except NotFiniteError as error:
            raise not_finite(job, read) from error

    def _exact(self, job: TensorJob) -> Tensor:
        """What is written quantized, as it is before that."""
        return self.run(replace(job, form=None, dtype=torch.float32)).cpu()

    def _inputs(self, job: TensorJob) -> list[Tensor]:
        return [first_rows(self._read(source), job.shape) for source in job.inputs]

    def _method_inputs(self, job: TensorJob, inputs: Sequence[Tensor], output: Output = FLOAT32) -> MethodInputs:
        method = METHODS[job.method]
        where = "cpu" if method.on_host else self._device
        names = {name for source in job.inputs for name, _ in source.parameters}
        own = [dict(source.parameters) for source in job.inputs]
        return MethodInputs(
            tensors=[tensor.to(device=where, dtype=None if method.elementwise else torch.float32) for tensor in inputs],
            base=job.base,
            model_values={name: [values.get(name) for values in own] for name in names},
            settings=dict(job.settings),
            key=lambda position: random_key(job.seed, job.inputs[position].model, job.output),
            statistics=lambda position: self._known(job, position),
            output=output,
        )

    def _known(self, job: TensorJob, position: int) -> TaskVectorStatistics:
        if self._statistics is None or job.base is None:
            return TaskVectorStatistics()
        source, base = job.inputs[position], job.inputs[job.base]
        key = (source.identity, base.identity, job.shape)
        if key not in self._statistics:
            self._statistics[key] = TaskVectorStatistics(self._memo(source, base, job.shape))
        return self._statistics[key]

    def _memo(self, source: JobInput, base: JobInput, shape: tuple[int, ...]) -> Memo | None:
        """Keep arrays under everything that they depend on: files as they are now, tensors, rows and shape."""
        cache = self._statistics_cache
        if cache is None or any(part.rows is not None or part.experts is not None for part in (source, base)):
            return None
        files = [self._checkpoints[part.model].cache_key(part.tensor) for part in (source, base)]
        if None in files:
            return None
        key = "\0".join([*map(str, files), str(shape)])
        return lambda name, make: cache.array(f"{key}\0{name}", make)


def run_job(job: TensorJob, checkpoints: Mapping[str, Checkpoint], device: torch.device | str = "cpu") -> Tensor:
    """`JobRunner.run` for a tensor of which nothing need be remembered."""
    return JobRunner(checkpoints, device).run(job)


def _slopes(
    method: Method, inputs: MethodInputs, gradient: Tensor, slots: Collection[ParameterSlot]
) -> dict[ParameterSlot, float]:
    """Slot → derivative: by the method's formula where it has one, else by differences."""
    by_formula = [slot for slot in slots if slot.name in method.by_formula]
    found = slopes_by_difference(method, inputs, gradient, [slot for slot in slots if slot not in by_formula])
    if method.derivative is not None and by_formula:
        told = method.derivative.run(inputs, gradient)
        for slot in by_formula:
            if slot not in told:
                message = f"the derivative of {method.name} gives nothing for {slot}. Return every slot's derivative"
                raise MergeError(message)
            found[slot] = float(told[slot])
    return found


def job_parameters(job: TensorJob) -> dict[ParameterSlot, float]:
    """The values of the numbers that the gradient of a loss by a job's result can be followed in."""
    names = METHODS[job.method].differentiable
    own = (
        (ParameterSlot(name, position), value)
        for position, source in enumerate(job.inputs)
        for name, value in source.parameters
    )
    shared = ((ParameterSlot(name), value) for name, value in job.settings)
    return {slot: float(value) for slot, value in (*own, *shared) if slot.name in names and value is not None}
