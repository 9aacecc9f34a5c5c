"""Log-probabilities of continuations, in batches that compute as little as possible."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from tasks.errors import ScoringError

# Called with token ids, shape (batch, length), and a number of last positions; returns their logits,
# shape (batch, positions, vocabulary).
Logits = Callable[[torch.Tensor, int], torch.Tensor]

# At most so many logits at once (0.25 GiB in float32), whatever the vocabulary.
_LOGITS_AT_ONCE = 1 << 26


@dataclass(slots=True)
class _Row:
    """One input of the model and every continuation that can be read off it."""

    tokens: tuple[int, ...]
    targets: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # (request, its continuation)

    @property
    def positions(self) -> int:
        """How many of the last positions have a logit that is needed."""
        return max(len(continuation) for _, continuation in self.targets)


def score_continuations(
    logits: Logits,
    pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    *,
    max_length: int,
    max_batch_tokens: int,
    vocabulary_size: int,
    device: torch.device,
) -> list[tuple[float, bool]]:
    """Score continuations of contexts.

    Requests that need the same input (answer choices of one token after the same context) share one row.
    Rows are padded on the right, which causal attention never looks at, and sorted by length.

    Args:
        logits: Runs the model.
        pairs: Context and continuation, in token ids. Tokens before the last `max_length` are cut off.
        max_length: Longest input of the model.
        max_batch_tokens: Rows times padded length of a batch.
        vocabulary_size: Number of logits at each position.
        device: Where the model is.

    Returns:
        For each the sum of its tokens' log-probabilities in float32, and whether each is the most probable.

    Raises:
        ScoringError: The model's logits are not finite, or a continuation is longer than the model's input.
    """
    rows: dict[tuple[int, ...], _Row] = {}
    for request, (context, continuation) in enumerate(pairs):
        if len(continuation) > max_length:
            raise ScoringError(f"a continuation of {len(continuation)} tokens does not fit {max_length} positions")
        tokens = (context + continuation)[-(max_length + 1) : -1]
        rows.setdefault(tokens, _Row(tokens)).targets.append((request, continuation))
    totals = torch.zeros(len(pairs), dtype=torch.float64)
    greedy = torch.ones(len(pairs), dtype=torch.bool)
    for batch in _batches(sorted(rows.values(), key=_cost), max_batch_tokens, vocabulary_size):
        _score_batch(logits, batch, totals, greedy, device)
    return list(zip(totals.tolist(), greedy.tolist(), strict=True))


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
        fits = fits and (len(batch) + 1) * kept_with_row * vocabulary_size <= _LOGITS_AT_ONCE
        if batch and not fits:
            yield batch
            batch, kept_with_row = [], row.positions
        batch.append(row)
        kept = kept_with_row
    if batch:
        yield batch


def _score_batch(
    logits_of: Logits,
    batch: Sequence[_Row],
    totals: torch.Tensor,
    greedy: torch.Tensor,
    device: torch.device,
) -> None:
    """Add the batch's log-probabilities to `totals` and clear `greedy` where a token is not the best."""
    length = len(batch[0].tokens)
    kept = max(length - len(row.tokens) + row.positions for row in batch)
    inputs = torch.tensor([row.tokens + (0,) * (length - len(row.tokens)) for row in batch], device=device)
    logits = logits_of(inputs, kept)
    normalizer = torch.logsumexp(logits.float(), dim=-1)
    highest, best = logits.max(dim=-1)

    requests: list[int] = []
    row_index: list[int] = []
    position: list[int] = []
    target: list[int] = []
    for index, row in enumerate(batch):
        end = kept - (length - len(row.tokens))
        for request, continuation in row.targets:
            requests += [request] * len(continuation)
            row_index += [index] * len(continuation)
            position += range(end - len(continuation), end)
            target += continuation
    at = torch.tensor([row_index, position, target], device=device)
    if not bool(torch.isfinite(highest[at[0], at[1]]).all()):
        raise ScoringError("the model's logits are not finite at the continuation of a context")
    log_probability = logits[at[0], at[1], at[2]].float() - normalizer[at[0], at[1]]
    owner = torch.tensor(requests)
    totals.index_add_(0, owner, log_probability.double().cpu())
    greedy[owner[(best[at[0], at[1]] != at[2]).cpu()]] = False
