"""What a short recipe scores beside the long one, and gradients at both; all kept in the journal of the run."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import GradientRequest, Request
from evolve.preflight.prepare import Prepared
from evolve.report.intervals import Interval, objective_interval
from evolve.scoring import paired_difference, split_items
from evolve.search_loop.objective import ObjectiveFunction
from evolve.simplify.sites import Cell
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.genes import RangeGene
from evolve.space.space import Vector
from evolve.sweep.variants import contributions
from evolve.trials.journal import Journal
from evolve.trials.stage import Stage, StepsOf
from evolve.trials.step import Step
from evolve.trials.trial import Evaluation

LEVEL = 0.95
RESAMPLES = 10_000
GRADIENTS = 96  # at a recipe, of one item of every task each
STEP_ITEMS = 24  # of every task

Items = Mapping[str, tuple[int, ...]]
"""Task → ids."""


class StoppedSimplifyingError(RuntimeError):
    """A stop was asked for; what was scored is kept."""


@dataclass(frozen=True)
class Examiner:
    """Scores short recipes beside the long one.

    On the search items the long recipe was chosen, and is flattered there. So one half of the held-out items decides
    whether a short one does as well, and the other half tells how well, once, at the end.

    Attributes:
        prepared: the search.
        journal: of the run, which keeps every answer.
        evaluator: gives them.
        objective_function: of the search, which knows its parents where these set the scale.
        long: what the long recipe scored on the items below.
        deciding: items that decide.
        telling: items that tell; empty without held-out items.
        stop: set to stop softly.
        resamples: of the bootstrap of a difference.
    """

    prepared: Prepared
    journal: Journal
    evaluator: Evaluator
    objective_function: ObjectiveFunction
    long: Evaluation
    deciding: Items
    telling: Items
    stop: Flag
    resamples: int = RESAMPLES

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        journal: Journal,
        evaluator: Evaluator,
        objective_function: ObjectiveFunction,
        search: Evaluation,
        held_out: Evaluation | None,
        stop: Flag,
    ) -> Examiner:
        """By halves of the held-out items, where there are some; else all by the search items."""
        splits = prepared.splits
        if held_out is None or any(len(split.held_out) < 2 for split in splits.values()):
            items = {name: split.search for name, split in splits.items()}
            return cls(prepared, journal, evaluator, objective_function, search, items, {}, stop)
        halves = {
            name: split_items(split.held_out, None, len(split.held_out) // 2, prepared.config.seed)
            for name, split in splits.items()
        }
        first = {name: half.search for name, half in halves.items()}
        second = {name: half.held_out for name, half in halves.items()}
        return cls(prepared, journal, evaluator, objective_function, held_out, first, second, stop)

    def difference(self, recipe: Mapping[str, Any], items: Items) -> Interval | None:
        """Short minus long, paired by item; None of a recipe that cannot be scored.

        Raises:
            StoppedSimplifyingError: a stop was asked for.
        """
        return self.difference_of(self.scored(recipe, items), items)

    def difference_of(self, short: Evaluation, items: Items) -> Interval | None:
        """The same, of what has been scored on these items and perhaps others."""
        short = short.restricted(items)
        if short.failure is not None or short.violations:
            return None
        scorers, config = self.prepared.scorers, self.prepared.config
        found = paired_difference(
            contributions(scorers, short.scores),
            contributions(scorers, self.long.restricted(items).scores),
            self.objective_function.scalarization,
            confidence=LEVEL,
            resamples=self.resamples,
            seed=config.seed,
        )
        return Interval(found.difference, found.low, found.high).shifted(
            self._penalty(self.long) - self._penalty(short)
        )

    def objectives(self, recipe: Mapping[str, Any], items: Items) -> tuple[Interval, Interval]:
        """Of the short and the long recipe."""
        return self._objective(self.scored(recipe, items)), self._objective(self.long.restricted(items))

    def _objective(self, evaluation: Evaluation) -> Interval:
        found = contributions(self.prepared.scorers, evaluation.scores)
        interval = objective_interval(found, self.objective_function.scalarization, LEVEL) or Interval(0.0)
        return interval.shifted(-self._penalty(evaluation))

    def _penalty(self, evaluation: Evaluation) -> float:
        """What costs take from the objective: without an interval of their own, as in the score table."""
        terms = self.objective_function.cost_terms
        return terms.penalty(terms.measured(evaluation)) if terms.counts else 0.0

    def gradients(self, recipe: Mapping[str, Any], cells: Sequence[Cell]) -> list[tuple[float, ...]]:
        """Of the loss at a recipe by its numbers, on one search item of every task each; empty where there are none.

        Args:
            recipe: the long one, or one with other numbers in its places.
            cells: the numbers.

        Raises:
            StoppedSimplifyingError: a stop was asked for.
        """
        count = min(GRADIENTS, max(len(split.search) for split in self.prepared.splits.values()))
        return self._gradients(recipe, cells, [self._batch(index, 1) for index in range(count)])

    def gradient(self, recipe: Mapping[str, Any], cells: Sequence[Cell], step: int) -> tuple[float, ...]:
        """The same on the search items of a step; empty where there is none.

        Raises:
            StoppedSimplifyingError: a stop was asked for.
        """
        return next(iter(self._gradients(recipe, cells, [self._batch(step, STEP_ITEMS)])), ())

    def _batch(self, index: int, size: int) -> Items:
        """Each task's next search items, in an order of its own that begins again at its end."""
        seed = self.prepared.config.seed
        orders = {name: _mixed(split.search, f"simplify {seed} {name}") for name, split in self.prepared.splits.items()}
        return {
            name: tuple(order[(index * size + place) % len(order)] for place in range(min(size, len(order))))
            for name, order in orders.items()
        }

    def _gradients(
        self, recipe: Mapping[str, Any], cells: Sequence[Cell], batches: Sequence[Items]
    ) -> list[tuple[float, ...]]:
        """One of each batch; none where one fails."""
        exponent = self.prepared.config.start.exponent
        weights = self.objective_function.slopes(self.long.restricted(self.deciding).scores)
        slots = tuple(sorted({cell.slot for cell in cells}, key=str))
        requests = [
            GradientRequest(_number(recipe, items), recipe, items, weights, exponent, slots=slots) for items in batches
        ]
        known = self.journal.steps(StepsOf.SIMPLIFICATION)
        failed = False
        asked = (one for one in requests if one.number not in known and not failed and not self.stop.is_set())
        items_of = {one.number: sum(map(len, one.items.values())) for one in requests}
        for slopes in self.evaluator.differentiate(asked):
            found = tuple(slopes.slopes.get((cell.output, cell.slot), 0.0) for cell in cells)
            failed = failed or slopes.failure is not None
            items = items_of[slopes.number]
            step = Step(slopes.number, () if slopes.failure else found, items=items, failure=slopes.failure)
            self.journal.keep_step(step, StepsOf.SIMPLIFICATION)
            known[step.number] = step
        self._check_stop()
        steps = [known[one.number] for one in requests if one.number in known]
        return [] if any(step.failure for step in steps) else [step.gradient for step in steps]

    def gradients_before(
        self, sensitivity: GeneSensitivity, vector: Vector, cells: Sequence[Cell]
    ) -> list[tuple[float, ...]]:
        """Those of the search's steps, by the long recipe's numbers, as far as genes tell what these do.

        A gene that sets several numbers has its gradient shared among them.

        Args:
            sensitivity: which genes set a number.
            vector: where the way has led.
            cells: the numbers.
        """
        rows = [sensitivity.rows.get((cell.output, cell.slot), ()) for cell in cells]
        scale: dict[int, float] = {}  # gene -> its number's slope by the unit, times the squares of all its shares
        for number, share in itertools.chain.from_iterable(rows):
            gene = self.prepared.space.coordinates[number].gene
            if isinstance(gene, RangeGene):
                scale[number] = scale.get(number, 0.0) + share**2 * gene.slope(vector[number])
        return [
            tuple(sum(share * step.gradient[number] / scale[number] for number, share in row) for row in rows)
            for step in self.journal.steps().values()
            if step.gradient
        ]

    def scored(self, recipe: Mapping[str, Any], items: Items) -> Evaluation:
        """What a recipe scores on some items, by the journal where that knows.

        Raises:
            StoppedSimplifyingError: a stop was asked for.
        """
        number = _number(recipe, items)
        found = self.journal.kept(Stage.SIMPLIFICATION).get(number)
        if found is None or found.failure is not None:
            self._check_stop()
            (found,) = self.evaluator.evaluate([Request(number, recipe, items)])
            self.journal.keep(Stage.SIMPLIFICATION, found)
        return found

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedSimplifyingError


def _number(recipe: Mapping[str, Any], items: Items) -> int:
    """Of a question: the same for the same, whichever way one comes to ask it."""
    asked = json.dumps([recipe, {name: list(ids) for name, ids in items.items()}], sort_keys=True)
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:6], "big")


def _mixed(items: Sequence[int], seed: str) -> list[int]:
    return random.Random(seed).sample(items, len(items))
