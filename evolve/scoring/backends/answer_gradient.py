"""The gradient of the probability of right answers, by the parameters of a live model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from evolve.scoring.backends.continuation_scoring import LOGITS_AT_ONCE, Logits
from evolve.scoring.errors import ScoringError
from evolve.scoring.targets import Answer, Target


def family_loss(log_probability: torch.Tensor, exponent: float) -> torch.Tensor:
    """``−(p^q − 1)/q`` of the probability of being right: the q-logarithm (Tsallis 1994), negated.

    ``q → 0`` is the negative log-likelihood, which items that nobody can answer own; ``q = 1`` is minus the
    probability, the expected error of an answer drawn from the model, to which they add nothing, and neither do
    those that are sure.

    Args:
        log_probability: In nats, any shape.
        exponent: ``q``, from 0 to 1.
    """
    if exponent == 0.0:
        return -log_probability
    return -torch.expm1(exponent * log_probability) / exponent


def add_answer_gradient(
    logits: Logits,
    targets: Sequence[Target],
    weights: Sequence[float],
    exponent: float,
    *,
    max_length: int,
    max_batch_tokens: int,
    vocabulary_size: int,
    device: torch.device,
) -> list[float]:
    """Add the gradient of ``Σ w · family_loss(log p)`` to every parameter that requires one.

    Args:
        logits: Runs the model.
        targets: What is to become more probable.
        weights: Of each target.
        exponent: Of `family_loss`.
        max_length: Longest input of the model in tokens; contexts lose their beginning.
        max_batch_tokens: Rows times padded length of a micro-batch; the answers of a target stay together.
        vocabulary_size: Number of logits at each position.
        device: Where the model is.

    Returns:
        The probability of each target, from 0 to 1.

    Raises:
        ScoringError: A probability is not a number.
    """
    probabilities = [0.0] * len(targets)
    for batch in _micro_batches(targets, max_length, max_batch_tokens, vocabulary_size):
        with torch.enable_grad():
            sums = _answer_log_probabilities(logits, batch, device)
            found = torch.stack([_log_probability(targets[number], sums, batch.answers[number]) for number in batch])
            if not bool(torch.isfinite(found.detach()).all()):
                raise ScoringError("the probability of a right answer is not a number")
            scale = torch.tensor([weights[number] for number in batch], device=found.device, dtype=found.dtype)
            (scale * family_loss(found, exponent)).sum().backward()  # type: ignore[no-untyped-call]
        for number, value in zip(batch, found.detach().exp().tolist(), strict=True):
            probabilities[number] = value
    return probabilities


@dataclass(slots=True)
class _MicroBatch:
    """Targets that are run together.

    Attributes:
        rows: Inputs of the model → the answers read off each: number of the answer and its last tokens.
        answers: Number of a target → the numbers of its answers, right ones first.
        units: Of each answer.
    """

    rows: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = field(default_factory=dict)
    answers: dict[int, list[int]] = field(default_factory=dict)
    units: list[float] = field(default_factory=list)

    def __iter__(self) -> Iterator[int]:
        return iter(self.answers)

    def add(self, number: int, target: Target, max_length: int) -> None:
        """Take a target in."""
        self.answers[number] = []
        for answer in (*target.right, *target.wrong):
            self.answers[number].append(len(self.units))
            for tokens, continuation in _inputs(answer, max_length):
                self.rows.setdefault(tokens, []).append((len(self.units), continuation))
            self.units.append(answer.units)


def _inputs(answer: Answer, max_length: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for part in answer.parts:
        continuation = part.continuation[-max_length:]
        yield (part.context + continuation)[-(max_length + 1) : -1], continuation


def _micro_batches(
    targets: Sequence[Target], max_length: int, max_batch_tokens: int, vocabulary_size: int
) -> Iterator[_MicroBatch]:
    """Whole targets, the longest first, so that running out of memory happens at once."""

    def rows(target: Target) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [row for answer in (*target.right, *target.wrong) for row in _inputs(answer, max_length)]

    lengths = [max(len(tokens) for tokens, _ in rows(target)) for target in targets]
    batch, count, width, kept = _MicroBatch(), 0, 0, 0
    for number in sorted(range(len(targets)), key=lambda number: (-lengths[number], number)):
        more = len({tokens for tokens, _ in rows(targets[number])})
        width = width or lengths[number]
        own = min(len(tokens) - len(last) for tokens, last in rows(targets[number]))
        kept = max(kept, width - own)
        too_many = (count + more) * width > max_batch_tokens or (count + more) * kept * vocabulary_size > LOGITS_AT_ONCE
        if count and too_many:
            yield batch
            batch, count, width, kept = _MicroBatch(), 0, lengths[number], lengths[number] - own
        batch.add(number, targets[number], max_length)
        count += more
    if count:
        yield batch


def _answer_log_probabilities(logits_of: Logits, batch: _MicroBatch, device: torch.device) -> torch.Tensor:
    """The log-probability of every answer of a micro-batch, divided by its units; shape (answers,)."""
    width = max(map(len, batch.rows))
    kept = width - min(len(tokens) - len(last) for tokens, reads in batch.rows.items() for _, last in reads)
    inputs = torch.tensor([tokens + (0,) * (width - len(tokens)) for tokens in batch.rows], device=device)
    owners: list[int] = []
    rows: list[int] = []
    positions: list[int] = []
    expected: list[int] = []
    for row, (tokens, reads) in enumerate(batch.rows.items()):
        for answer, continuation in reads:
            owners += [answer] * len(continuation)
            rows += [row] * len(continuation)
            first = kept - (width - len(tokens)) - len(continuation)
            positions += range(first, first + len(continuation))
            expected += continuation
    logits = logits_of(inputs, kept)
    index = torch.tensor([rows, positions, expected, owners], device=logits.device)
    chosen = torch.log_softmax(logits[index[0], index[1]].float(), dim=-1)
    tokens_at = chosen.gather(1, index[2][:, None]).squeeze(1).double()
    sums = torch.zeros(len(batch.units), dtype=torch.float64, device=logits.device).index_add(0, index[3], tokens_at)
    return sums / torch.tensor(batch.units, dtype=torch.float64, device=logits.device)


def _log_probability(target: Target, sums: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """The log of the probability of being right."""
    right = torch.logsumexp(sums[list(answers[: len(target.right)])], dim=0)
    # Long answers count by the unit, so that several may add up to more than all there is.
    return right - torch.logsumexp(sums[list(answers)], dim=0) if target.wrong else right.clamp(max=0.0)
