"""Merging into a live model: a candidate's tensors are written over the parameters of the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from merge_core.checkpoint.fingerprint import fingerprint
from merge_core.checkpoint.reader import Checkpoint
from merge_core.execute.device_sources import DeviceSources
from merge_core.execute.job_runner import JobRunner, Statistics
from merge_core.execute.live_parameters import live_names
from merge_core.execute.packed_weights import PackedWeight, device_of, memory_of
from merge_core.execute.shared_parameters import Held, ParameterPool, same_content
from merge_core.kernels.output import LargestMagnitudes
from merge_core.kernels.statistics_cache import StatisticsCache
from merge_core.methods import ParameterSlot
from merge_core.plan.plan import MergePlan, build_plan
from merge_core.plan.tensor_job import JobInput, TensorJob
from merge_core.recipe.recipe import Recipe

AHEAD_BYTES = 256 * 2**20
"""Of sources that are on their way to a device before their turn, so that small tensors between large ones leave no
gap on the link."""

MOST_AHEAD = 16
"""Jobs of which that may be."""


@dataclass(frozen=True, slots=True)
class LiveMergeReport:
    """What writing a candidate took.

    Attributes:
        merged: tensors computed and written.
        skipped: tensors that the live model already held, because the last candidate had an equal job.
        seconds: wall-clock time.
        plan: the candidate's plan.
    """

    merged: int
    skipped: int
    seconds: float
    plan: MergePlan


class LiveMerge:
    """Writes merged models into live parameters, one candidate after another.

    What is written is rounded to the recipe's output dtype first, also when the live parameters are wider: the
    model that is scored is bit for bit the model that `merge` saves with the same recipe and seed.

    Args:
        checkpoints: model reference as recipes write it → its checkpoint.
        seed: of randomised methods.
        device: where the arithmetic runs; None is where each live parameter is.
        statistics_cache: directory in which what is found about the sources is kept, for other processes and later
            runs; None keeps it in this process. Ranks (for `della`) take 2 bytes an entry there.

    >>> # live_merge = LiveMerge(checkpoints, seed=0)
    >>> # live_merge.write(recipe, live_parameters(model))
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        seed: int = 0,
        device: torch.device | str | None = None,
        statistics_cache: Path | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._seed = seed
        self._device = device
        self._written: Held = {}
        self._pool = ParameterPool()
        self._statistics: Statistics = {}
        self._sources: dict[torch.device, DeviceSources] = {}
        self._runners: dict[torch.device, JobRunner] = {}
        self._statistics_cache = None if statistics_cache is None else StatisticsCache(statistics_cache)

    def write(
        self,
        recipe: Recipe | MergePlan,
        parameters: Mapping[str, Tensor],
        progress: Callable[[int, int], None] | None = None,
    ) -> LiveMergeReport:
        """Merge a recipe into live parameters.

        Args:
            recipe: the candidate, or its plan.
            parameters: name → live parameter, as from `live_parameters`. They are written in place.
            progress: called after every tensor with the bytes of the sources that were read, and with those of all.

        Raises:
            MergeError: as `build_plan` and `JobRunner.run`; a live parameter that the merge does not make, a tensor
                that has no live parameter, or one of another shape. After an error the live parameters are a
                mixture; the next `write` puts everything right.
        """
        started = time.perf_counter()
        plan = recipe if isinstance(recipe, MergePlan) else build_plan(recipe, self._checkpoints, self._seed)
        names = live_names(plan, parameters)
        # By place: of two jobs that write to the same one, as to a tied head, the last one's values stay. Those of
        # layers that are repeated by reference are equal.
        wanted = {
            memory_of(parameters[names[job.output]]).data_ptr(): (job, parameters[names[job.output]])
            for job in plan.jobs
            if job.output in names  # else it is of `MergePlan.extra`
        }
        held = {address: (same_content(job), target) for address, (job, target) in wanted.items()}
        changed = [address for address in wanted if not self._holds(address, *held[address])]
        stale = [wanted[address] for address in changed]
        sizes = [_source_bytes(job, self._checkpoints) for job, _ in stale]
        read = accumulate(sizes)
        devices = [torch.device(self._device or device_of(target)) for _, target in stale]
        unchecked = {
            device: LargestMagnitudes[TensorJob](len(stale), device) for device in {*devices} if needs_sources(device)
        }
        # Forgotten first: after an error nobody knows what the parameters hold.
        for address in changed:
            self._written.pop(address, None)
        coming = _ahead([job for job, _ in stale], sizes, devices)
        for (job, target), device, following in zip(stale, devices, coming, strict=True):
            self._write(job, target, device, following, unchecked.get(device))
            if progress is not None:
                progress(next(read), sum(sizes))
        for device, largest in unchecked.items():
            self._runners[device].check_largest(largest)
        self._written |= {address: held[address] for address in changed}
        return LiveMergeReport(len(stale), len(plan.jobs) - len(stale), time.perf_counter() - started, plan)

    def arrange(self, plan: MergePlan, model: nn.Module, *, shares: bool = True) -> None:
        """Have a new live model repeat layers by reference, and take over what the one before it holds already.

        Parameters of which a plan says the same become one tensor. A tensor of the model arranged before, if there
        was one, stays as it is where it is wanted, and is written anew where it is not; so a path through layers costs
        the memory of those layers that differ.

        Args:
            plan: what will be written next.
            model: built for it; with undefined parameters, which are not on an accelerator yet, or wherever the
                model before it was.
            shares: whether what holds the same is one tensor.
        """
        self._written = self._pool.arrange(plan, model, self._written, shares=shares)

    def _holds(self, address: int, content: TensorJob, target: Tensor) -> bool:
        """Whether a parameter has been written so. What was written is kept alive, so that no address is used anew."""
        held = self._written.get(address)
        return held is not None and held[0] == content and held[1].shape == target.shape

    def differentiate(
        self, job: TensorJob, gradient: Tensor, wanted: Collection[ParameterSlot] | None = None
    ) -> Mapping[ParameterSlot, float]:
        """`JobRunner.differentiate` with what this has read and found out, where the gradient is; on the CPU, to the
        same bits, where that has no room.

        Args:
            job: of a plan that was written.
            gradient: of a loss, by the tensor that the job makes.
            wanted: which slots; None for all.
        """
        device = torch.device(self._device or gradient.device)
        try:
            return self._runner(device, job.inputs).differentiate(job, gradient, wanted)
        except torch.OutOfMemoryError:
            gave_way = self.give_way()
        # Not inside the handler, whose traceback holds what the first attempt took.
        if gave_way:
            try:
                return self._runner(device, job.inputs).differentiate(job, gradient, wanted)
            except torch.OutOfMemoryError:
                pass
        return self._runner(torch.device("cpu"), job.inputs).differentiate(job, gradient, wanted)

    def _write(
        self,
        job: TensorJob,
        target: Tensor,
        device: torch.device,
        following: Iterable[JobInput],
        largest: LargestMagnitudes[TensorJob] | None,
    ) -> None:
        packed = isinstance(target, PackedWeight)
        live = target.detach()
        # A merge that can write to the live memory at once saves a pass over it.
        out = None if packed or not live.is_contiguous() or live.dtype not in (job.dtype, torch.float32) else live
        result = self._runner(device, job.inputs, following).run(job, out=out, largest=largest)
        if isinstance(target, PackedWeight):
            target.holder.pack(result.to(device_of(target)))
        elif result.data_ptr() != live.data_ptr():
            live.copy_(result)

    def give_way(self) -> bool:
        """Have no sources stay on accelerators, for something that needs their memory. Returns whether any did."""
        gave_way = [sources.give_way() for sources in self._sources.values()]
        return any(gave_way)

    def fingerprint(self, plan: MergePlan) -> str:
        """The fingerprint that the saved files of a plan have, for a live model that holds it in another form.

        Args:
            plan: every tensor of which is made anew.
        """
        runner = JobRunner(self._checkpoints, self._device or "cpu", statistics=self._statistics)
        return fingerprint((job.output, runner.run(job)) for job in plan.jobs if job.output not in plan.extra)

    def _runner(
        self, device: torch.device, inputs: Iterable[JobInput], following: Iterable[JobInput] = ()
    ) -> JobRunner:
        """What makes tensors on a device, where a job begins with its inputs; see `DeviceSources.begin`."""
        if device not in self._runners:
            read = None
            if needs_sources(device):
                self._sources[device] = DeviceSources(device, lambda source: source.read(self._checkpoints))
                read = self._sources[device].read
            self._runners[device] = JobRunner(
                self._checkpoints,
                device,
                statistics=self._statistics,
                statistics_cache=self._statistics_cache,
                read=read,
            )
        if device in self._sources:
            self._sources[device].begin(inputs, following)
        return self._runners[device]


def _ahead(
    jobs: Sequence[TensorJob], sizes: Sequence[int], devices: Sequence[torch.device]
) -> Iterator[list[JobInput]]:
    """What is asked for while each job is computed: inputs of the next one on its device, more while they are small."""
    end, size = 0, 0  # of what has been asked for, of jobs that have not begun
    for place, device in enumerate(devices):
        end, size = (place + 1, 0) if end <= place else (end, size - sizes[place])
        inputs: list[JobInput] = []
        while end < min(len(jobs), place + 1 + MOST_AHEAD) and size < AHEAD_BYTES and devices[end] == device:
            inputs += jobs[end].inputs
            size += sizes[end]
            end += 1
        yield inputs


def _source_bytes(job: TensorJob, checkpoints: Mapping[str, Checkpoint]) -> int:
    headers = (checkpoints[source.model].tensors[name] for source in job.inputs for name in source.stored)
    return sum(header.count * header.dtype.itemsize for header in headers)


def live_fingerprint(plan: MergePlan, parameters: Mapping[str, Tensor]) -> str:
    """The fingerprint that the saved files of a plan have, computed from live parameters that hold it.

    Args:
        plan: as in the `LiveMergeReport`.
        parameters: the live parameters.
    """
    names = live_names(plan, parameters)
    jobs = [job for job in plan.jobs if job.output not in plan.extra]
    return fingerprint((job.output, parameters[names[job.output]].to(job.dtype)) for job in jobs)


def needs_sources(device: torch.device) -> bool:
    """Whether inputs must be brought to a device: the CPU works on the mapped files themselves."""
    return device.type != "cpu"
