"""Which of several models the others were trained from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evolve.inspection.differences import Differences, Matrix, additive_lengths, relative_ranks
from merge_core import Checkpoint
from merge_core.checkpoint.card_metadata import card_metadata

FEWEST_UNCHANGED = 0.2  # of the elements of some two models, for who shares how many to tell anything
HIGHEST_RANK = 0.8  # of noise: differences of more tell nothing by their ranks
LOWER_RANK = 0.91  # of a difference from the base, beside one of two fine-tunes; siblings alone have 0.93 and more
SHORTER = 0.5  # the base's own length beside the others'; of siblings of the same length it is 1


@dataclass(frozen=True)
class Ancestry:
    """The verdict.

    Attributes:
        base: number of the model; None where it is not among them, or cannot be told.
        reason: in words.
    """

    base: int | None
    reason: str


def find_base(labels: Sequence[str], differences: Differences, stated: Sequence[Sequence[str]]) -> Ancestry:
    """The model in which the others' ways begin.

    Two fine-tunes differ by what both were taught, so that their difference is longer, of higher rank and in more
    elements than the base's from either. Three measures tell it, of which the first that tells anything decides:
    elements that are equal to the bit (training in 16 bits leaves most of them), ranks of differences (full
    precision), and squared distances (differences that are noise). What the models' cards say comes after these,
    but for two models alone, of which no measure tells the older one.

    Args:
        labels: of the models.
        differences: between them.
        stated: what each model says it was made from.
    """
    named = _stated_base(labels, stated)
    if differences.count < 3:
        if named is not None:
            return Ancestry(named, f"{labels[1 - named]} says that it was made from it")
        return Ancestry(None, "of two models the weights do not tell which was made from the other")
    found = _by_weights(differences)
    if named is None or named == found.base:
        return found
    said = f"others say that they were made from {labels[named]}"
    if found.base is None:
        return Ancestry(named, f"{said}, though {found.reason}")
    return Ancestry(found.base, f"{found.reason}, though {said}")


def stated_bases(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What a model's card says that it was made from."""
    stated = card_metadata(checkpoint.directory).get("base_model")
    return tuple(str(one) for one in (stated if isinstance(stated, list) else [stated] if stated else []))


def _by_weights(differences: Differences) -> Ancestry:
    unchanged, ranks = differences.unchanged, differences.ranks
    apart = ~np.eye(differences.count, dtype=bool)
    if unchanged[apart].max() >= FEWEST_UNCHANGED:
        lengths = additive_lengths(-np.log(np.maximum(unchanged, 1e-9)))
        return _shortest(lengths, "the others share more elements with it than with one another")
    if np.isfinite(ranks[apart]).all() and np.median(ranks[apart]) <= HIGHEST_RANK:
        beside = relative_ranks(ranks, differences.squared)
        lowest = int(np.argmin(beside))
        if beside[lowest] <= LOWER_RANK:
            return Ancestry(lowest, "the others differ from it by matrices of lower rank than from one another")
        return _siblings()
    lengths = additive_lengths(differences.squared)
    return _shortest(lengths, "the others' differences from it are nearly at right angles to one another")


def _shortest(lengths: Matrix, reason: str) -> Ancestry:
    nearest = int(np.argmin(lengths))
    others = float(np.median(np.delete(lengths, nearest)))
    return Ancestry(nearest, reason) if lengths[nearest] <= SHORTER * others and others > 0 else _siblings()


def _siblings() -> Ancestry:
    return Ancestry(None, "they differ from one another as siblings do, none as a base from its fine-tunes")


def _stated_base(labels: Sequence[str], stated: Sequence[Sequence[str]]) -> int | None:
    """The one model that others name, where they name no second one."""
    names = [Path(label.partition("@")[0]).name.lower() for label in labels]
    found = {
        number
        for own, bases in enumerate(stated)
        for base in bases
        for number, name in enumerate(names)
        if number != own and name == Path(base).name.lower()
    }
    return found.pop() if len(found) == 1 else None
