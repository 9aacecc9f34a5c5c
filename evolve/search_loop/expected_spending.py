"""What a search will take in item evaluations, before it is begun."""

from __future__ import annotations

from evolve.preflight.prepare import Prepared
from evolve.search_loop.gradient_start import LOOK_EVERY, PATHS, SHARES, items_of_steps
from evolve.search_loop.opening import look_items
from evolve.search_loop.references import reference_trials
from evolve.search_loop.start import candidates_within
from evolve.search_loop.starts import MOST_STARTS
from evolve.trials.spending import Purpose, Spending
from evolve.trials.step import FORWARD_AND_BACKWARD


def expected_spending(prepared: Prepared, start: str) -> Spending:
    """Purpose -> item evaluations: of steps and looks as many as there are at most, of candidates all that are bound.

    Repeated recipes and races take less; without a bound on candidates there is no entry for them.

    Args:
        prepared: the search.
        start: how it will open.
    """
    config, splits = prepared.config, prepared.splits
    references, each = _references(prepared), items_of_one(prepared)
    found = {Purpose.REFERENCES: references * each}
    if start == "gradient":
        search_items = {name: split.search for name, split in splits.items()}
        on_the_way = PATHS + config.start.steps // LOOK_EVERY + 1 + len(SHARES)  # steps, their average, and shrunk
        look = sum(map(len, look_items(search_items).values()))
        found[Purpose.REFERENCES] -= references * look  # which are not scored again
        looked_at = references + MOST_STARTS + len(prepared.config.warm_start) + on_the_way
        found[Purpose.LOOKS] = looked_at * look
        sizes = [
            sum(min(count, len(items)) for items in search_items.values())
            for count in items_of_steps(config.start, config.start.steps)
        ]
        steps = PATHS * sum(sizes[:LOOK_EVERY]) + sum(sizes[LOOK_EVERY:])
        found[Purpose.STEPS] = FORWARD_AND_BACKWARD * steps
    candidates = expected_candidates(prepared)
    if candidates is not None:
        found[Purpose.CANDIDATES] = candidates * each
    if all(split.held_out for split in splits.values()) and config.validation.finalists:
        held_out = sum(len(split.held_out) for split in splits.values())
        found[Purpose.HELD_OUT] = (references + config.validation.finalists) * held_out
    return found


def expected_candidates(prepared: Prepared) -> int | None:
    """How many candidates the budget pays for beside the references; None where it bounds neither them nor items."""
    each = items_of_one(prepared)
    return candidates_within(prepared.config.budget, each, _references(prepared) * each)


def _references(prepared: Prepared) -> int:
    return len(reference_trials(prepared.space, prepared.template, prepared.same_depth))


def items_of_one(prepared: Prepared) -> int:
    """Item evaluations that a candidate takes."""
    return sum(len(split.search) for split in prepared.splits.values())
