"""Log-probabilities of several continuations of one context, which is computed once.

Four answers to a question of a thousand tokens cost four times the question when each is scored by itself. Here the
contexts run first and leave their keys and values; the continuations follow as rows of their own on copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evolve.scoring.backends.continuation_scoring import LOGITS_AT_ONCE, Totals

Tokens = tuple[int, ...]

# Called with a number of last positions and the model's keyword arguments; returns logits, shape (batch, positions
# or more, vocabulary).
Forward = Callable[..., torch.Tensor]

# Shorter contexts are cheaper to compute again than to hand over in a second pass.
_SHORTEST_SHARED = 32


@dataclass(frozen=True, slots=True)
class SharedContext:
    """A context and its continuations: (request, tokens), of which at least two differ and are longer than a token."""

    tokens: Tokens
    continuations: tuple[tuple[int, Tokens], ...]

    @property
    def rows(self) -> list[Tokens]:
        """The different inputs after the context; the last token of a continuation is only predicted."""
        return sorted({continuation[:-1] for _, continuation in self.continuations if len(continuation) > 1})

    @property
    def width(self) -> int:
        """Tokens of the context and the longest input after it."""
        return len(self.tokens) + max(map(len, self.rows))


def find_shared_contexts(pairs: Sequence[tuple[Tokens, Tokens]], max_length: int) -> list[SharedContext]:
    """The contexts that are worth computing once.

    Args:
        pairs: Context and continuation of each request.
        max_length: Longest input of the model; a context that loses tokens to a continuation is not shared.
    """
    groups: dict[Tokens, list[tuple[int, Tokens]]] = {}
    for request, (context, continuation) in enumerate(pairs):
        if len(context) >= _SHORTEST_SHARED:
            groups.setdefault(context, []).append((request, continuation))
    shared = (SharedContext(tokens, tuple(members)) for tokens, members in groups.items() if len(members) > 1)
    return [group for group in shared if len(group.rows) > 1 and group.width <= max_length]


def score_shared_contexts(
    forward: Forward,
    groups: Sequence[SharedContext],
    totals: Totals,
    *,
    make_cache: Callable[[int], Any],
    max_batch_tokens: int,
    vocabulary_size: int,
    device: torch.device,
) -> None:
    """Add the log-probabilities of all continuations of some contexts to `totals`.

    Args:
        forward: Runs the model.
        groups: Contexts with their continuations.
        totals: Where the results go, by request.
        make_cache: Makes an empty key-value cache with room for so many tokens in a row.
        max_batch_tokens: Twice so many tokens of context, counted once for each continuation, are held at a time.
        vocabulary_size: Number of logits at each position.
        device: Where the model is.

    Raises:
        ScoringError: The model's logits are not finite.
    """
    # Longest first, then by content: batches do not depend on the order of the requests.
    ordered = sorted(groups, key=lambda group: (-group.width, group.tokens))
    for batch in _batches(ordered, 2 * max_batch_tokens, vocabulary_size):
        _score_batch(forward, batch, totals, make_cache, device)


def _batches(
    groups: Sequence[SharedContext], max_cached_tokens: int, vocabulary_size: int
) -> Iterator[list[SharedContext]]:
    batch: list[SharedContext] = []
    rows = longest = 0
    for group in groups:
        rows_with, longest_with = rows + len(group.rows), max(longest, *map(len, group.rows))
        fits = rows_with * max((batch or [group])[0].width, group.width) <= max_cached_tokens
        fits = fits and rows_with * longest_with * vocabulary_size <= LOGITS_AT_ONCE
        if batch and not fits:
            yield batch
            batch, rows_with, longest_with = [], len(group.rows), max(map(len, group.rows))
        batch.append(group)
        rows, longest = rows_with, longest_with
    if batch:
        yield batch


def _score_batch(
    forward: Forward,
    batch: Sequence[SharedContext],
    totals: Totals,
    make_cache: Callable[[int], Any],
    device: torch.device,
) -> None:
    longest = max(len(group.tokens) for group in batch)
    rows = [(owner, tokens) for owner, group in enumerate(batch) for tokens in group.rows]
    after = max(len(tokens) for _, tokens in rows)
    # Contexts are padded on the left, so that what follows is next to them.
    padding = torch.tensor([longest - len(group.tokens) for group in batch], device=device)
    columns = torch.arange(longest + after, device=device)
    mask = (columns >= padding[:, None]).long() if bool(padding.any()) else None
    inputs = [(0,) * (longest - len(group.tokens)) + group.tokens for group in batch]
    cache = make_cache(longest + after)
    logits = forward(
        1,
        input_ids=torch.tensor(inputs, device=device),
        attention_mask=None if mask is None else mask[:, :longest],
        position_ids=(columns[:longest] - padding[:, None]).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )[:, -1:]
    totals.add(
        logits,
        [
            (request, owner, 0, continuation[:1])
            for owner, group in enumerate(batch)
            for request, continuation in group.continuations
        ],
    )
    owners = torch.tensor([owner for owner, _ in rows], device=device)
    cache.batch_select_indices(owners)
    logits = forward(
        after,
        input_ids=torch.tensor([tokens + (0,) * (after - len(tokens)) for _, tokens in rows], device=device),
        attention_mask=None if mask is None else mask[owners],
        position_ids=columns[longest:] - padding[owners, None],
        past_key_values=cache,
        use_cache=True,
    )[:, -after:]
    number = {row: index for index, row in enumerate(rows)}
    totals.add(
        logits,
        [
            (request, number[owner, continuation[:-1]], 0, continuation[1:])
            for owner, group in enumerate(batch)
            for request, continuation in group.continuations
            if len(continuation) > 1
        ],
    )
