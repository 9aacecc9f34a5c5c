"""The table of merge methods: one row per method, one file per family of pure tensor functions."""

from __future__ import annotations

from torch import Tensor

from merge_core.methods.linear import linear
from merge_core.methods.method import REQUIRED, Method, MethodInputs, Parameter, SearchRange, Value
from merge_core.methods.passthrough import passthrough
from merge_core.methods.slerp import slerp
from merge_core.methods.task_vectors import Sparsifier, merge_task_vectors
from merge_core.sparsify import magnitude_mask, random_mask

__all__ = [
    "COMPATIBLE_PARAMETERS",
    "METHODS",
    "REQUIRED",
    "Method",
    "MethodInputs",
    "Parameter",
    "SearchRange",
    "Value",
]

WEIGHT = Parameter("weight", "number", "model", REQUIRED, SearchRange(0.0, 1.0), "the model's share")
DENSITY = Parameter(
    "density", "number", "model", 1.0, SearchRange(0.1, 1.0), "share of the task vector's entries that is kept"
)
LAMBDA = Parameter("lambda", "number", "global", 1.0, SearchRange(0.3, 1.5), "factor of the summed task vectors")
INT8_MASK = Parameter("int8_mask", "flag", "global", False, None, "accepted, and without effect on the result")
T = Parameter("t", "number", "global", REQUIRED, SearchRange(0.0, 1.0), "0 is the base model, 1 the other one")


def _normalize(default: bool) -> Parameter:
    return Parameter("normalize", "flag", "global", default, None, "divide by the sum of the weights")


def _rescale(default: bool) -> Parameter:
    return Parameter("rescale", "flag", "global", default, None, "restore each task vector's L1 norm")


def _run_linear(inputs: MethodInputs) -> Tensor:
    return linear(inputs.tensors, inputs.of_models("weight"), inputs.flag("normalize"))


def _run_slerp(inputs: MethodInputs) -> Tensor:
    return slerp(inputs.base_tensor, inputs.others[0], inputs.number("t"))


def _run_passthrough(inputs: MethodInputs) -> Tensor:
    scale = inputs.model_values["scale"][0]
    return passthrough(inputs.tensors[0], None if scale is None else float(scale))


def _merge(inputs: MethodInputs, sparsify: Sparsifier | None, elect: bool) -> Tensor:
    return merge_task_vectors(
        inputs.base_tensor,
        inputs.others,
        inputs.of_others("weight"),
        sparsify=sparsify,
        elect=elect,
        normalize=inputs.flag("normalize"),
        rescale=inputs.flag("rescale"),
        scaling=inputs.number("lambda"),
    )


def _run_task_arithmetic(inputs: MethodInputs) -> Tensor:
    return _merge(inputs, None, elect=False)


def _run_ties(inputs: MethodInputs) -> Tensor:
    densities = inputs.of_others("density")
    return _merge(inputs, lambda delta, i: delta * magnitude_mask(delta, densities[i]), elect=True)


def _run_dare(inputs: MethodInputs, elect: bool) -> Tensor:
    densities, draws = inputs.of_others("density"), inputs.draws_of_others()

    def drop_at_random(delta: Tensor, position: int) -> Tensor:
        if densities[position] >= 1.0:
            return delta
        return delta * random_mask(draws[position](), densities[position])

    return _merge(inputs, drop_at_random, elect)


_TASK_VECTOR_GLOBALS = (LAMBDA, INT8_MASK)
_ROWS = (
    Method(
        "linear",
        "Linear",
        _run_linear,
        (WEIGHT, _normalize(True)),
        "unused",
        "https://arxiv.org/abs/2203.05482",
    ),
    Method(
        "slerp",
        "SLERP",
        _run_slerp,
        (T,),
        "required",
        "https://en.wikipedia.org/wiki/Slerp",
        maximum_models=1,
    ),
    Method(
        "passthrough",
        "Passthrough",
        _run_passthrough,
        (Parameter("scale", "number", "model", None, SearchRange(0.0, 1.5), "factor of the tensor"),),
        "unused",
        "https://arxiv.org/abs/2312.15166",
        maximum_models=1,
    ),
    Method(
        "task_arithmetic",
        "Task Arithmetic",
        _run_task_arithmetic,
        (WEIGHT, _normalize(False), _rescale(False), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2212.04089",
    ),
    Method(
        "ties",
        "TIES",
        _run_ties,
        (WEIGHT, DENSITY, _normalize(True), _rescale(False), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2306.01708",
    ),
    Method(
        "dare_ties",
        "DARE TIES",
        lambda inputs: _run_dare(inputs, elect=True),
        (WEIGHT, DENSITY, _normalize(False), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2311.03099",
        randomised=True,
    ),
    Method(
        "dare_linear",
        "Linear DARE",
        lambda inputs: _run_dare(inputs, elect=False),
        (WEIGHT, DENSITY, _normalize(False), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2311.03099",
        randomised=True,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
"""Method name in a recipe → its row."""

COMPATIBLE_PARAMETERS = frozenset(name for method in _ROWS for name in method.by_name) | {"gamma", "epsilon"}
"""Every parameter of any method: recipes people have carry parameters that their method does not use."""
