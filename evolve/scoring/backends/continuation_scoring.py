"""Log-probabilities of continuations, in batches that compute as little as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from evolve.scoring.errors import ScoringError

# Called with token ids, shape (batch, length), and a number of last positions; returns their logits,
# shape (batch, positions, vocabulary).
Logits = Callable[[torch.Tensor, int], torch.Tensor]

# At most so many logits at once (0.25 GiB in float32), whatever the vocabulary.
LOGITS_AT_ONCE = 1 << 26


@dataclass(slots=True)
class _Row:
    """One input of the model and every continuation that can be read off it."""

    tokens: tuple[int, ...]
    targets: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # (request, its continuation)

    @property
    def positions(self) -> int:
        """How many of the last positions have a logit that is needed."""
        return max(len(continuation) for _, continuation in self.targets)


class Totals:
    """The log-probability of each request's continuation, and whether greedy decoding would have written it.

    Args:
        requests: How many there are.
    """

    def __init__(self, requests: int) -> None:
        self._sums = torch.zeros(requests, dtype=torch.float64)
        self._greedy = torch.ones(requests, dtype=torch.bool)

    def add(self, logits: torch.Tensor, targets: Sequence[tuple[int, int, int, Sequence[int]]]) -> None:
        """Add the log-probabilities of tokens that the logits predict.

        Args:
            logits: Shape (rows, positions, vocabulary).
            targets: Request, row, position of its first token, and the tokens, which follow each other.

        Raises:
            ScoringError: The logits at a token are not finite.
        """
        requests: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        tokens: list[int] = []
        for request, row, first, continuation in targets:
            requests += [request] * len(continuation)
            rows += [row] * len(continuation)
            positions += range(first, first + len(continuation))
            tokens += continuation
        normalizer = torch.logsumexp(logits.float(), dim=-1)
        highest, best = logits.max(dim=-1)
        row, position, token = torch.tensor([rows, positions, tokens], device=logits.device)
        if not bool(torch.isfinite(highest[row, position]).all()):
            raise ScoringError("the model's logits are not finite at the continuation of a context")
        log_probability = logits[row, position, token].float() - normalizer[row, position]
        owner = torch.tensor(requests)
        self._sums.index_add_(0, owner, log_probability.double().cpu())
        self._greedy[owner[(best[row, position] != token).cpu()]] = False

    def results(self) -> list[tuple[float, bool]]:
        """Both for each request."""
        return list(zip(self._sums.tolist(), self._greedy.tolist(), strict=True))


def score_continuations(
    logits: Logits,
    pairs: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]],
    totals: Totals,
    *,
    max_length: int,
    max_batch_tokens: int,
    vocabulary_size: int,
    device: torch.device,
) -> None:
    """Add the log-probabilities of continuations of contexts to `totals`.

    Requests that need the same input (answer choices of one token after the same context) share one row.
    Rows are padded on the right, which causal attention never looks at, and sorted by length.

    Args:
        logits: Runs the model.
        pairs: For each request context and continuation, in token ids. Tokens before the last `max_length` are cut off.
        totals: Where the results go, by request.
        max_length: Longest input of the model.
        max_batch_tokens: Rows times padded length of a batch.
        vocabulary_size: Number of logits at each position.
        device: Where the model is.

    Raises:
        ScoringError: The model's logits are not finite, or a continuation is longer than the model's input.
    """
    rows: dict[tuple[int, ...], _Row] = {}
    for request, (context, continuation) in pairs.items():
        if len(continuation) > max_length:
            raise ScoringError(f"a continuation of {len(continuation)} tokens does not fit {max_length} positions")
        tokens = (context + continuation)[-(max_length + 1) : -1]
        rows.setdefault(tokens, _Row(tokens)).targets.append((request, continuation))
    for batch in _batches(sorted(rows.values(), key=_cost), max_batch_tokens, vocabulary_size):
        _score_batch(logits, batch, totals, device)


def _cost(row: _Row) -> tuple[int, tuple[int, ...]]:
    # Longest first, so that running out of memory happens at once; then by content, so that the batches of
    # a set of requests do not depend on the order they came in.
    return -len(row.tokens), row.tokens


def _batches(rows: Sequence[_Row], max_batch_tokens: int, vocabulary_size: int) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    kept = 0
    for row in rows:
        length = len(batch[0].tokens) if batch else len(row.tokens)
        kept_with_row = max(kept, length - len(row.tokens) + row.positions)
        fits = (len(batch) + 1) * length <= max_batch_tokens
        fits = fits and (len(batch) + 1) * kept_with_row * vocabulary_size <= LOGITS_AT_ONCE
        if batch and not fits:
            yield batch
            batch, kept_with_row = [], row.positions
        batch.append(row)
        kept = kept_with_row
    if batch:
        yield batch


def _score_batch(logits_of: Logits, batch: Sequence[_Row], totals: Totals, device: torch.device) -> None:
    length = len(batch[0].tokens)
    kept = max(length - len(row.tokens) + row.positions for row in batch)
    inputs = torch.tensor([row.tokens + (0,) * (length - len(row.tokens)) for row in batch], device=device)
    targets = [
        (request, index, kept - (length - len(row.tokens)) - len(continuation), continuation)
        for index, row in enumerate(batch)
        for request, continuation in row.targets
    ]
    totals.add(logits_of(inputs, kept), targets)
