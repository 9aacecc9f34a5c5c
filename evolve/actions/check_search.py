"""`evolve check` of a search: whether it is sound, and what it will cost; from configs and headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.reader import read_search
from evolve.config.schema import SearchConfig
from evolve.preflight.prepare import Prepared, prepare
from evolve.preflight.search_cost import TOKENS_PER_ITEM, SearchCost, estimate_cost
from evolve.preflight.search_models import layers_of
from evolve.report.formatting import OBJECTIVES, format_bytes, format_count, format_duration
from evolve.search.start import make_optimizer


@dataclass(frozen=True)
class CheckReport:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def check_search(path: Path, overrides: Mapping[str, Any]) -> CheckReport:
    """Check a search.yml and estimate what it needs.

    Raises:
        ConfigError: with every problem found.
    """
    prepared = prepare(read_search(path, overrides))
    optimizer = make_optimizer(prepared, []).label
    cost = estimate_cost(
        prepared.plan,
        prepared.checkpoints,
        sum(len(split.search) for split in prepared.splits.values()),
        prepared.config.backend,
        prepared.config.workers.threads,
    )
    return CheckReport(_facts(path, prepared, cost, optimizer), "\n".join(_lines(path, prepared, cost, optimizer)))


def _facts(path: Path, prepared: Prepared, cost: SearchCost, optimizer: str) -> dict[str, Any]:
    config = prepared.config
    facts: dict[str, Any] = {
        "file": str(path),
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
        "genes": len(prepared.space.coordinates),
        "optimizer": optimizer,
        "candidates": config.budget.evaluations,
        "item_evaluations_per_candidate": sum(len(split.search) for split in prepared.splits.values()),
        "merged_parameters": cost.merged.parameters,
        "bytes": {
            "live_model_per_worker": cost.memory.live_model,
            "second_copy_per_worker": cost.memory.second_copy,
            "key_value_cache_per_worker": cost.memory.key_value_cache,
            "sources_mapped_once_per_machine": cost.source_bytes,
            "merged_model_on_disk": cost.merged.bytes,
        },
        "workers": config.workers.count,
        "warnings": list(prepared.warnings),
    }
    if cost.seconds_per_candidate is not None:
        facts["rough_seconds_per_candidate"] = cost.seconds_per_candidate
    return facts


def _lines(path: Path, prepared: Prepared, cost: SearchCost, optimizer: str) -> Iterator[str]:
    config, memory = prepared.config, cost.memory
    layers = layers_of(prepared.checkpoints[prepared.tokenizer_model])
    parameters = format_count(cost.merged.parameters)
    yield f"{path.name}: sound"
    yield f"models      {len(prepared.checkpoints)}, {layers} layers, {parameters} parameters"
    yield f"genes       {len(prepared.space.coordinates)}, searched by {optimizer}"
    for scorer in prepared.scorers:
        better = "higher" if scorer.direction == "maximize" else "lower"
        split = prepared.splits[scorer.name]
        yield (
            f"task        {scorer.name}: {scorer.metric} ({better} is better), {len(split.search)} search items, "
            f"{len(split.held_out)} held out"
        )
    yield f"objective   {_objective(config)}"
    parts = [f"{format_bytes(memory.live_model)} live model"]
    parts += [f"{format_bytes(memory.second_copy)} copy that candidates are written into"] if memory.second_copy else []
    parts += [f"{format_bytes(memory.key_value_cache)} keys and values"] if memory.key_value_cache else []
    yield (
        f"memory      {format_bytes(memory.total)} for each of {config.workers.count} worker(s) ({', '.join(parts)}), "
        f"plus activations; {format_bytes(cost.source_bytes)} of model files, mapped and shared"
    )
    yield f"disk        {format_bytes(cost.merged.bytes)} for the merged model"
    yield f"time        {_time(cost.seconds_per_candidate, config.budget.evaluations, config.workers.count)}"
    for warning in prepared.warnings:
        yield f"warning     {warning}"


def _objective(config: SearchConfig) -> str:
    text = OBJECTIVES[config.objective]
    if config.normalize == "parents":
        text += ", 0 and 1 of each set by the base model and the best parent"
    if config.objectives:
        groups = ", ".join(" + ".join(group) for group in config.objectives)
        text += f"; kept apart for a Pareto front: {groups}"
    return text


def _time(seconds: float | None, candidates: int | None, workers: int) -> str:
    if seconds is None:
        return "shown after the first candidates; it depends on the GPU"
    text = f"roughly {format_duration(seconds, fine=True)} a candidate at {TOKENS_PER_ITEM} tokens an item"
    if candidates:
        text += f", {format_duration(seconds * candidates / workers, fine=True)} for the budget"
    return f"{text}; the run shows the real figure after its first candidates"
