"""What `evolve check` says of a search, for people and as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evolve.actions.check_card import CardReport
from evolve.config.schema import SearchConfig
from evolve.preflight.gradient_memory import StepPlan
from evolve.preflight.prepare import Prepared
from evolve.preflight.search_cost import SearchCost, workers_at_once
from evolve.preflight.search_models import layers_of
from evolve.preflight.token_count import ItemTokens
from evolve.report.formatting import format_bytes, format_count, format_duration, objective_name
from evolve.search_loop.expected_spending import items_of_one
from evolve.search_loop.opening import StartChoice
from evolve.trials.spending import Purpose, Spending


@dataclass(frozen=True)
class CheckedSearch:
    """A search that is sound, and what it needs.

    Attributes:
        path: of its file.
        prepared: the search.
        cost: memory, disk and time.
        tokens: that go through a model for an item, by task.
        optimizer: who searches.
        start: how it opens.
        step: one step of the gradient start; None where there is none.
        spending: item evaluations, at most.
        on_card: on a card that is not here, if one was asked for.
        missing_bytes: model -> what is not on this machine yet.
    """

    path: Path
    prepared: Prepared
    cost: SearchCost
    tokens: Mapping[str, ItemTokens]
    optimizer: str
    start: StartChoice
    step: StepPlan | None
    spending: Spending
    on_card: CardReport | None
    missing_bytes: Mapping[str, int]

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        prepared, config, cost = self.prepared, self.prepared.config, self.cost
        facts: dict[str, Any] = {
            "file": str(self.path),
            "kind": "search",
            "models": {model: layers_of(checkpoint) for model, checkpoint in prepared.checkpoints.items()},
            "tasks": {
                scorer.name: {
                    "metric": scorer.metric,
                    "direction": scorer.direction,
                    "search_items": len(prepared.splits[scorer.name].search),
                    "held_out_items": len(prepared.splits[scorer.name].held_out),
                }
                for scorer in prepared.scorers
            },
            "objective": config.objective,
            "normalize": config.normalize,
            "objectives": [list(group) for group in config.objectives],
            "cost": dict(config.cost_weights),
            "genes": len(prepared.space.coordinates),
            "optimizer": self.optimizer,
            "candidates": config.budget.evaluations,
            "item_evaluations_per_candidate": items_of_one(prepared),
            "merged_parameters": cost.merged.parameters,
            "bytes": {
                "live_model_per_worker": cost.memory.live_model,
                "second_copy_per_worker": cost.memory.second_copy,
                "run_models_per_worker": cost.memory.run_models,
                "whole_weight_per_worker": cost.memory.whole_weight,
                "key_value_cache_per_worker": cost.memory.key_value_cache,
                "source_buffers_per_worker": cost.memory.source_buffers,
                "sources_mapped_once_per_machine": cost.source_bytes,
                "merged_model_on_disk": cost.merged.bytes,
            },
            "workers": config.workers.count,
            "workers_at_once": _at_once(config),
            "warnings": list(prepared.warnings),
        }
        if cost.seconds_per_candidate is not None:
            facts["rough_seconds_per_candidate"] = cost.seconds_per_candidate
        facts["start"] = {"method": self.start.method, "reason": self.start.reason}
        if self.step is not None:
            bytes_of = asdict(self.step.memory) | {"total": self.step.memory.total}
            facts["gradient_step"] = {**asdict(self.step.micro_batch), "bytes_per_worker": bytes_of}
        facts["item_evaluations_at_most"] = {purpose: count for purpose, count in self.spending.items() if count}
        facts["tokens_per_item"] = {name: found.total for name, found in self.tokens.items()}
        facts["bytes"]["to_fetch"] = dict(self.missing_bytes)
        if self.on_card is not None:
            facts["card"] = self.on_card.facts
        return facts

    def lines(self) -> Iterator[str]:
        """For people."""
        prepared, config, cost = self.prepared, self.prepared.config, self.cost
        layers = layers_of(prepared.checkpoints[prepared.tokenizer_model])
        parameters = format_count(cost.merged.parameters)
        yield f"{self.path.name}: sound"
        yield f"models      {len(prepared.checkpoints)}, {layers} layers, {parameters} parameters"
        yield f"genes       {len(prepared.space.coordinates)}, searched by {self.optimizer}"
        yield f"start       {self.start.method}: {self.start.reason}"
        for scorer in prepared.scorers:
            better = "higher" if scorer.direction == "maximize" else "lower"
            split = prepared.splits[scorer.name]
            yield (
                f"task        {scorer.name}: {scorer.metric} ({better} is better), {len(split.search)} search items, "
                f"{len(split.held_out)} held out"
            )
        yield f"objective   {_objective(config)}"
        yield f"memory      {_memory(cost, config)}"
        if self.step is not None:
            yield f"gradient    {_step(self.step)}"
        yield f"disk        {format_bytes(cost.merged.bytes)} for the merged model"
        if self.on_card is None:
            yield f"time        {_time(cost, items_of_one(prepared), config.budget.evaluations, _at_once(config))}"
        yield f"items       {items_of_one(prepared)} a candidate; {_spending(self.spending)}"
        for warning in prepared.warnings:
            yield f"warning     {warning}"
        yield from self.on_card.lines if self.on_card is not None else ()
        yield from fetch_lines(self.missing_bytes)


def fetch_lines(missing_bytes: Mapping[str, int]) -> list[str]:
    """What is not on this machine yet, in a line; none where there is nothing."""
    if not missing_bytes:
        return []
    parts = ", ".join(f"{format_bytes(size)} for {model}" for model, size in missing_bytes.items())
    return [f"download    {format_bytes(sum(missing_bytes.values()))} from the hub when it is run ({parts})"]


def _objective(config: SearchConfig) -> str:
    text = objective_name(config.objective)
    if config.normalize == "parents":
        text += ", 0 and 1 of each set by the base model and the best parent"
    if config.cost_weights:
        weights = ", ".join(f"{weight:g} of {cost}" for cost, weight in config.cost_weights.items() if weight)
        text += f"; minus, against the best parent, {weights}" if weights else ""
    if config.objectives:
        groups = ", ".join(" + ".join(group) for group in config.objectives)
        text += f"; kept apart for a Pareto front: {groups}"
    return text


def _memory(cost: SearchCost, config: SearchConfig) -> str:
    memory = cost.memory
    parts = {
        "live model": memory.live_model,
        "copy that candidates are written into": memory.second_copy,
        "weight of the layer that computes": memory.whole_weight,
        "models of earlier runs": memory.run_models,
        "keys and values": memory.key_value_cache,
    }
    named = ", ".join(f"{format_bytes(size)} {name}" for name, size in parts.items() if size)
    pinned = f", through {format_bytes(memory.source_buffers)} of pinned memory" if memory.source_buffers else ""
    return (
        f"{format_bytes(memory.total)} for each of {config.workers.count} worker(s) ({named}), plus activations; "
        f"{format_bytes(cost.source_bytes)} of model files, mapped and shared{pinned}"
    )


def _step(step: StepPlan) -> str:
    memory, batch = step.memory, step.micro_batch
    parts = {
        "live model": memory.live_model,
        "gradient of one weight": memory.gradient,
        "merges of one weight": memory.merges,
        "sources of one tensor": memory.sources,
        "activations": memory.activations,
        "logits": memory.loss,
    }
    named = ", ".join(f"{format_bytes(size)} {name}" for name, size in parts.items() if size)
    again = ", layers computed anew in the backward pass" if batch.checkpointing else ""
    return f"{format_bytes(memory.total)} for a step of the start ({named}) at {batch.tokens} tokens{again}"


def _spending(found: Spending) -> str:
    """ "3600 for parents and uniform merge, at most 4608 for steps of the gradient, ..."."""
    bounded = (Purpose.STEPS, Purpose.LOOKS, Purpose.CANDIDATES, Purpose.SIMPLIFICATION)
    parts = [
        f"{'at most ' if purpose in bounded else ''}{found[purpose]} for {purpose}"
        for purpose in Purpose
        if found.get(purpose)
    ]
    return ", ".join(parts)


def _at_once(config: SearchConfig) -> float:
    """How many candidates are scored at a time; what a cluster's machines have only they know."""
    return workers_at_once(config.workers) if config.ray.address is None else config.workers.count


def _time(cost: SearchCost, items: int, candidates: int | None, workers: float) -> str:
    seconds = cost.seconds_per_candidate
    if seconds is None:
        return "shown after the first candidates; computed for a card by --card"
    text = f"roughly {format_duration(seconds, fine=True)} a candidate at {cost.tokens / items:.0f} tokens an item"
    if candidates:
        text += f", {format_duration(seconds * candidates / workers, fine=True)} for the budget"
    return f"{text}; the run shows the real figure after its first candidates"
