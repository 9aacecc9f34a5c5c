"""The table of merge methods: one row per method, one file per family of pure tensor functions."""

from __future__ import annotations

from torch import Tensor

from merge_core.methods.arcee_fusion import arcee_fusion
from merge_core.methods.hypersphere import karcher, multislerp
from merge_core.methods.linear import linear
from merge_core.methods.method import (
    REQUIRED,
    InvalidParametersError,
    Method,
    MethodInputs,
    Parameter,
    SearchRange,
    Value,
)
from merge_core.methods.model_stock import model_stock
from merge_core.methods.nearswap import nearswap
from merge_core.methods.passthrough import passthrough
from merge_core.methods.ram import ram
from merge_core.methods.sce import sce
from merge_core.methods.slerp import nuslerp, slerp
from merge_core.methods.task_vectors import Sparsifier, merge_task_vectors
from merge_core.sparsify import TaskVector, drop_at_random, drop_by_rank, trim, trim_both

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
    return linear(inputs.tensors, inputs.of_models("weight"), inputs.flag("normalize"), inputs.dtype, inputs.out)


def _run_slerp(inputs: MethodInputs) -> Tensor:
    return slerp(inputs.base_tensor, inputs.others[0], inputs.number("t"))


def _run_passthrough(inputs: MethodInputs) -> Tensor:
    scale = inputs.model_values["scale"][0]
    return passthrough(inputs.tensors[0], None if scale is None else float(scale))


def _merge(inputs: MethodInputs, sparsify: Sparsifier, elect: bool) -> Tensor:
    base = inputs.base_tensor
    vectors = [
        TaskVector(
            inputs.tensors[position].reshape(-1),
            base.reshape(-1),
            tuple(base.shape),
            inputs.statistics(position),
            inputs.key(position),
        )
        for position in inputs.other_positions
    ]
    return merge_task_vectors(
        base,
        vectors,
        inputs.of_others("weight"),
        sparsify=sparsify,
        elect=elect,
        normalize=inputs.flag("normalize"),
        rescale=inputs.flag("rescale"),
        scaling=inputs.number("lambda"),
        dtype=inputs.dtype,
        out=inputs.out,
    )


def _run_task_arithmetic(inputs: MethodInputs) -> Tensor:
    return _merge(inputs, lambda vector, i: None, elect=False)


def _run_ties(inputs: MethodInputs) -> Tensor:
    densities = inputs.of_others("density")
    return _merge(inputs, lambda vector, i: trim(vector, densities[i]), elect=True)


def _run_dare(inputs: MethodInputs, elect: bool) -> Tensor:
    densities = inputs.of_others("density")
    return _merge(inputs, lambda vector, i: drop_at_random(vector, densities[i]), elect)


def _run_breadcrumbs(inputs: MethodInputs, elect: bool) -> Tensor:
    densities, gammas = inputs.of_others("density"), inputs.of_others("gamma")
    return _merge(inputs, lambda vector, i: trim_both(vector, densities[i], gammas[i]), elect)


def _run_della(inputs: MethodInputs, elect: bool) -> Tensor:
    densities, epsilons = inputs.of_others("density"), inputs.of_others("epsilon")
    for density, epsilon in zip(densities, epsilons, strict=True):
        if 0.0 < density < 1.0 and abs(epsilon) >= min(density, 1.0 - density):
            raise InvalidParametersError(
                f"density {density:g} and epsilon {epsilon:g}: density - epsilon and density + epsilon must lie "
                "between 0 and 1. Change one of them"
            )
    return _merge(inputs, lambda vector, i: drop_by_rank(vector, densities[i], epsilons[i]), elect)


def _run_nuslerp(inputs: MethodInputs) -> Tensor:
    first, second = inputs.of_others("weight")
    return nuslerp(
        inputs.others[0],
        inputs.others[1],
        (first, second),
        None if inputs.base is None else inputs.base_tensor,
        flatten=inputs.flag("nuslerp_flatten"),
        row_wise=inputs.flag("nuslerp_row_wise"),
    )


def _run_multislerp(inputs: MethodInputs) -> Tensor:
    return multislerp(
        inputs.others,
        inputs.of_others("weight"),
        None if inputs.base is None else inputs.base_tensor,
        normalize_weights=inputs.flag("normalize_weights"),
        epsilon=inputs.number("eps"),
    )


def _run_karcher(inputs: MethodInputs) -> Tensor:
    return karcher(inputs.tensors, max_iter=int(inputs.number("max_iter")), tol=inputs.number("tol"))


def _run_model_stock(inputs: MethodInputs) -> Tensor:
    return model_stock(inputs.base_tensor, inputs.others, filter_wise=inputs.flag("filter_wise"))


def _run_sce(inputs: MethodInputs) -> Tensor:
    return sce(inputs.base_tensor, inputs.others, select_topk=inputs.number("select_topk"))


def _run_nearswap(inputs: MethodInputs) -> Tensor:
    return nearswap(inputs.base_tensor, inputs.others[0], inputs.number("t"))


def _run_ram(inputs: MethodInputs) -> Tensor:
    return ram(inputs.base_tensor, inputs.others, epsilon=inputs.number("epsilon"), gain=0.0, ceiling=0.0)


def _run_ramplus(inputs: MethodInputs) -> Tensor:
    return ram(
        inputs.base_tensor,
        inputs.others,
        epsilon=inputs.number("epsilon"),
        gain=inputs.number("r"),
        ceiling=inputs.number("alpha"),
    )


GAMMA = Parameter(
    "gamma", "number", "model", 0.01, SearchRange(0.0, 0.1), "share of the largest entries that is dropped"
)
EPSILON = Parameter(
    "epsilon", "number", "model", 0.15, SearchRange(0.01, 0.3), "half the spread of the keep probabilities"
)
CHANGE = Parameter(
    "epsilon", "number", "global", 1e-5, SearchRange(1e-6, 1e-2, log=True), "largest difference that is no change"
)
_TASK_VECTOR_GLOBALS = (LAMBDA, INT8_MASK)
_ROWS = (
    Method(
        "linear",
        "Linear",
        _run_linear,
        (WEIGHT, _normalize(True)),
        "unused",
        "https://arxiv.org/abs/2203.05482",
        elementwise=True,
        adds_all=True,
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
        elementwise=True,
        adds_all=True,
    ),
    Method(
        "ties",
        "TIES",
        _run_ties,
        (WEIGHT, DENSITY, _normalize(True), _rescale(False), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2306.01708",
        elementwise=True,
    ),
    Method(
        "dare_ties",
        "DARE TIES",
        lambda inputs: _run_dare(inputs, elect=True),
        (WEIGHT, DENSITY, _normalize(False), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2311.03099",
        randomised=True,
        elementwise=True,
    ),
    Method(
        "dare_linear",
        "Linear DARE",
        lambda inputs: _run_dare(inputs, elect=False),
        (WEIGHT, DENSITY, _normalize(False), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2311.03099",
        randomised=True,
        elementwise=True,
    ),
    Method(
        "breadcrumbs",
        "Model Breadcrumbs",
        lambda inputs: _run_breadcrumbs(inputs, elect=False),
        (WEIGHT, DENSITY, GAMMA, _normalize(False), _rescale(False), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2312.06795",
        elementwise=True,
    ),
    Method(
        "breadcrumbs_ties",
        "Model Breadcrumbs with TIES",
        lambda inputs: _run_breadcrumbs(inputs, elect=True),
        (WEIGHT, DENSITY, GAMMA, _normalize(False), _rescale(False), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2312.06795",
        elementwise=True,
    ),
    Method(
        "della",
        "DELLA",
        lambda inputs: _run_della(inputs, elect=True),
        (WEIGHT, DENSITY, EPSILON, _normalize(True), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2406.11617",
        randomised=True,
        elementwise=True,
    ),
    Method(
        "della_linear",
        "Linear DELLA",
        lambda inputs: _run_della(inputs, elect=False),
        (WEIGHT, DENSITY, EPSILON, _normalize(False), _rescale(True), *_TASK_VECTOR_GLOBALS),
        "required",
        "https://arxiv.org/abs/2406.11617",
        randomised=True,
        elementwise=True,
    ),
    Method(
        "nuslerp",
        "NuSLERP",
        _run_nuslerp,
        (
            WEIGHT,
            Parameter("nuslerp_flatten", "flag", "global", True, None, "one angle for the whole tensor"),
            Parameter("nuslerp_row_wise", "flag", "global", False, None, "without flatten: rows, not columns"),
        ),
        "optional",
        "https://en.wikipedia.org/wiki/Slerp",
        minimum_models=2,
        maximum_models=2,
    ),
    Method(
        "multislerp",
        "Multi-SLERP",
        _run_multislerp,
        (
            WEIGHT,
            Parameter("normalize_weights", "flag", "global", True, None, "divide the weights by their sum"),
            Parameter("eps", "number", "global", 1e-8, None, "what counts as zero"),
        ),
        "optional",
        "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    ),
    Method(
        "karcher",
        "Karcher Mean",
        _run_karcher,
        (
            Parameter("max_iter", "integer", "global", 10, None, "most iterations"),
            Parameter("tol", "number", "global", 1e-5, None, "length of the step that ends them"),
        ),
        "unused",
        "https://arxiv.org/abs/2603.04972",
    ),
    Method(
        "model_stock",
        "Model Stock",
        _run_model_stock,
        (Parameter("filter_wise", "flag", "global", False, None, "one cosine per row"),),
        "required",
        "https://arxiv.org/abs/2403.19522",
        minimum_models=2,
    ),
    Method(
        "sce",
        "SCE",
        _run_sce,
        (
            Parameter("select_topk", "number", "global", 1.0, SearchRange(0.05, 1.0), "share of positions merged"),
            INT8_MASK,
        ),
        "required",
        "https://arxiv.org/abs/2408.07990",
    ),
    Method(
        "nearswap",
        "NearSwap",
        _run_nearswap,
        (Parameter("t", "number", "global", REQUIRED, SearchRange(1e-5, 1e-1, log=True), "distance moved at most"),),
        "required",
        "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        maximum_models=1,
    ),
    Method(
        "arcee_fusion",
        "Arcee Fusion",
        lambda inputs: arcee_fusion(inputs.base_tensor, inputs.others[0]),
        (),
        "required",
        "https://arcee.ai",
        maximum_models=1,
    ),
    Method("ram", "Reinforced Agent Merging", _run_ram, (CHANGE,), "required", "https://arxiv.org/abs/2601.13572"),
    Method(
        "ramplus_tl",
        "Reinforced Agent Merging Plus (Tensor-Local)",
        _run_ramplus,
        (
            CHANGE,
            Parameter("r", "number", "global", 0.1, SearchRange(0.0, 0.5), "gain of the unique entries"),
            Parameter("alpha", "number", "global", 0.2, SearchRange(0.0, 1.0), "largest shared/unique ratio counted"),
        ),
        "required",
        "https://arxiv.org/abs/2601.13572",
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
"""Method name in a recipe → its row."""

COMPATIBLE_PARAMETERS = frozenset(name for method in _ROWS for name in method.by_name)
"""Every parameter of any method: recipes people have carry parameters that their method does not use."""
