"""When a variant is settled to be beaten: in rounds, by paired differences from the leader on the same items."""

from __future__ import annotations

from collections.abc import Mapping

from evolve.scoring import Objective, paired_difference
from evolve.trials.trial import ItemScores

ROUNDS = (0.25, 0.5, 1.0)  # of what a variant takes to its end
CONFIDENCE = 0.95  # that no variant is dropped which is better than the one that it is compared with
RESAMPLES = 2000
FEWEST_ITEMS = 20  # of all tasks together, before anyone is dropped


def settled_to_be_beaten(
    found: Mapping[str, ItemScores], values: Mapping[str, float], objective: Objective, *, of_all: int, seed: int
) -> set[str]:
    """Those whose difference from the leader is below 0, with a confidence that holds for all looks at all of them.

    Args:
        found: name → contributions of the items, the same ones of all.
        values: name → objective; the leader is the one of the highest.
        objective: what the tasks' scores become.
        of_all: how many there were when the first round began.
        seed: of the bootstrap.
    """
    if len(found) < 2:
        return set()
    leader = max(found, key=lambda name: values[name])
    if sum(map(len, found[leader].values())) < FEWEST_ITEMS:
        return set()
    confidence = 1 - 2 * (1 - CONFIDENCE) / (of_all * (len(ROUNDS) - 1))  # one side of an interval of two
    return {
        name
        for name, theirs in found.items()
        if name != leader
        and paired_difference(
            theirs, found[leader], objective, confidence=confidence, resamples=RESAMPLES, seed=seed
        ).high
        < 0
    }
