"""Parameters of live models that hold the same are one tensor: a layer that is repeated takes no memory.

A path through the layers of models, with layers skipped and repeated, is a model of another depth. It is built anew,
without memory, and its parameters are those of the model before it as far as these hold what is wanted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from merge_core.execute.live_parameters import live_names, live_parameters
from merge_core.methods import METHODS
from merge_core.plan.plan import MergePlan
from merge_core.plan.tensor_job import TensorJob

Held = dict[int, tuple[TensorJob, Tensor]]
"""Address → what was written there, as `same_content` has it, and the parameter."""

Content = tuple[tuple[int, tuple[int, ...], TensorJob], ...]
"""What a parameter holds: for each part of it that a job writes, its distance from the start in bytes, its shape, and
the job."""


def same_content(job: TensorJob) -> TensorJob:
    """A job without the name of its tensor, unless random numbers are drawn by it: equal ones give equal bits."""
    return job if METHODS[job.method].randomised else replace(job, output="")


def repeated_outputs(plan: MergePlan) -> dict[str, str]:
    """Output tensor → an earlier one that holds the same, for all that do."""
    first: dict[TensorJob, str] = {}
    found = {}
    for job in plan.jobs:
        earlier = first.setdefault(same_content(job), job.output)
        if earlier != job.output:
            found[job.output] = earlier
    return found


class ParameterPool:
    """The parameters of the live model arranged last, of which the next one is put together."""

    def __init__(self) -> None:
        self._parameters: dict[nn.Parameter, list[tuple[int, tuple[int, ...]]]] = {}  # with the parts that are written

    def arrange(self, plan: MergePlan, model: nn.Module, held: Held, *, shares: bool) -> Held:
        """Give a model its parameters, see `LiveMerge.arrange`.

        Args:
            plan: what will be written into it.
            model: with parameters of the right shapes; they are replaced.
            held: what was written into the model arranged before.
            shares: whether what holds the same is one tensor.

        Returns:
            What is left of `held`: parameters that the model has now.
        """
        holding, idle = self._by_content(held)
        own = _contents(plan, model)
        used: dict[Content, nn.Parameter] = {}
        wanted = set(own.values())
        for content in wanted & holding.keys():
            used[content] = holding.pop(content)
        idle += holding.values()
        spare: defaultdict[tuple[tuple[int, ...], object], list[nn.Parameter]] = defaultdict(list)
        for parameter in idle:
            spare[tuple(parameter.shape), parameter.dtype].append(parameter)
        self._parameters = {}
        owners = _owners(model)
        for present, content in own.items():
            if content not in used:
                fitting = spare[tuple(present.shape), present.dtype]
                used[content] = fitting.pop() if fitting else present
            parameter = used[content] if shares else used.pop(content)
            self._parameters[parameter] = [(distance, shape) for distance, shape, _ in content]
            for module, name in owners[present]:
                setattr(module, name, parameter)
        kept = {address for parameter, parts in self._parameters.items() for address, _ in _places(parameter, parts)}
        return {address: what for address, what in held.items() if address in kept}

    def _by_content(self, held: Held) -> tuple[dict[Content, nn.Parameter], list[nn.Parameter]]:
        """The parameters by what they hold, and those of which nobody knows or another holds the same."""
        holding: dict[Content, nn.Parameter] = {}
        idle = []
        for parameter, parts in self._parameters.items():
            places = list(_places(parameter, parts))
            if all(address in held for address, _ in places):
                content = tuple(
                    (distance, shape, held[address][0])
                    for (address, _), (distance, shape) in zip(places, parts, strict=True)
                )
                if holding.setdefault(content, parameter) is parameter:
                    continue
            idle.append(parameter)
        return holding, idle


def _places(parameter: Tensor, parts: list[tuple[int, tuple[int, ...]]]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The addresses of parts, with their shapes."""
    for distance, shape in parts:
        yield parameter.data_ptr() + distance, shape


def _contents(plan: MergePlan, model: nn.Module) -> dict[nn.Parameter, Content]:
    """Each parameter that jobs write into → what they write."""
    live = live_parameters(model)
    names = live_names(plan, live)
    targets = {
        live[names[job.output]].data_ptr(): (job, live[names[job.output]]) for job in plan.jobs if job.output in names
    }
    addresses = sorted(targets)
    found = {}
    for parameter in model.parameters():
        start = parameter.data_ptr()
        within = addresses[bisect_left(addresses, start) : bisect_left(addresses, start + parameter.nbytes)]
        if within:
            found[parameter] = tuple(
                (address - start, tuple(targets[address][1].shape), same_content(targets[address][0]))
                for address in within
            )
    return found


def _owners(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Where each parameter is registered; a tied one in several places."""
    owners: defaultdict[nn.Parameter, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners[parameter].append((module, name))
    return owners
