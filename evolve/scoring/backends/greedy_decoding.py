"""Greedy decoding of a batch, with as little as possible around the model's forward.

`transformers.generate` spends as much time in Python as a small model spends in its forward: stopping
criteria that decode every row at every step, a growing cache that is copied for every token, and finished
rows that are computed to the end of the batch. This loop writes the same tokens.

On a card the forward of one token is bound by the launches of its kernels. There tokens are looked at a few at a time,
since every look waits for the card; and after the first look a step is recorded once and replayed, see
`recorded_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.errors import ScoringError

# Called with the model's keyword arguments; returns the last position's logits, shape (batch, vocabulary).
LastLogits = Callable[..., torch.Tensor]

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs a step once, and returns what runs it again, and again."""

# Finished rows are dropped when they are this part of the batch: dropping copies the cache once, and a step that was
# recorded is recorded anew.
_DROP_WHEN_FINISHED = 0.25
_DROP_WHEN_RECORDED = 0.5

FEWEST_RECORDED = 16  # tokens, for which recording pays


def decode_greedily(
    last_logits: LastLogits,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Sequence[StopStrings],
    cache: Any,
    device: torch.device,
    *,
    look_every: int = 1,
    look_first: int | None = None,
    record: Record | None = None,
) -> list[list[int]]:
    """Continue each prompt with the most probable tokens.

    Args:
        last_logits: Runs the model.
        prompts: Token ids, none empty. Padding on the left makes them equally long; there is none, and no
            attention mask, where they already are.
        max_new_tokens: At most so many tokens are written.
        stops: End the answer to each prompt early.
        cache: An empty key-value cache with room for the longest prompt and its answer.
        device: Where the model is.
        look_every: After how many tokens it is seen which answers are over; what is written after an end is dropped.
        look_first: After how many for the first time, if not as every time. After one, steps are recorded.
        record: Makes later steps faster; `cache` is of `PreallocatedLayer`s then, and the model takes masks of four
            dimensions.

    Returns:
        The generated token ids of each prompt, including the one that ended the answer.

    Raises:
        ScoringError: The model's logits are not finite.
    """
    longest = max(map(len, prompts))
    capacity = longest + max_new_tokens
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    step_input = torch.tensor(padded, dtype=torch.long, device=device)
    columns = torch.arange(capacity, device=device)
    unpadded = columns >= padding[:, None]
    has_mask = min(map(len, prompts)) < longest
    positions = (columns[:longest] - padding[:, None]).clamp(min=0)

    answers = _Answers(stops)
    length = longest  # of what the model has read after the next step
    recorded: _FixedStep | None = None
    while True:
        steps = min(look_every if answers.written else look_first or look_every, max_new_tokens - answers.written)
        if recorded is not None:
            looked = recorded.run(steps)
        else:
            taken = []
            for _ in range(steps):
                logits = last_logits(
                    input_ids=step_input,
                    attention_mask=unpadded[:, :length].long() if has_mask else None,
                    position_ids=positions,
                    past_key_values=cache,
                )
                highest, tokens = logits.max(dim=-1)
                taken.append(torch.cat([tokens, torch.isfinite(highest).all().long()[None]]))
                step_input, positions = tokens[:, None], positions[:, -1:] + 1
                length += 1
            looked = torch.stack(taken)
        rows = answers.add(looked.tolist())
        left = max_new_tokens - answers.written
        if not rows or not left:
            return answers.tokens
        share = _DROP_WHEN_FINISHED if recorded is None else _DROP_WHEN_RECORDED
        if len(rows) <= (1 - share) * len(answers.active) and (recorded is None or left >= FEWEST_RECORDED):
            kept = torch.tensor(rows, device=device)
            cache.batch_select_indices(kept)
            if recorded is not None:
                step_input, positions, length = recorded.tokens, recorded.positions, longest + answers.written
                recorded = None
            step_input, positions, unpadded = step_input[kept], positions[kept], unpadded[kept]
            answers.keep(rows)
        if recorded is None and record is not None and left >= FEWEST_RECORDED:
            recorded = _FixedStep(last_logits, cache, step_input, positions, unpadded, length - 1, look_every, record)


class _Answers:
    """What was written, and which rows of the batch still write.

    Attributes:
        tokens: Of each prompt's answer.
        active: Which prompt each row of the batch belongs to.
        written: Tokens of each row.
    """

    def __init__(self, stops: Sequence[StopStrings]) -> None:
        self.tokens: list[list[int]] = [[] for _ in stops]
        self.active = list(range(len(stops)))
        self.written = 0
        self._stops = stops
        self._finished: set[int] = set()

    def add(self, steps: Sequence[Sequence[int]]) -> list[int]:
        """Take over tokens, by step and row, each step with whether its logits were finite; returns rows not over."""
        for *row, is_finite in steps:
            self.written += 1
            if len(self._finished) == len(self.tokens):
                continue
            if not is_finite:
                raise ScoringError(f"the model's logits are not finite at token {self.written} of an answer")
            for prompt, token in zip(self.active, row, strict=True):
                if prompt not in self._finished:
                    answer, stop = self.tokens[prompt], self._stops[prompt]
                    answer.append(token)
                    if token not in stop.harmless and stop.ends(answer):
                        self._finished.add(prompt)
        return [row for row, prompt in enumerate(self.active) if prompt not in self._finished]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows go on."""
        self.active = [self.active[row] for row in rows]


class _FixedStep:
    """A step that reads and writes the same memory every time, and runs as recorded.

    Args:
        last_logits: Runs the model.
        cache: Holds ``length`` tokens.
        tokens, positions: Of the next step: (batch, 1).
        unpadded: Which places of the cache are no padding: bool (batch, capacity).
        length: See above.
        look_every: Steps of a run at most.
        record: See `decode_greedily`.
    """

    def __init__(
        self,
        last_logits: LastLogits,
        cache: Any,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        unpadded: torch.Tensor,
        length: int,
        look_every: int,
        record: Record,
    ) -> None:
        self.tokens, self.positions = tokens.clone(), positions.clone()
        self._last_logits, self._cache, self._record = last_logits, cache, record
        self._place = torch.tensor([length], device=tokens.device)
        self._visible = unpadded & (torch.arange(unpadded.shape[1], device=tokens.device) < length)
        self._taken = tokens.new_zeros(look_every, len(tokens) + 1)
        self._slot = torch.zeros_like(self._place)
        self._again: Callable[[], None] | None = None
        for layer in cache.layers:
            layer.fix(self._place)

    def run(self, steps: int) -> torch.Tensor:
        """Tokens by step and row, each step with whether its logits were finite."""
        self._slot.zero_()
        for _ in range(steps):
            if self._again is None:
                self._again = self._record(self._step)
            else:
                self._again()
        return self._taken[:steps]

    def _step(self) -> None:
        self._visible.index_fill_(1, self._place, True)
        logits = self._last_logits(
            input_ids=self.tokens,
            attention_mask=self._visible[:, None, None],
            position_ids=self.positions,
            past_key_values=self._cache,
        )
        highest, tokens = logits.max(dim=-1)
        self._taken.index_copy_(0, self._slot, torch.cat([tokens, torch.isfinite(highest).all().long()[None]])[None])
        self.tokens.copy_(tokens[:, None])
        for counter in (self.positions, self._place, self._slot):
            counter.add_(1)
