"""The family that adds task vectors to a base: task arithmetic, TIES, DARE, Breadcrumbs, DELLA.

A member is three choices: how each task vector is sparsified, whether signs are elected, whether the sum is
divided by the weights. The rows at the end make them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.constants import NO_WEIGHT
from merge_core.kernels.output import FLOAT32, Output
from merge_core.kernels.selection import NOTHING, Move, Selection
from merge_core.kernels.sparsify import TaskVector, drop_at_random, drop_by_rank, trim, trim_both
from merge_core.methods.method import (
    Derivative,
    InvalidParametersError,
    Method,
    MethodInputs,
    Parameter,
    ParameterSlot,
    SearchRange,
    Value,
)
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import INT8_MASK, WEIGHT, normalize_parameter

Sparsifier = Callable[[TaskVector, int], Selection]
"""``sparsifier(task_vector, position)`` → which entries of it stay."""


def merge_task_vectors(
    base: Tensor,
    vectors: Sequence[TaskVector],
    weights: Sequence[float],
    *,
    sparsify: Sparsifier,
    elect: bool,
    normalize: bool,
    rescale: bool,
    scaling: float,
    output: Output = FLOAT32,
) -> Tensor:
    """``b + λ · Σ wᵢ δ̂ᵢ`` with ``δ̂ᵢ`` the sparsified ``xᵢ − b``, only agreeing signs summed if ``elect``.

    Task arithmetic: Ilharco et al. 2022, arXiv:2212.04089, section 2. Sign election and disjoint merge: Yadav
    et al. 2023, arXiv:2306.01708, section 4: the elected sign is that of ``Σ wᵢ δ̂ᵢ``, plus when it is 0; the
    disjoint mean divides by the weights of the agreeing terms.

    Args:
        base: the base model's tensor.
        vectors: the other models' task vectors.
        weights: one per task vector.
        sparsify: drops entries of a task vector.
        elect: keep, position by position, only the terms whose sign is that of the weighted sum.
        normalize: divide by the weights that took part (where they sum to 0, by 1).
        rescale: bring each sparsified task vector back to its L1 norm.
        scaling: ``λ``.
        output: what becomes of the result.

    Returns:
        Tensor of the base's shape.

    Raises:
        NotFiniteError: see `dispatch.combine`.
    """
    sources, rules, factors, shares = [], [], [], []
    for position, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
        if weight == 0.0:
            continue
        rule = sparsify(vector, position)
        sources.append(vector.source)
        rules.append(rule)
        factors.append(weight * _scale(vector, rule, rescale))
        shares.append(weight)
    if not elect:
        common = scaling / _divisor(weights, normalize)
        factors = [factor * common for factor in factors]
    return dispatch.combine(
        sources,
        base.reshape(-1),
        rules,
        factors,
        weights=shares if elect and normalize else (),
        elect=elect,
        scaling=scaling,
        output=output,
    ).view(base.shape)


def differentiate_task_vectors(
    gradient: Tensor,
    base: Tensor,
    vectors: Sequence[TaskVector],
    weights: Sequence[float],
    *,
    sparsify: Sparsifier,
    normalize: bool,
    rescale: bool,
    scaling: float,
) -> tuple[list[float], float]:
    """The derivatives of `merge_task_vectors` without election by the weights and by ``λ``, given ``G = ∂L/∂W``.

    Args:
        gradient: ``G``, of the base's shape.
        base, vectors, weights, sparsify, normalize, rescale, scaling: as there.

    Returns:
        ``∂L/∂wᵢ``, one per task vector, and ``∂L/∂λ``.
    """
    rules = [sparsify(vector, position) for position, vector in enumerate(vectors)]
    scales = [_scale(vector, rule, rescale) for vector, rule in zip(vectors, rules, strict=True)]
    products = dispatch.contract(
        gradient.reshape(-1), [vector.source for vector in vectors], base.reshape(-1), rules, scales=scales
    )
    divisor = _divisor(weights, normalize)
    merged = sum((weight * slope for weight, slope in zip(weights, products, strict=True)), 0.0) / divisor
    # The quotient rule; a divisor that stands for "nobody" is constant.
    shared = merged if normalize and abs(sum(weights)) >= NO_WEIGHT else 0.0
    return [scaling * (slope - shared) / divisor for slope in products], merged


def _differences(
    inputs: MethodInputs,
    gradient: Tensor,
    moved: Mapping[ParameterSlot, float],
    sparsify: Callable[[MethodInputs], Sparsifier],
    elect: bool,
) -> dict[ParameterSlot, float]:
    """`Method.differences`: a number of one model moves one term, so that all are told in one pass over the sources."""
    vectors, weights, scaling = _vectors(inputs), inputs.of_others("weight"), inputs.number("lambda")
    normalize, rescale, others = inputs.flag("normalize"), inputs.flag("rescale"), inputs.other_positions

    def term_of(there: MethodInputs, term: int) -> Move:
        rule = sparsify(there)(vectors[term], term)
        weight = there.of_others("weight")[term]
        return Move(term, rule, weight * _scale(vectors[term], rule, rescale), weight)

    terms = [
        # Who has no weight need not be read.
        term_of(inputs, term) if weight else Move(term, NOTHING, 0.0, 0.0)
        for term, weight in enumerate(weights)
    ]
    moves = {
        slot: term_of(inputs.with_value(slot, value), others.index(slot.position))
        for slot, value in moved.items()
        if slot.position is not None
    }
    sources, base = [vector.source for vector in vectors], inputs.base_tensor.reshape(-1)
    if elect:
        here, changes = dispatch.contract_elected(
            gradient.reshape(-1),
            sources,
            base,
            [term.rule for term in terms],
            [term.factor for term in terms],
            [*moves.values()],
            weights=weights if normalize else (),
        )
    else:
        every = [*terms, *moves.values()]
        rules, factors = [term.rule for term in every], [term.factor for term in every]
        products = dispatch.contract(
            gradient.reshape(-1), [sources[term.term] for term in every], base, rules, scales=factors
        )
        total, divisor = sum(products[: len(terms)]), _divisor(weights, normalize)
        here, changes = total / divisor, []
        for move, product in zip(moves.values(), products[len(terms) :], strict=True):
            shares = [move.weight if term == move.term else weight for term, weight in enumerate(weights)]
            changes.append((total - products[move.term] + product) / _divisor(shares, normalize) - here)
    if not all(map(math.isfinite, (here, *changes))) and dispatch.is_finite(gradient):
        raise dispatch.NotFiniteError
    found = {slot: change * scaling for slot, change in zip(moves, changes, strict=True)}
    return found | {slot: (value - scaling) * here for slot, value in moved.items() if slot.position is None}


def _divisor(weights: Sequence[float], normalize: bool) -> float:
    total = sum(weights)
    return total if normalize and abs(total) >= NO_WEIGHT else 1.0


def _scale(vector: TaskVector, rule: Selection, rescale: bool) -> float:
    """What brings a sparsified task vector back to its L1 norm; 1 without ``rescale``."""
    if not rescale or rule is None:
        return 1.0
    # What tells the sum of the kept may tell that of all.
    sparse, whole = (vector.statistics.magnitude_sum(vector.source, vector.base, kept) for kept in (rule, None))
    return whole / sparse if sparse else 1.0


def _merge(inputs: MethodInputs, sparsify: Sparsifier, elect: bool) -> Tensor:
    return merge_task_vectors(
        inputs.base_tensor,
        _vectors(inputs),
        inputs.of_others("weight"),
        sparsify=sparsify,
        elect=elect,
        normalize=inputs.flag("normalize"),
        rescale=inputs.flag("rescale"),
        scaling=inputs.number("lambda"),
        output=inputs.output,
    )


def _differentiate(inputs: MethodInputs, gradient: Tensor, sparsify: Sparsifier) -> Mapping[ParameterSlot, float]:
    by_weight, by_lambda = differentiate_task_vectors(
        gradient,
        inputs.base_tensor,
        _vectors(inputs),
        inputs.of_others("weight"),
        sparsify=sparsify,
        normalize=inputs.flag("normalize"),
        rescale=inputs.flag("rescale"),
        scaling=inputs.number("lambda"),
    )
    weights = zip(inputs.other_positions, by_weight, strict=True)
    return {
        **{ParameterSlot("weight", position): value for position, value in weights},
        ParameterSlot("lambda"): by_lambda,
    }


def _vectors(inputs: MethodInputs) -> list[TaskVector]:
    base = inputs.base_tensor
    return [
        TaskVector(
            inputs.tensors[position].reshape(-1),
            base.reshape(-1),
            tuple(base.shape),
            inputs.statistics(position),
            inputs.key(position),
        )
        for position in inputs.other_positions
    ]


def _keep_all(inputs: MethodInputs) -> Sparsifier:
    return lambda vector, i: None


def _trim(inputs: MethodInputs) -> Sparsifier:
    densities = inputs.of_others("density")
    return lambda vector, i: trim(vector, densities[i])


def _drop_at_random(inputs: MethodInputs) -> Sparsifier:
    densities = inputs.of_others("density")
    return lambda vector, i: drop_at_random(vector, densities[i])


def _trim_both(inputs: MethodInputs) -> Sparsifier:
    densities, gammas = inputs.of_others("density"), inputs.of_others("gamma")
    return lambda vector, i: trim_both(vector, densities[i], gammas[i])


def _drop_by_rank(inputs: MethodInputs) -> Sparsifier:
    densities, epsilons = inputs.of_others("density"), inputs.of_others("epsilon")
    for density, epsilon in zip(densities, epsilons, strict=True):
        fault = _rank_fault({"density": density, "epsilon": epsilon})
        if fault is not None:
            raise InvalidParametersError(fault)
    return lambda vector, i: drop_by_rank(vector, densities[i], epsilons[i])


def _rank_fault(values: Mapping[str, Value | None]) -> str | None:
    """Keep probabilities run from density - epsilon to density + epsilon; all or nothing needs none."""
    density, epsilon = float(values["density"] or 0.0), float(values["epsilon"] or 0.0)
    if not 0.0 < density < 1.0 or abs(epsilon) < min(density, 1.0 - density):
        return None
    return (
        f"density {density:g} and epsilon {epsilon:g}: density - epsilon and density + epsilon must lie between 0 "
        "and 1. Change one of them"
    )


def _share(name: str, default: float, low: float, high: float, description: str) -> Parameter:
    """A number in [0, 1] of each model, searched between ``low`` and ``high``."""
    return Parameter(name, "number", "model", default, SearchRange(low, high), description, least=0.0, most=1.0)


DENSITY = _share("density", 1.0, 0.1, 1.0, "share of the task vector's entries that is kept")
GAMMA = _share("gamma", 0.01, 0.0, 0.1, "share of the largest entries that is dropped")
EPSILON = _share("epsilon", 0.15, 0.01, 0.3, "half the spread of the keep probabilities")
LAMBDA = Parameter("lambda", "number", "global", 1.0, SearchRange(0.3, 1.5), "factor of the summed task vectors")


def _row(
    name: str,
    title: str,
    source: str,
    sparsify: Callable[[MethodInputs], Sparsifier],
    own: tuple[Parameter, ...] = (),
    *,
    elect: bool = False,
    normalize: bool = False,
    rescale: bool = False,
    randomised: bool = False,
) -> Method:
    """A member of the family; `normalize` and `rescale` are the defaults of these parameters."""
    return Method(
        name,
        title,
        lambda inputs: _merge(inputs, sparsify(inputs), elect),
        (
            WEIGHT,
            *own,
            normalize_parameter(normalize),
            Parameter("rescale", "flag", "global", rescale, None, "restore each task vector's L1 norm"),
            LAMBDA,
            INT8_MASK,
        ),
        "required",
        source,
        randomised=randomised,
        elementwise=True,
        # What is sparsified or outvoted need not show in the result.
        adds_all=not own and not elect,
        elects=elect,
        fault=_rank_fault if EPSILON in own else None,
        # What is elected changes with the weights, which no formula sees.
        differences=lambda inputs, gradient, moved: _differences(inputs, gradient, moved, sparsify, elect),
        derivative=None
        if elect
        else Derivative(
            ("weight", "lambda"), lambda inputs, gradient: _differentiate(inputs, gradient, sparsify(inputs))
        ),
    )


_TIES = "https://arxiv.org/abs/2306.01708"
_DARE = "https://arxiv.org/abs/2311.03099"
_BREADCRUMBS = "https://arxiv.org/abs/2312.06795"
_DELLA = "https://arxiv.org/abs/2406.11617"
_DENSE, _INNER, _RANKED = (DENSITY,), (DENSITY, GAMMA), (DENSITY, EPSILON)

register(
    _row("task_arithmetic", "Task Arithmetic", "https://arxiv.org/abs/2212.04089", _keep_all),
    _row("ties", "TIES", _TIES, _trim, _DENSE, elect=True, normalize=True),
    _row("dare_ties", "DARE TIES", _DARE, _drop_at_random, _DENSE, elect=True, rescale=True, randomised=True),
    _row("dare_linear", "Linear DARE", _DARE, _drop_at_random, _DENSE, rescale=True, randomised=True),
    _row("breadcrumbs", "Model Breadcrumbs", _BREADCRUMBS, _trim_both, _INNER),
    _row("breadcrumbs_ties", "Model Breadcrumbs with TIES", _BREADCRUMBS, _trim_both, _INNER, elect=True),
    _row("della", "DELLA", _DELLA, _drop_by_rank, _RANKED, elect=True, normalize=True, rescale=True, randomised=True),
    _row("della_linear", "Linear DELLA", _DELLA, _drop_by_rank, _RANKED, rescale=True, randomised=True),
)
