"""The gradient of right answers against plain float64 arithmetic and finite differences of it."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch

from evolve.scoring import ScoringError
from evolve.scoring.backends.answer_gradient import add_answer_gradient, family_loss
from evolve.scoring.backends.checkpointing import checkpointed
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.language_model import PreparedContinuation
from evolve.scoring.targets import Answer, Target

WEIGHTS = [0.5, 1.5, 1.0, 0.25]


def continuation(generator: random.Random, vocabulary: int, length: int) -> PreparedContinuation:
    context = tuple(generator.randrange(3, vocabulary) for _ in range(generator.randint(2, 9)))
    return PreparedContinuation(context, tuple(generator.randrange(3, vocabulary) for _ in range(length)))


@pytest.fixture
def targets(tokenizer: Any) -> list[Target]:
    """An answer, one of two right answers of which one is longer, a choice among three, a text in two windows."""
    generator = random.Random(5)

    def one(length: int) -> PreparedContinuation:
        return continuation(generator, len(tokenizer), length)

    first = one(3)
    ended = PreparedContinuation(first.context, (*first.continuation, 2))
    other = PreparedContinuation(first.context, (*first.continuation, 7))
    return [
        Target((Answer((one(4),)),)),
        Target((Answer((ended,)), Answer((other,)))),
        Target((Answer((one(1),), 2.0),), (Answer((one(1),), 3.0), Answer((one(2),), 1.0))),
        Target((Answer((one(5), one(3)), 8.0),)),
    ]


@pytest.fixture
def double(model: Any) -> Any:
    return copy.deepcopy(model).double().requires_grad_(True)


def log_probability(model: Any, answer: Answer) -> float:
    """One forward for each part, no padding, log-softmax in float64."""
    total = 0.0
    for part in answer.parts:
        tokens = torch.tensor([part.context + part.continuation])
        with torch.no_grad():
            table = torch.log_softmax(model(input_ids=tokens).logits[0].double(), dim=-1)
        for place, token in enumerate(part.continuation):
            total += float(table[len(part.context) + place - 1, token])
    return total / answer.units


def probability(model: Any, target: Target) -> float:
    right = sum(math.exp(log_probability(model, answer)) for answer in target.right)
    wrong = sum(math.exp(log_probability(model, answer)) for answer in target.wrong)
    return right / (right + wrong) if target.wrong else right


def loss(model: Any, targets: list[Target], exponent: float) -> float:
    found = [probability(model, target) for target in targets]
    each = [-math.log(p) if exponent == 0 else -(p**exponent - 1) / exponent for p in found]
    return sum(weight * value for weight, value in zip(WEIGHTS, each, strict=True))


def gradients(
    backend: HFBackend, targets: list[Target], exponent: float
) -> tuple[list[float], dict[str, torch.Tensor]]:
    backend.model.zero_grad()
    found = backend.add_answer_gradient(targets, WEIGHTS, exponent)
    return found, {name: one.grad.clone() for name, one in backend.model.named_parameters()}


@pytest.mark.parametrize("exponent", [0.0, 0.25, 1.0])
def test_the_gradient_is_that_of_finite_differences(
    exponent: float, double: Any, tokenizer: Any, targets: list[Target]
) -> None:
    backend = HFBackend(double, tokenizer)
    found, gradient = gradients(backend, targets, exponent)
    assert found == pytest.approx([probability(double, target) for target in targets], rel=1e-5)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in double.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        step = 5e-4
        values = {}
        for place in (-2, -1, 1, 2):
            with torch.no_grad():
                parameter.add_(direction, alpha=place * step)
                values[place] = loss(double, targets, exponent)
                parameter.add_(direction, alpha=-place * step)
        slope = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)
        assert float((gradient[name] * direction).sum()) == pytest.approx(slope, rel=2e-3, abs=5e-3), name


def test_micro_batches_change_nothing_but_the_last_bits(double: Any, tokenizer: Any, targets: list[Target]) -> None:
    _, together = gradients(HFBackend(double, tokenizer), targets, 0.25)
    apart: dict[str, torch.Tensor] = {}
    for target, weight in zip(targets, WEIGHTS, strict=True):
        double.zero_grad()
        add_answer_gradient(
            lambda tokens, positions: double(input_ids=tokens).logits[:, -positions:],
            [target],
            [weight],
            0.25,
            max_length=64,
            max_batch_tokens=1,
            vocabulary_size=len(tokenizer),
            device=torch.device("cpu"),
        )
        for name, parameter in double.named_parameters():
            apart[name] = apart.get(name, 0) + parameter.grad
    for name, value in together.items():
        torch.testing.assert_close(value, apart[name], rtol=1e-5, atol=1e-8)


def test_checkpointing_changes_nothing_but_the_last_bits(double: Any, tokenizer: Any, targets: list[Target]) -> None:
    _, kept = gradients(HFBackend(double, tokenizer), targets, 0.25)
    backend = HFBackend(double, tokenizer)
    with checkpointed(double):
        assert double.model.layers[0].gradient_checkpointing
        assert not double.model.layers[0].self_attn.training
        _, anew = gradients(backend, targets, 0.25)
    assert not double.training
    assert not double.model.layers[0].training
    for name, value in kept.items():
        torch.testing.assert_close(value, anew[name], rtol=1e-9, atol=1e-12)


def test_hopeless_items_own_the_log_likelihood_and_not_the_probability() -> None:
    logs = torch.tensor([math.log(0.5), -30.0], dtype=torch.float64, requires_grad=True)
    shares = {}
    for exponent in (0.0, 0.25, 1.0):
        (slope,) = torch.autograd.grad(family_loss(logs, exponent).sum(), logs)
        assert (slope < 0).all()
        shares[exponent] = float(slope[1] / slope.sum())
    assert shares[0.0] == 0.5
    assert shares[0.0] > shares[0.25] > shares[1.0]
    assert shares[1.0] < 1e-12


def test_a_broken_model_is_told(double: Any, tokenizer: Any, targets: list[Target]) -> None:
    with torch.no_grad():
        next(double.parameters()).fill_(float("nan"))
    with pytest.raises(ScoringError, match="not a number"):
        HFBackend(double, tokenizer).add_answer_gradient(targets, WEIGHTS, 0.25)
