"""How long a search takes on a card: computed from what its maker publishes of it, and shares of that.

Nothing is measured for it. Each share is what was reached on an H200 (docs/gpu.md), so that on other cards, hosts and
models it may be off by a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evolve.config.machines import BackendConfig
from evolve.preflight.cards import Card
from evolve.preflight.memory_plan import MemoryPlan
from evolve.preflight.token_count import ItemTokens
from evolve.scoring.backends.activation_memory import stated_size, text_config
from evolve.scoring.backends.backend_options import default_batch_tokens
from evolve.trials.spending import Purpose, Spending
from merge_core import Checkpoint, MergePlan
from merge_core.execute.device_sources import SHARE

READING_SHARE = 441 / 989
"""Of the published operations: log-probabilities of one continuation a context."""

BANDWIDTH_SHARE = 4.2 / 4.8
"""Of the published bandwidth: a copy on the device."""

LINK_SHARE = 55 / 63
"""Of the published link: from pinned memory."""

STAGED_PER_SECOND = 16.5e9
"""Bytes that the host brought from files in its memory to pinned memory, and so to the card."""

LAUNCHING_SECONDS = 0.0097 / 28
"""Of a layer in a step of decoding: 9.7 ms in 28 layers with 16 rows, recording included."""

MERGED_PER_SECOND = {
    "linear": 290e9,
    "task_arithmetic": 431e9,
    "ties": 248e9,
    "breadcrumbs": 89e9,
    "breadcrumbs_ties": 94e9,
    "dare_linear": 148e9,
    "dare_ties": 149e9,
}
"""Bytes read and written; of other methods as of the slowest, `della`."""

_SLOWEST = 43e9
_MEASURED_ON = 4.8e12  # bytes per second

CONTRACTION = 7.4 / 3.1
"""Of a step of the gradient: what follows the backward pass, against a linear merge of the same."""


@dataclass(frozen=True)
class CardTime:
    """Seconds on a card.

    Attributes:
        merge: of a candidate.
        reading: of its items' prompts.
        writing: of its items' answers, as long as they may be.
        by_purpose: of the search; of purposes without a bound none.
    """

    merge: float
    reading: float
    writing: float
    by_purpose: Mapping[Purpose, float]

    @property
    def candidate(self) -> float:
        """All of a candidate."""
        return self.merge + self.reading + self.writing

    @property
    def total(self) -> float:
        """All of the search."""
        return math.fsum(self.by_purpose.values())


@dataclass(frozen=True)
class CardWork:
    """What a search asks of a card.

    Attributes:
        plan: of a candidate.
        checkpoints: every model.
        backend: how it is run.
        memory: of the worker on the card.
        items: task name -> how many items score a candidate.
        tokens: task name -> tokens of an item.
        spending: of the search, in item evaluations.
        steps: of the gradient.
        look_items: how many items a look takes.
    """

    plan: MergePlan
    checkpoints: Mapping[str, Checkpoint]
    backend: BackendConfig
    memory: MemoryPlan
    items: Mapping[str, int]
    tokens: Mapping[str, ItemTokens]
    spending: Spending
    steps: int
    look_items: int

    def seconds(self, card: Card) -> CardTime:
        """Compute how long it takes on a card."""
        streamed = self._streamed(card)
        merge = streamed + self._merging(card)
        reading, writing = self._reading(card, answers=False), self._writing(card)
        items = sum(self.items.values())
        found: dict[Purpose, float] = {}
        for purpose, evaluations in self.spending.items():
            if purpose is Purpose.STEPS:
                again = streamed + CONTRACTION * self._merging(card, linear=True)
                read = self._reading(card, answers=True) * evaluations / items
                found[purpose] = read * self._recomputed + self.steps * (merge + again)
            else:
                at_once = self.look_items if purpose is Purpose.LOOKS else items
                found[purpose] = evaluations * ((reading + writing) / items + merge / at_once)
        return CardTime(merge, reading, writing, found)

    @property
    def _recomputed(self) -> float:
        """A step whose layers are computed anew takes four forwards, where three are counted."""
        return 4 / 3

    def _streamed(self, card: Card) -> float:
        """What does not stay on the card comes over the link, while what stays waits there."""
        sources = sum(checkpoint.stored_bytes for checkpoint in self.checkpoints.values())
        staying = max(card.memory_bytes - self.memory.total, 0) * SHARE
        return max(sources - staying, 0) / min(LINK_SHARE * card.link_bytes_per_second, STAGED_PER_SECOND)

    def _merging(self, card: Card, linear: bool = False) -> float:
        """Reading the sources and writing the result, at the method's part of the bandwidth."""
        faster = card.bytes_per_second / _MEASURED_ON
        return math.fsum(
            (len(job.inputs) + 1)
            * math.prod(job.shape)
            * job.dtype.itemsize
            / (MERGED_PER_SECOND.get("linear" if linear else job.method, _SLOWEST) * faster)
            for job in self.plan.jobs
        )

    def _reading(self, card: Card, *, answers: bool) -> float:
        read = sum(
            self.items[name] * (tokens.read + (tokens.written if answers else 0))
            for name, tokens in self.tokens.items()
        )
        return 2 * active_parameters(self.plan) * read / (READING_SHARE * card.operations_per_second)

    def _writing(self, card: Card) -> float:
        """Steps of decoding: each waits for launches or for the weights, and multiplies a token of every row."""
        config = text_config(self.plan.config)
        whole = 0 if self.backend.quantization == "none" else 2 * 2 * self.plan.parameter_count
        weights = (self.memory.live_model + whole) / (BANDWIDTH_SHARE * card.bytes_per_second)
        waiting = max(weights, LAUNCHING_SECONDS * stated_size(config, "num_hidden_layers"))
        batch = self.backend.max_batch_tokens or default_batch_tokens("cuda")
        seconds = 0.0
        for name, tokens in self.tokens.items():
            rows = max(int(batch / tokens.total), 1)
            batches = math.ceil(self.items[name] / rows)
            seconds += batches * tokens.written * waiting
            computed = 2 * active_parameters(self.plan) * self.items[name] * tokens.written
            seconds += computed / (READING_SHARE * card.operations_per_second)
        return seconds


def active_parameters(plan: MergePlan) -> float:
    """The parameters that a token goes through: of experts those that it is sent to."""
    config = text_config(plan.config)
    chosen = stated_size(config, "num_experts_per_tok")
    experts = stated_size(config, "num_experts") or stated_size(config, "num_local_experts")
    share = chosen / experts if chosen and experts else 1.0
    return math.fsum(math.prod(job.shape) * (share if ".experts." in job.output else 1.0) for job in plan.jobs)
