"""Texts longer than a model's input, cut so that each token is predicted exactly once."""

from __future__ import annotations

from collections.abc import Sequence

Tokens = tuple[int, ...]


def rolling_windows(
    tokens: Sequence[int], prefix_token: int, window: int, stride: int | None = None
) -> list[tuple[Tokens, Tokens]]:
    """Cut a text into (context, continuation) pairs.

    The first window predicts `window` tokens; each later one the next `stride`, after as much context as fits. With
    `stride` equal to `window` these are the windows of lm-eval's rolling log-likelihood, with a smaller one those of
    its `get_rolling_token_windows(context_len=window - stride + 1)`.

    Args:
        tokens: Token ids of the text.
        prefix_token: What stands before the first token.
        window: Longest input, in tokens.
        stride: How many tokens a window predicts, from 1 to `window`, which is the default.
    """
    tokens = tuple(tokens)
    first = tokens[:window]
    if not first:
        return []
    windows: list[tuple[Tokens, Tokens]] = [((prefix_token,), first)]
    start = len(first)
    while start < len(tokens):
        end = min(start + (stride or window), len(tokens))
        windows.append((tokens[end - window - 1 : start], tokens[start:end]))
        start = end
    return windows
