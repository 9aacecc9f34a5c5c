"""`evolve simplify`: the best recipe of a finished run with fewer numbers, as long as it does as well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from evolve.actions.status import best_trial, open_journal
from evolve.config.reader import read_search
from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import Request
from evolve.preflight.prepare import Prepared, prepare
from evolve.preflight.search_models import layers_of
from evolve.problems import ConfigError
from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.scoring import paired_difference
from evolve.search_loop.ending import SearchError
from evolve.search_loop.gradient_start import shuffled
from evolve.search_loop.objective import objective_of
from evolve.search_loop.start import create_evaluator
from evolve.simplify.long_recipe import count_numbers, long_sites, other_settings
from evolve.simplify.refit import Refit
from evolve.simplify.structures import settings, structures
from evolve.sweep.variants import contributions
from evolve.trials.run_directory import RunDirectory, dump_yaml
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation

LEVEL = 0.95
RESAMPLES = 10_000
Items = Mapping[str, tuple[int, ...]]  # task → ids
DECIMALS = (2, 3, 4)  # numbers are rounded to so many, if that does no harm


@dataclass(frozen=True)
class Shorter:
    """A shorter recipe and how it compares with the long one, paired by item.

    Attributes:
        recipe: it.
        numbers: in its parameters.
        deciding: difference on the items that decided.
        told: on the others, which decided nothing; None without held-out items.
    """

    recipe: Mapping[str, Any]
    numbers: int
    deciding: Interval
    told: Interval | None = None


@dataclass(frozen=True)
class SimplifyOutcome:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def run_simplify(
    path: Path, allow: float | None, most: int | None, on_progress: Callable[[str], None]
) -> SimplifyOutcome:
    """Look for the shortest recipe that is not worse, from one number a model upwards.

    On the search items the long recipe was chosen, and is flattered there. So one half of the held-out items decides
    whether a short one does as well, and the other half tells how well, once, at the end.

    Args:
        path: directory of the run.
        allow: how much of the objective may be lost; None: what is not distinguishable.
        most: numbers at most; None: half of what the long recipe has.
        on_progress: is told how it goes.

    Raises:
        ConfigError: no finished run, or a recipe with nothing to be shortened.
    """
    directory = RunDirectory(path)
    directory.require_finished()
    prepared = prepare(read_search(directory.search))
    best = best_trial(path)
    long_numbers = count_numbers(best.recipe)
    sites = long_sites(prepared, best.recipe)
    layers = layers_of(next(iter(prepared.checkpoints.values())))
    found = structures(sites, layers, most or long_numbers // 2)
    if not found:
        raise ConfigError(f"{path}: its recipe has {long_numbers} numbers, of which none can be shared")
    fixed = other_settings(prepared, sites, best.recipe)
    held_out = open_journal(directory).kept(Stage.VALIDATION).get(best.number)
    work = path / "simple"
    on_progress(f"{long_numbers} numbers in the best recipe; each shorter one is fitted and scored, shortest first")
    evaluator = create_evaluator(prepared)
    try:
        refit = Refit(directory.search, fixed, evaluator, lambda event: None, threading.Event())
        judge = _Judge.of(prepared, evaluator, best.measured, held_out, allow)
        shorter = None
        for structure in found:
            try:
                trial = refit(settings(sites, structure, layers), work / f"{structure.numbers:04d}")
            except SearchError as error:
                on_progress(f"{structure.numbers} numbers ({structure.name}): {error}")
                continue
            if trial is None:
                break
            difference = judge.difference(trial.recipe)
            told = format_interval(difference, signed=True)
            on_progress(f"{structure.numbers} numbers ({structure.name}): {told} against the long recipe")
            if judge.accepts(difference):
                shorter = judge.rounded(Shorter(trial.recipe, count_numbers(trial.recipe), difference))
                break
        if shorter is None:
            text = (
                f"No recipe of at most {found[-1].numbers} numbers does as well as the best, which has {long_numbers}."
            )
            return SimplifyOutcome({"simple": None, "numbers": long_numbers}, text)
        shorter = judge.told(shorter)
    finally:
        evaluator.close()
    recipe = work / "recipe.yml"
    RunDirectory(work).write(recipe, dump_yaml(dict(shorter.recipe)))
    return _outcome(shorter, long_numbers, best.recipe, recipe, allow)


@dataclass(frozen=True)
class _Judge:
    """Compares a short recipe with the long one.

    Attributes:
        long: what the long one scored.
        deciding: task → items that decide.
        telling: task → items that tell; empty without held-out items.
    """

    prepared: Prepared
    evaluator: Evaluator
    long: Evaluation
    deciding: Items
    telling: Items
    allow: float | None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        evaluator: Evaluator,
        search: Evaluation,
        held_out: Evaluation | None,
        allow: float | None,
    ) -> Self:
        """By halves of the held-out items, where there are some; else all by the search items."""
        if held_out is None:
            items = {name: split.search for name, split in prepared.splits.items()}
            return cls(prepared, evaluator, search, items, {}, allow)
        seed = prepared.config.seed
        mixed = {name: shuffled(split.held_out, f"simplify {seed} {name}") for name, split in prepared.splits.items()}
        first = {name: items[: len(items) // 2] for name, items in mixed.items()}
        second = {name: items[len(items) // 2 :] for name, items in mixed.items()}
        return cls(prepared, evaluator, held_out, first, second, allow)

    def difference(self, recipe: Mapping[str, Any]) -> Interval:
        return self._paired(recipe, self.deciding)

    def accepts(self, difference: Interval) -> bool:
        """Not distinguishable, or not more lost than is allowed."""
        return difference.high >= 0 if self.allow is None else difference.value >= -self.allow

    def rounded(self, shorter: Shorter) -> Shorter:
        """With as few decimals as do no more harm than is allowed."""
        for decimals in DECIMALS:
            recipe = _rounded(shorter.recipe, decimals)
            if self.accepts(difference := self.difference(recipe)):
                return Shorter(recipe, shorter.numbers, difference)
        return shorter

    def told(self, shorter: Shorter) -> Shorter:
        """With the difference on items that decided nothing."""
        return replace(shorter, told=self._paired(shorter.recipe, self.telling)) if self.telling else shorter

    def _paired(self, recipe: Mapping[str, Any], items: Items) -> Interval:
        config, scorers = self.prepared.config, self.prepared.scorers
        (short,) = self.evaluator.evaluate([Request(0, recipe, items)])
        if short.failure is not None:
            raise SearchError(f"a short recipe could not be scored: {short.failure}")
        ours = contributions(scorers, short.scores)
        theirs = contributions(scorers, self.long.restricted(items).scores)
        found = paired_difference(
            ours, theirs, objective_of(scorers, config), confidence=LEVEL, resamples=RESAMPLES, seed=config.seed
        )
        return Interval(found.difference, found.low, found.high)


def _rounded(node: Any, decimals: int, inside: bool = False) -> Any:
    if isinstance(node, Mapping):
        return {key: _rounded(child, decimals, inside or key == "parameters") for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [_rounded(child, decimals, inside) for child in node]
    return round(node, decimals) + 0.0 if inside and isinstance(node, float) else node  # no minus zero


def _warnings(shorter: Shorter, allow: float | None) -> list[str]:
    """What the items that decided nothing say otherwise."""
    if shorter.told is None or shorter.told.value >= -(allow or 0.0) or (allow is None and shorter.told.high >= 0):
        return []
    return [
        "The other items see more of a loss than those that decided: trust theirs, and allow less, or more numbers."
    ]


def _outcome(
    shorter: Shorter, long_numbers: int, long: Mapping[str, Any], recipe: Path, allow: float | None
) -> SimplifyOutcome:
    def lines(of: Mapping[str, Any]) -> int:
        return len(dump_yaml(dict(of)).splitlines())

    told = [
        f"{long_numbers} numbers in {lines(long)} lines became {shorter.numbers} in {lines(shorter.recipe)}.",
        f"Short minus long, paired by item: {format_interval(shorter.deciding, signed=True)} on the items that decided"
        + (f", {format_interval(shorter.told, signed=True)} on other held-out items." if shorter.told else "."),
        *_warnings(shorter, allow),
        f"Written: {recipe}",
        "",
        dump_yaml(dict(shorter.recipe)),
    ]
    facts = {
        "simple": str(recipe),
        "numbers": shorter.numbers,
        "long_numbers": long_numbers,
        "deciding": asdict(shorter.deciding),
        "held_out": None if shorter.told is None else asdict(shorter.told),
    }
    return SimplifyOutcome(facts, "\n".join(told))
