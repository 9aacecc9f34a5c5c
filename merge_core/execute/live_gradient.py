"""The gradient of a loss by a recipe's numbers, through a live model that holds the merge.

A backward pass makes the gradient of one weight after the other. Each is contracted with what the merge is made of,
⟨∂L/∂W, ∂W/∂p⟩, as soon as it is there, and thrown away: no graph leads through the merge, and no more than one weight's
gradient is held. AdaMerging (Yang et al. 2023, arXiv:2310.02575) learns coefficients by such gradients.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from merge_core.execute.job_runner import job_parameters
from merge_core.execute.live_parameters import live_names, live_parameters
from merge_core.execute.to_live_model import LiveMerge
from merge_core.methods import ParameterSlot
from merge_core.plan.plan import MergePlan
from merge_core.plan.tensor_job import TensorJob

Gradients = dict[str, dict[ParameterSlot, float]]
"""Output tensor → slot of a parameter → the derivative of the loss by it."""


def plan_parameters(plan: MergePlan, wanted: Collection[ParameterSlot] | None = None) -> Gradients:
    """The values of all numbers of a merge that a gradient can be followed in; reads no tensor.

    Args:
        plan: of the merge.
        wanted: which slots; None for all.

    Returns:
        Output tensor → slot → value, without the tensors that have no such number.
    """
    found = {
        job.output: {slot: value for slot, value in job_parameters(job).items() if wanted is None or slot in wanted}
        for job in plan.jobs
    }
    return {output: values for output, values in found.items() if values}


class LiveGradient:
    """Adds up the derivatives of losses by the parameters of the merge that a live model holds.

    Inside the context, weights made with a differentiable parameter require a gradient, all others do not; backward
    passes of any losses, any number of them, add to `totals`. Weights never keep a gradient.

    Args:
        live_merge: what wrote the merge; sources are read as it reads them.
        plan: of the merge, as in the `LiveMergeReport`.
        model: the live model.
        wanted: slots of the parameters that are asked for; None for all. Some take a merge each.

    Attributes:
        totals: output tensor → slot → derivative of the sum of all losses, as `plan_parameters` has values.

    Raises:
        MergeError: the model is not one that holds the plan, see `live_names`.

    >>> # with LiveGradient(live_merge, plan, model) as gradient:
    >>> #     loss(model).backward()
    >>> # gradient.totals["model.norm.weight"][ParameterSlot("lambda")]
    """

    def __init__(
        self,
        live_merge: LiveMerge,
        plan: MergePlan,
        model: nn.Module,
        wanted: Collection[ParameterSlot] | None = None,
    ) -> None:
        self._live_merge, self._wanted = live_merge, wanted
        values = plan_parameters(plan, wanted)
        self.totals: Gradients = {output: dict.fromkeys(slots, 0.0) for output, slots in values.items()}
        self._leaves = list(model.parameters())  # a tied one appears once
        self._targets = _targets(plan, live_parameters(model), self._leaves, values)
        self._before: list[bool] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> LiveGradient:
        self._before = [leaf.requires_grad for leaf in self._leaves]
        for number, leaf in enumerate(self._leaves):
            leaf.requires_grad_(number in self._targets)
            leaf.grad = None
            if number in self._targets:
                hook = partial(self._contract, number)
                self._hooks.append(leaf.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for leaf, before in zip(self._leaves, self._before, strict=True):
            leaf.requires_grad_(before)
            leaf.grad = None

    def _contract(self, number: int, leaf: Tensor) -> None:
        gradient, leaf.grad = leaf.grad, None
        if gradient is None:
            return
        if gradient.stride() != leaf.stride():
            # Parts are found by their place in memory, so it must be the weight's.
            gradient = torch.empty_like(leaf, dtype=gradient.dtype).copy_(gradient)
        for job, view in self._targets[number]:
            part = gradient.as_strided(view.shape, view.stride(), view.storage_offset() - leaf.storage_offset())
            total = self.totals[job.output]
            for slot, value in self._live_merge.differentiate(job, part, self._wanted).items():
                total[slot] += value


def _targets(
    plan: MergePlan, parameters: Mapping[str, Tensor], leaves: list[nn.Parameter], values: Gradients
) -> dict[int, list[tuple[TensorJob, Tensor]]]:
    """Number of a leaf → the jobs whose result it or a part of it holds, with the view that is written to."""
    names = live_names(plan, parameters)
    # Of two jobs that write to the same place, as to a tied head, the last one's values stay.
    writers = {_place(parameters[names[job.output]]): job for job in plan.jobs if job.output in names}
    places = sorted((leaf.data_ptr(), number) for number, leaf in enumerate(leaves) if leaf.numel())
    found: dict[int, list[tuple[TensorJob, Tensor]]] = {}
    for job in writers.values():
        if job.output not in values:
            continue
        view = parameters[names[job.output]].detach()
        address, number = places[max(bisect_right(places, (view.data_ptr(), len(leaves))) - 1, 0)]
        if 0 <= view.data_ptr() - address < leaves[number].nbytes:  # else a buffer, which has no gradient
            found.setdefault(number, []).append((job, view))
    return found


def _place(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape)
