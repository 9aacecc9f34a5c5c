"""`evolve run BUNDLE`: whether what is here is what the bundle was made with, and whether the same is found."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from evolve.preflight.fingerprints import differences, fingerprints
from evolve.preflight.model_keys import MODIFIED
from evolve.preflight.prepare import Prepared
from evolve.problems import error_lines
from evolve.search_loop.opening import WARM_STARTS
from evolve.trials.bundle_directory import BundleDirectory
from evolve.trials.run_directory import RunDirectory

_OF_A_TRIAL = ("label", "state", "objective")  # columns of trials.csv that say what was found, beside genes and scores


def differs_from_bundle(bundle: BundleDirectory, prepared: Prepared) -> list[str]:
    """What is not as it was where the bundle was made, a line each: models, tasks, code, versions.

    Args:
        bundle: that is run.
        prepared: its search, as it is here.
    """
    before = bundle.depends_on()
    if not before:
        return [f"{bundle.facts.name} was damaged or changed: models, tasks and code cannot be compared with it"]
    now = {what: key for what, key in fingerprints(prepared).items() if not what.endswith(MODIFIED)}
    return differences(before, now)


def known_warm_starts(bundle: BundleDirectory, prepared: Prepared) -> list[list[Any]] | None:
    """Where the runs ended that the bundle's began from, as its journal noted it; None: they are looked for.

    Args:
        bundle: that is run.
        prepared: its search, whose genes may have been changed since.
    """
    found = bundle.read_facts().get(WARM_STARTS)
    if not isinstance(found, list) or len(found) != len(prepared.config.warm_start):
        return None
    count = len(prepared.space.coordinates)
    return found if found and all(_is_warm_start(one, count) for one in found) else None


def _is_warm_start(value: Any, genes: int) -> bool:
    match value:
        case [str(), [*point], int(), int()]:
            return len(point) == genes and all(type(unit) in (int, float) and 0 <= unit <= 1 for unit in point)
    return False


def compare_with_bundle(bundle: BundleDirectory, run: RunDirectory) -> str:
    """Whether a run found what the bundle's found, trial by trial, in a sentence.

    Args:
        bundle: that was run.
        run: its directory, finished.
    """
    original = bundle.original / run.trials.name
    if not original.is_file():
        return "the bundle holds no trials to compare with"
    try:
        before, now = list(_found(original)), list(_found(run.trials))
    except (OSError, ValueError, csv.Error) as error:
        return f"the trials of the bundle cannot be compared with: {error_lines(error)[0]}"
    same = 0
    for old, new in zip_longest(before, now):
        if old != new:
            break
        same += 1
    if same == len(before) == len(now):
        return f"all {same} trials are those of the bundle: the same genes, the same scores"
    said = f"{len(now)} trials here, {len(before)} in the bundle; the first {same} are the same"
    if same == min(len(before), len(now)):
        return said
    old, new = before[same], now[same]
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    values = "; ".join(f"{name} was {old.get(name) or '-'}, is {new.get(name) or '-'}" for name in changed[:3])
    return f"{said}. In the next, {values}"


def _found(trials: Path) -> Iterator[Mapping[str, str]]:
    """What was found in every trial: not how long it took."""
    with trials.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield {
                name: value
                for name, value in row.items()
                if isinstance(name, str)  # more values than the table has columns have no name
                and (name in _OF_A_TRIAL or name.startswith(("gene.", "score.", "objective.")))
            }
