"""What `evolve check` says of a card: whether a search fits it, and how long it would take there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from evolve.config.machines import BackendConfig
from evolve.preflight.card_time import CardTime, CardWork
from evolve.preflight.cards import Card, find_card, recognise_card
from evolve.preflight.memory_plan import plan_memory
from evolve.preflight.prepare import Prepared
from evolve.preflight.search_cost import SearchCost
from evolve.preflight.token_count import ItemTokens
from evolve.report.formatting import format_bytes, format_duration
from evolve.scoring.backends.backend_options import default_batch_tokens
from evolve.search_loop.gradient_start import LOOK_EVERY, PATHS
from evolve.search_loop.opening import look_items
from evolve.trials.spending import Purpose, Spending

RESERVED = 1_500_000_000
"""Bytes for CUDA itself, the activations of a forward and what a merge makes on the way."""

FEWEST_BATCH_TOKENS = 1024
"""What smaller batches are suggested down to."""

_KINDS = {"none": "as it is", "8bit": "quantization 8bit or fp8", "4bit": "quantization 4bit"}


@dataclass(frozen=True)
class CardReport:
    """What is found of a card.

    Attributes:
        card: which.
        needed: quantization -> bytes that a worker needs, what is reserved included.
        batch_tokens: quantization -> the `max_batch_tokens` with which it fits where it does not as it is.
        asked: the quantization of the search.
        time: None where nothing tells, as of vLLM.
        price: of an hour; None where it is not known.
    """

    card: Card
    needed: dict[str, int]
    batch_tokens: dict[str, int]
    asked: str
    time: CardTime | None
    price: float | None

    def fits(self, kind: str) -> bool:
        """Whether a worker fits the card."""
        return self.needed[kind] <= self.card.memory_bytes

    @property
    def facts(self) -> dict[str, Any]:
        """As plain data."""
        facts: dict[str, Any] = {
            "name": self.card.name,
            "bytes": self.card.memory_bytes,
            "bytes_needed_by_quantization": self.needed,
            "fits": {kind: self.fits(kind) for kind in self.needed},
            "fits_with_max_batch_tokens": self.batch_tokens,
        }
        if self.time is not None:
            facts["computed_seconds"] = {
                "merging": self.time.merge,
                "reading": self.time.reading,
                "writing": self.time.writing,
                "candidate": self.time.candidate,
                "search": self.time.total,
                "by_purpose": dict(self.time.by_purpose),
            }
        if self.cost is not None:
            facts["computed_price"] = self.cost
        return facts

    @property
    def cost(self) -> float | None:
        """Of the whole search; None where its time or the price is not known."""
        return None if self.time is None or self.price is None else self.price * self.time.total / 3600

    @property
    def lines(self) -> Iterator[str]:
        """For people."""
        card = self.card
        yield (
            f"card        {card.name}, {format_bytes(card.memory_bytes)} at {card.bytes_per_second / 1e9:.0f} GB/s, "
            f"{card.operations_per_second / 1e12:.0f} TFLOP/s in bfloat16, by its data sheet; computed, not measured:"
        )
        found = [self._fit(kind) for kind in dict.fromkeys((self.asked, *self.needed))]
        yield f"  fits      {'; '.join(found)}; {format_bytes(RESERVED)} of each for CUDA and activations"
        if self.time is None:
            yield "  seconds   not computed for this backend"
            return
        time = self.time
        parts = {"merging": time.merge, "reading prompts": time.reading, "writing answers": time.writing}
        named = ", ".join(f"{format_duration(seconds, fine=True)} {name}" for name, seconds in parts.items() if seconds)
        yield f"  seconds   {format_duration(time.candidate, fine=True)} a candidate: {named}"
        spent = ", ".join(
            f"{format_duration(seconds)} for {name}" for name, seconds in time.by_purpose.items() if seconds
        )
        unbound = "" if Purpose.CANDIDATES in time.by_purpose else "; beside candidates, of which nothing says how many"
        yield f"  in all    at most {format_duration(time.total)}: {spent}{unbound}"
        if self.cost is not None:
            yield f"  price     at most {self.cost:.2f}, at {self.price:.2f} an hour"

    def _fit(self, kind: str) -> str:
        verb = "fits" if self.fits(kind) else "does not fit"
        if kind in self.batch_tokens:
            verb = f"fits with max_batch_tokens: {self.batch_tokens[kind]}"
        return f"{_KINDS.get(kind, kind)} {format_bytes(self.needed[kind])}, {verb}"


def asked_card(name: str | None, backend: BackendConfig) -> Card | None:
    """The card that a user names, else the one that is here, where it is known.

    Raises:
        ConfigError: no card of that name.
    """
    if name is not None:
        return find_card(name)
    device = backend.device_here()
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    return recognise_card(torch.cuda.get_device_name(torch.device(device).index or 0))


def check_card(
    card: Card,
    prepared: Prepared,
    cost: SearchCost,
    tokens: dict[str, ItemTokens],
    spending: Spending,
    price: float | None = None,
) -> CardReport:
    """Compare a search with a card.

    Args:
        card: which.
        prepared: the search, whose backend is on a card.
        cost: of it.
        tokens: task name -> tokens of an item.
        spending: of it, in item evaluations.
        price: of an hour on the card.
    """
    backend, plan = prepared.config.backend, prepared.plan
    kinds = [backend.quantization] if backend.name == "vllm" else dict.fromkeys((backend.quantization, *_KINDS))
    needed, batch_tokens = {}, {}
    for kind in kinds:
        memory = cost.memory
        if kind != backend.quantization:
            held = backend.model_copy(update={"quantization": kind, "device_map": None})
            memory = plan_memory(held, plan.config, cost.merged.parameters, cost.merged.bytes, "cuda")
        needed[kind] = memory.total + RESERVED
        asked = backend.max_batch_tokens or default_batch_tokens("cuda")
        room = card.memory_bytes - (needed[kind] - memory.key_value_cache)
        if backend.name == "hf" and 0 < room < memory.key_value_cache:
            fitting = 2 ** int(math.log2(max(asked * room / memory.key_value_cache, 1)))
            if fitting >= FEWEST_BATCH_TOKENS:
                batch_tokens[kind] = fitting
    time = None
    if backend.name == "hf":
        items = {name: split.search for name, split in prepared.splits.items()}
        time = CardWork(
            plan,
            prepared.checkpoints,
            backend,
            cost.memory,
            {name: len(ids) for name, ids in items.items()},
            tokens,
            spending,
            (PATHS - 1) * LOOK_EVERY + prepared.config.start.steps,
            sum(map(len, look_items(items).values())),
        ).seconds(card)
    return CardReport(card, needed, batch_tokens, backend.quantization, time, price)
