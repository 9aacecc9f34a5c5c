"""`evolve check` of a search: whether it is sound, and what it will cost; from configs and headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evolve.actions.check_card import CardReport, asked_card, check_card
from evolve.config.reader import read_search
from evolve.config.schema import SearchConfig
from evolve.preflight.cards import Card, find_card
from evolve.preflight.gradient_memory import StepPlan, plan_step
from evolve.preflight.live_model import check_live_model
from evolve.preflight.prepare import Prepared, prepare
from evolve.preflight.search_cost import SearchCost, estimate_cost, workers_at_once
from evolve.preflight.search_models import layers_of
from evolve.preflight.token_count import tokens_of_items
from evolve.report.formatting import format_bytes, format_count, format_duration, objective_name
from evolve.search_loop.expected_spending import expected_candidates, expected_spending, items_of_one
from evolve.search_loop.opening import StartChoice, check_warm_start, choose_start
from evolve.search_loop.start import make_optimizer
from evolve.simplify.expected_spending import expected_simplification
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import Purpose, Spending
from merge_core.recipe.hub_headers import headers_only


@dataclass(frozen=True)
class CheckReport:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def check_search(
    path: Path,
    overrides: Mapping[str, Any],
    strict: bool = False,
    card: str | None = None,
    price: float | None = None,
) -> CheckReport:
    """Check a search.yml and estimate what it needs.

    Args:
        path: the file.
        overrides: settings put in.
        strict: refuse keys of a genome that have no effect.
        card: the name of one that is not here, on which it is to run.
        price: of an hour there.

    Raises:
        ConfigError: with every problem found.
    """
    if card is not None:
        find_card(card)  # before what takes seconds
        overrides = {**overrides, "backend.device": "cuda"}
    with headers_only() as hub:
        prepared = prepare(read_search(path, overrides, strict=strict))
        return _checked(path, prepared, asked_card(card, prepared.config.backend), price, hub.missing_bytes)


def _checked(
    path: Path, prepared: Prepared, card: Card | None, price: float | None, missing_bytes: Mapping[str, int]
) -> CheckReport:
    RunDirectory(prepared.default_output).check_usable(prepared.inputs)
    with prepared.document.locating():
        optimizer = make_optimizer(prepared, [], candidates=expected_candidates(prepared)).label
        start = choose_start(prepared)
        check_warm_start(prepared)
        check_live_model(prepared.config.backend, prepared.plan, prepared.scorers)
    items = {name: split.search for name, split in prepared.splits.items()}
    tokens = tokens_of_items(prepared.scorers, items, prepared.checkpoints[prepared.tokenizer_model])
    cost = estimate_cost(
        prepared.plan,
        prepared.checkpoints,
        sum(tokens[name].total * len(ids) for name, ids in items.items()),
        prepared.config.backend,
        prepared.config.workers.threads,
    )
    config = prepared.config
    step = None
    capacity = None if card is None else card.memory_bytes
    if start.method == "gradient":
        step = plan_step(config.backend, prepared.plan, config.backend.device_here(), capacity)
        if step.too_large is not None and config.ray.address is None:  # what a cluster's machines have only they know
            prepared = replace(prepared, warnings=(*prepared.warnings, step.too_large))
    spending = dict(expected_spending(prepared, start.method))
    spending[Purpose.SIMPLIFICATION] = expected_simplification(prepared, start.method == "gradient")
    facts = _facts(path, prepared, cost, optimizer) | _start_facts(start, step)
    facts["item_evaluations_at_most"] = {purpose: count for purpose, count in spending.items() if count}
    facts["tokens_per_item"] = {name: found.total for name, found in tokens.items()}
    facts["bytes"]["to_fetch"] = dict(missing_bytes)
    on_card = None if card is None else check_card(card, prepared, cost, tokens, spending, price)
    if on_card is not None:
        facts["card"] = on_card.facts
    lines = [
        *_lines(path, prepared, cost, optimizer, start, step, spending, on_card),
        *(() if on_card is None else on_card.lines),
        *fetch_lines(missing_bytes),
    ]
    return CheckReport(facts, "\n".join(lines))


def fetch_lines(missing_bytes: Mapping[str, int]) -> list[str]:
    """What is not on this machine yet, in a line; none where there is nothing."""
    if not missing_bytes:
        return []
    parts = ", ".join(f"{format_bytes(size)} for {model}" for model, size in missing_bytes.items())
    return [f"download    {format_bytes(sum(missing_bytes.values()))} from the hub when it is run ({parts})"]


def _start_facts(start: StartChoice, step: StepPlan | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"start": {"method": start.method, "reason": start.reason}}
    if step is not None:
        bytes_of = asdict(step.memory) | {"total": step.memory.total}
        facts["gradient_step"] = {**asdict(step.micro_batch), "bytes_per_worker": bytes_of}
    return facts


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
        "cost": dict(config.cost_weights),
        "genes": len(prepared.space.coordinates),
        "optimizer": optimizer,
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
    return facts


def _lines(
    path: Path,
    prepared: Prepared,
    cost: SearchCost,
    optimizer: str,
    start: StartChoice,
    step: StepPlan | None,
    spending: Spending,
    on_card: CardReport | None,
) -> Iterator[str]:
    config, memory = prepared.config, cost.memory
    layers = layers_of(prepared.checkpoints[prepared.tokenizer_model])
    parameters = format_count(cost.merged.parameters)
    yield f"{path.name}: sound"
    yield f"models      {len(prepared.checkpoints)}, {layers} layers, {parameters} parameters"
    yield f"genes       {len(prepared.space.coordinates)}, searched by {optimizer}"
    yield f"start       {start.method}: {start.reason}"
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
    parts += [f"{format_bytes(memory.whole_weight)} weight of the layer that computes"] if memory.whole_weight else []
    parts += [f"{format_bytes(memory.run_models)} models of earlier runs"] if memory.run_models else []
    parts += [f"{format_bytes(memory.key_value_cache)} keys and values"] if memory.key_value_cache else []
    pinned = f", through {format_bytes(memory.source_buffers)} of pinned memory" if memory.source_buffers else ""
    yield (
        f"memory      {format_bytes(memory.total)} for each of {config.workers.count} worker(s) ({', '.join(parts)}), "
        f"plus activations; {format_bytes(cost.source_bytes)} of model files, mapped and shared{pinned}"
    )
    if step is not None:
        yield f"gradient    {_step(step)}"
    yield f"disk        {format_bytes(cost.merged.bytes)} for the merged model"
    if on_card is None:
        yield f"time        {_time(cost, items_of_one(prepared), config.budget.evaluations, _at_once(config))}"
    yield f"items       {items_of_one(prepared)} a candidate; {_spending(spending)}"
    for warning in prepared.warnings:
        yield f"warning     {warning}"


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


def _step(step: StepPlan) -> str:
    memory, batch = step.memory, step.micro_batch
    parts = {
        "live model": memory.live_model,
        "gradient of one weight": memory.gradient,
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
