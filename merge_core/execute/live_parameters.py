"""A live model's parameters under the names that checkpoints have.

Libraries rename and fuse weights when they load them: the experts of a layer, apart in every checkpoint, are one
parameter of the live model. What is merged for an expert is then written into a part of that parameter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from merge_core.checkpoint.layout import without_wrappers
from merge_core.errors import MergeError, and_more
from merge_core.execute.packed_weights import PackedWeight, packed_weights
from merge_core.plan.plan import MergePlan


class _View(Tensor):
    """A tensor of which views are taken, never copies: what asks for contiguous memory gets the view itself."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.contiguous:
            return args[0]
        return super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call]


class HasState(Protocol):
    """Tensors to be written in place that are in no modules here, such as those of an engine's file."""

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""


def live_parameters(model: nn.Module | HasState) -> dict[str, Tensor]:
    """Every saved parameter and buffer of a model, by its own name and by the name that checkpoints have for it.

    How checkpoint names and live ones belong together is asked of transformers, which undoes its renaming and
    fusing when it saves a model. Undone on the parameters themselves, without copies, it gives the parts of the
    fused ones.

    Args:
        model: of transformers; the parameters of any other are returned as they are.

    Returns:
        Name → parameter, or view of a parameter; a `PackedWeight` where a module holds its weight in another form.
    """
    # With the buffers that are saved too, such as the biases that balance experts.
    named: dict[str, Tensor] = dict(model.state_dict())
    if not isinstance(model, nn.Module):
        return named
    packed = {_place(named[name]): PackedWeight.of(named[name], one) for name, one in packed_weights(model).items()}
    named = _under_their_names(model, named)
    return {name: packed.get(_place(tensor), tensor) for name, tensor in named.items()} if packed else named


def _under_their_names(model: nn.Module, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names that checkpoints have."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return named
    if not hasattr(model, "config"):
        return named
    with torch.no_grad():
        saved = revert_weight_conversion(model, {name: tensor.as_subclass(_View) for name, tensor in named.items()})
    memory = {_place(tensor)[0] for tensor in named.values()}
    for name, tensor in saved.items():
        # A conversion that is not a choice of parts makes new memory, and writing into that changes no model.
        if name not in named and _place(tensor)[0] in memory:
            named[name] = tensor.as_subclass(Tensor)
    return named


def live_names(plan: MergePlan, parameters: Mapping[str, Tensor]) -> dict[str, str]:
    """Match the plan's tensor names with live parameter names.

    They are the same, but for a prefix of the whole model (``transformer.``) that a checkpoint may lack, buffers
    that are no parameters, and a tied head, which is another name of the embedding.

    Returns:
        Output name → live name, for every job but those of `MergePlan.extra` that the live model lacks.

    Raises:
        MergeError: names or shapes that do not match.
    """
    unwrapped: dict[str, set[str]] = {}
    for name in parameters:
        unwrapped.setdefault(without_wrappers(name), set()).add(name)
    matched: dict[str, str] = {}
    absent = []
    for job in plan.jobs:
        live = _live_name(job.output, parameters, unwrapped)
        if live is not None:
            matched[job.output] = live
        elif job.output not in plan.extra:
            absent.append(job.output)
    problems = []
    if absent:
        problems.append(f"the live model has no parameter for {and_more(absent)}. Build it from the plan's config")
    unwritten = _unwritten(parameters, {parameters[live] for live in matched.values()})
    if unwritten:
        problems.append(
            f"the merge does not make the live parameters {and_more(unwritten)}. "
            "Build the live model from the plan's config"
        )
    for job in plan.jobs:
        live = matched.get(job.output)
        if live is not None and tuple(parameters[live].shape) != job.shape:
            problems.append(
                f"{job.output}: the merge makes {list(job.shape)}, the live parameter is "
                f"{list(parameters[live].shape)}. Build the live model from the plan's config"
            )
    if problems:
        raise MergeError(*problems)
    return matched


def _live_name(output: str, parameters: Mapping[str, Tensor], unwrapped: Mapping[str, set[str]]) -> str | None:
    if output in parameters:
        return output
    names = unwrapped.get(without_wrappers(output), set())
    places = {_place(parameters[name]) for name in names}
    return min(names) if len(places) == 1 else None


def _unwritten(parameters: Mapping[str, Tensor], targets: Iterable[Tensor]) -> list[str]:
    """The live parameters that are not wholly covered by what is written."""
    written = sorted({(*_place(target), target.numel()) for target in targets})
    starts = [(storage, start) for storage, start, _ in written]
    counts = [0, *accumulate(count for _, _, count in written)]
    unwritten = set()
    end_of_last = (0, 0)
    for name, live in sorted(parameters.items(), key=lambda item: (_place(item[1]), -item[1].numel())):
        storage, start = _place(live)
        if (storage, start) < end_of_last:
            continue  # a part of the parameter before, or the same under another name
        end_of_last = storage, start + live.numel() * live.element_size()
        covered = counts[bisect_left(starts, end_of_last)] - counts[bisect_left(starts, (storage, start))]
        if covered < live.numel():
            unwritten.add(name)
    return [name for name in parameters if name in unwritten]


def _place(tensor: Tensor) -> tuple[int, int]:
    """Storage and byte in it, which tell parts of a parameter also on the meta device, where nothing has an address."""
    return int(tensor.untyped_storage()._cdata), int(tensor.storage_offset()) * tensor.element_size()
