"""Greedy decoding of a batch, with as little as possible around the model's forward.

`transformers.generate` spends as much time in Python as a small model spends in its forward: stopping
criteria that decode every row at every step, a growing cache that is copied for every token, and finished
rows that are computed to the end of the batch. This loop writes the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.errors import ScoringError

# Called with the model's keyword arguments; returns the last position's logits, shape (batch, vocabulary).
LastLogits = Callable[..., torch.Tensor]

# Finished rows are dropped when they are this part of the batch: dropping copies the cache once.
_DROP_WHEN_FINISHED = 0.25


def decode_greedily(
    last_logits: LastLogits,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: StopStrings,
    cache: Any,
    device: torch.device,
) -> list[list[int]]:
    """Continue each prompt with the most probable tokens.

    Args:
        last_logits: Runs the model.
        prompts: Token ids, none empty. Padding on the left makes them equally long; there is none, and no
            attention mask, where they already are.
        max_new_tokens: At most so many tokens are written.
        stop: Ends an answer early.
        cache: An empty key-value cache with room for the longest prompt and its answer.
        device: Where the model is.

    Returns:
        The generated token ids of each prompt, including the one that ended the answer.

    Raises:
        ScoringError: The model's logits are not finite.
    """
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    step_input = torch.tensor(padded, dtype=torch.long, device=device)
    mask: torch.Tensor | None = None
    columns = torch.arange(longest + max_new_tokens, device=device)
    if bool(padding.any()):
        mask = (columns >= padding[:, None]).long()
    positions = (columns[:longest] - padding[:, None]).clamp(min=0)

    answers: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))  # which prompt each row of the batch belongs to
    finished: set[int] = set()
    length = longest
    for written in range(1, max_new_tokens + 1):
        logits = last_logits(
            input_ids=step_input,
            attention_mask=None if mask is None else mask[:, :length],
            position_ids=positions,
            past_key_values=cache,
        )
        highest, tokens = logits.max(dim=-1)
        if not bool(torch.isfinite(highest).all()):
            raise ScoringError(f"the model's logits are not finite at token {written} of an answer")
        for prompt, token in zip(active, tokens.tolist(), strict=True):
            if prompt not in finished:
                answer = answers[prompt]
                answer.append(token)
                if token not in stop.harmless and stop.ends(answer):
                    finished.add(prompt)
        step_input = tokens[:, None]
        positions = positions[:, -1:] + 1
        length += 1
        rows = [row for row, prompt in enumerate(active) if prompt not in finished]
        if not rows or written == max_new_tokens:
            break
        if len(rows) <= (1 - _DROP_WHEN_FINISHED) * len(active):
            kept = torch.tensor(rows, device=device)
            cache.batch_select_indices(kept)
            step_input, positions = step_input[kept], positions[kept]
            mask = None if mask is None else mask[kept]
            active = [active[row] for row in rows]
    return answers
