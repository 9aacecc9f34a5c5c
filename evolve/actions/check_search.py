"""`evolve check` of a search: whether it is sound, and what it will cost; from configs and headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evolve.actions.check_card import asked_card, check_card
from evolve.actions.check_page import CheckedSearch
from evolve.config.reader import read_search
from evolve.preflight.build_check import check_live_model
from evolve.preflight.cards import Card, find_card
from evolve.preflight.compatibility import few_items
from evolve.preflight.gradient_memory import plan_step
from evolve.preflight.prepare import Prepared, prepare
from evolve.preflight.search_cost import estimate_cost
from evolve.preflight.token_count import tokens_of_items
from evolve.search_loop.expected_spending import expected_candidates, expected_spending
from evolve.search_loop.opening import check_warm_start, choose_start
from evolve.search_loop.start import make_optimizer
from evolve.simplify.expected_spending import expected_simplification
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import Purpose
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
    prepared = replace(prepared, warnings=(*prepared.warnings, *few_items(prepared.splits)))
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
    on_card = None if card is None else check_card(card, prepared, cost, tokens, spending, price)
    found = CheckedSearch(path, prepared, cost, tokens, optimizer, start, step, spending, on_card, missing_bytes)
    return CheckReport(found.facts(), "\n".join(found.lines()))
