"""The first move: from several starts along the gradient, to where the true metric is best.

The probability of right answers is raised, step by step, on items of the search. The loss is not the metric: at
intervals the points are scored by the true metric on items that no step sees. These looks choose among the starts, tell
when to stop, and which points of the way are scored as candidates. A start is never given up for a lower loss: a way
that is below it at a look begins there again, with smaller steps.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from evolve.config.strategy import Resolution, StartConfig
from evolve.evaluation.request import GradientRequest
from evolve.search_loop.answer_targets import AnswerTargets
from evolve.search_loop.descent import Descent, shrunk
from evolve.search_loop.loop import Search
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.space import Vector
from evolve.trials.events import GradientStepped, PointLookedAt, StopReason
from evolve.trials.journal import WAY
from evolve.trials.spending import of_the_search
from evolve.trials.trial import Evaluation

LOOK_EVERY = 8  # steps
DOUBLE_EVERY = 24  # steps, the items of a step
MOST_TIMES = 8  # the items of the first
PATHS = 2  # starts that are followed up to the first look on the way, and then the better one
PATIENCE = 6  # looks without a better score
PATIENCE_AT_FIRST = 3  # the same, as long as no point of the way is better than every start
SLOWER = 1 / 3  # of the rate after each of these, from the best start again: steps may lead past what is better
SURE = 0.9  # a probability of right answers on the items of steps, at which these have little to gain
SHARES = 0.75, 0.5  # of what differs within layers, that are tried to be kept
COMPLETED = 3  # points that are scored on all items
LEAST_SIGMA = 0.02  # of the search that begins where the way ended, as a share of a gene's range


@dataclass(frozen=True)
class Start:
    """Where a way may begin.

    Attributes:
        label: for people.
        vector: the point of the unit cube.
        looked: what the model there scored on the items of the looks, where that is known.
        is_corner: whether no way begins there, since the smallest step makes quite another model.
    """

    label: str
    vector: tuple[float, ...]
    looked: Evaluation | None = None
    is_corner: bool = False


@dataclass
class _Path:
    label: str
    start: tuple[float, ...]
    descent: Descent
    rate: float
    steps: int = 0

    @property
    def name(self) -> str:
        return f"step {self.steps} from {self.label}"


@dataclass(frozen=True)
class _Point:
    label: str
    vector: tuple[float, ...]
    objective: float  # on the items of the look
    evaluation: Evaluation


@dataclass
class GradientStart:
    """One gradient start of a search; everything that it finds out is in the journal.

    Attributes:
        search: in whose journal and on whose budget.
        config: `start:` of search.yml.
        resolution: of the movement.
        sensitivity: which genes can be followed, and what they set.
        starts: where ways may begin.
        targets: what is right.
        look_items: task name -> items that points are looked at on.
        step_items: task name -> items that steps are made on, in an order of their own.
        failures: why ways ended, a sentence for each.
        has_nothing_to_gain: whether it ended since every item is right.
    """

    search: Search
    config: StartConfig
    resolution: Resolution
    sensitivity: GeneSensitivity
    starts: Sequence[Start]
    targets: AnswerTargets
    look_items: Mapping[str, tuple[int, ...]]
    step_items: Mapping[str, tuple[int, ...]]
    _points: list[_Point] = field(default_factory=list)
    _began: dict[str, tuple[float, ...]] = field(default_factory=dict)  # point of a way -> where that began
    failures: list[str] = field(default_factory=list)
    has_nothing_to_gain: bool = False

    def run(self) -> StopReason | None:
        """Follow the gradient, and score the best points of the way as candidates, as many as the budget pays for.

        Returns:
            Why it broke off, if it did.
        """
        reason = self._follow()
        if reason not in (None, StopReason.ITEMS):
            return reason
        self.search.item_budget.reserved -= self.one_candidate
        best = {point.label: point.vector for point in self._best_points(COMPLETED)}
        return self.search.score_points(best) or reason

    def _follow(self) -> StopReason | None:
        """Go as far as it is worth it, and leave the items that one candidate takes."""
        self.search.item_budget.reserved += self.one_candidate
        for start in self.starts:
            if start.looked is not None:
                self._add_point(start.label, start.vector, start.looked)
        if reason := self._look({start.label: start.vector for start in self.starts if start.looked is None}):
            return reason
        if not self._best_on_ways(1):
            self.failures[1:] = ["no start of the gradient has an objective; the search begins at the references"]
            return None
        paths = [self._path_from(point, self.config.rate) for point in self._best_on_ways(PATHS)]
        looks_without_better = 0
        while paths and paths[0].steps < self.config.steps and not self.has_nothing_to_gain:
            leads_on = self._is_of_a_step(self._best_on_ways(1)[0])
            if looks_without_better >= (PATIENCE if leads_on else PATIENCE_AT_FIRST):
                break
            if looks_without_better and not leads_on:
                paths = [self._path_from(self._best_on_ways(1)[0], paths[0].rate * SLOWER, paths[0].steps)]
            goal = min(paths[0].steps + LOOK_EVERY, self.config.steps)
            told: dict[str, list[float]] = {path.label: [] for path in paths}
            while paths and paths[0].steps < goal:
                if reason := self._step(paths, told):
                    return reason
            best = self._best_on_ways(1)[0].objective
            self._began |= {path.name: path.start for path in paths}
            if reason := self._look({path.name: path.descent.vector for path in paths}):
                return reason
            found = {point.label: point.objective for point in self._points}
            paths = sorted(paths, key=lambda path: -found.get(path.name, -np.inf))[:1]
            self.has_nothing_to_gain = bool(paths) and self._all_is_right(told[paths[0].label])
            looks_without_better = 0 if self._best_on_ways(1)[0].objective > best else looks_without_better + 1
        if self.has_nothing_to_gain:
            return None
        averages = {f"average of the steps from {path.label}": path for path in paths if path.steps}
        self._began |= {label: path.start for label, path in averages.items()}
        if reason := self._look({label: path.descent.average for label, path in averages.items()}):
            return reason
        return self._look(self._shrunk()) if self.resolution == "auto" else None

    @property
    def one_candidate(self) -> int:
        """Item evaluations."""
        return sum(map(len, self.search.items.values()))

    @property
    def has_gained(self) -> bool:
        """Whether a point that steps led to is, by the looks, better than every start or as good."""
        return bool(self._points) and self._is_of_a_step(self._best_points(1)[0])

    def _is_of_a_step(self, point: _Point) -> bool:
        return point.label not in {start.label for start in self.starts}

    def _best_on_ways(self, count: int) -> list[_Point]:
        """The best of those that a way begins at or leads through."""
        corners = {start.label for start in self.starts if start.is_corner}
        return [point for point in self._best_points(len(self._points)) if point.label not in corners][:count]

    def _all_is_right(self, probabilities: Sequence[float]) -> bool:
        """Whether the best point has every item of the looks right, and steps are sure of those they are made on."""
        seen = [point.evaluation.scores for point in self._points]
        best = self._best_points(1)[0].evaluation.scores
        return fmean(probabilities) >= SURE and self.search.objective_function.is_highest(best, seen)

    def sigmas(self) -> dict[int, float]:
        """How far each gene that was followed still moved on the second half of the way; empty where there was none.

        A gene that went to and fro, or far, is one to search; one that stood still has found its place.

        Returns:
            Number of the gene -> standard deviation, as a share of its range.
        """
        ends = [point for point in self._best_points(1) if point.label in self._began]
        began = [self._began[point.label] for point in ends]
        way = np.array([point.vector for point in self._points if self._began.get(point.label) in began])
        if len(way) < 2:
            return {}
        spread = way[(len(way) - 1) // 2 :].std(axis=0)
        return {number: max(LEAST_SIGMA, float(spread[number])) for number in self.sensitivity.genes}

    def _shrunk(self) -> dict[str, Vector]:
        """The best point with the genes of a layer closer together: where items are few, finer is not better."""
        best = self._best_points(1)[0]
        if best.label not in self._began:
            return {}
        space, genes = self.search.space, self.sensitivity.genes
        began = self._began[best.label]
        found = {
            f"{best.label}, {share:.0%} of what differs within layers": shrunk(
                space.coordinates, genes, began, best.vector, share
            )
            for share in SHARES
        }
        known = space.decode(best.vector)  # with one gene a layer nothing differs but by what is rounded
        return {label: vector for label, vector in found.items() if space.decode(vector) != known}

    def _path_from(self, point: _Point, rate: float, steps: int = 0) -> _Path:
        descent = Descent(self.search.space.coordinates, point.vector, self.sensitivity.genes, rate, self.resolution)
        return _Path(point.label, point.vector, descent, rate, steps)

    def _best_points(self, count: int) -> list[_Point]:
        """The best by the looks, no two in the same place; of equals the one that has come farther."""
        places = {point.vector: point for point in self._points}
        latest_first = list(reversed(places.values()))
        return sorted(latest_first, key=lambda point: -point.objective)[:count]

    def _look(self, points: Mapping[str, Vector]) -> StopReason | None:
        recipes = {label: self.search.space.decode(vector) for label, vector in points.items()}
        looked = self.search.look(recipes, self.look_items)
        if isinstance(looked, StopReason):
            return looked
        for (label, vector), evaluation in zip(points.items(), looked, strict=True):
            self._add_point(label, tuple(vector), evaluation)
        self._note_way()
        return None

    def _note_way(self) -> None:
        """Keep what was seen so far and what it had cost, for who looks at the run later."""
        journal = self.search.journal
        noted = journal.noted(WAY, [])
        spent = of_the_search(self.search.spent())
        new = [[spent, float(point.objective), point.label] for point in self._points[len(noted) :]]
        if new:
            journal.note(WAY, [*noted, *new])

    def _add_point(self, label: str, vector: tuple[float, ...], evaluation: Evaluation) -> None:
        """Keep a point that could be scored, and is inside of every constraint."""
        if evaluation.failure is not None:
            self.failures.append(f"{label} of the gradient start cannot be scored: {evaluation.failure}")
        objective = self.search.objective_function.of_feasible(evaluation)
        if objective is not None:
            before = max((point.objective for point in self._points), default=-np.inf)
            self._points.append(_Point(label, vector, objective, evaluation))
            best, gained = max(before, objective), objective > before
            self.search.watch(
                PointLookedAt(
                    label,
                    vector,
                    objective,
                    evaluation.item_count,
                    best,
                    gained,
                    self.search.replay.replayed,
                    self.search.item_evaluations(),
                )
            )

    def _step(self, paths: list[_Path], told: Mapping[str, list[float]]) -> StopReason | None:
        """One step of every path, on the same items; a path whose point cannot be differentiated ends."""
        space, items = self.search.space, self._items_of_step(paths[0].steps)
        written = {
            name: {item: answers[item] for item in items[name] if item in answers}
            for name, answers in self.targets.written.items()
            if name in items
        }
        slopes = self.search.objective_function.slopes(self._best_points(1)[0].evaluation.scores)
        total = sum(slopes[name] for name in items)  # 0 where only tasks without targets would gain
        weights = {name: slopes[name] / total if total > 0 else 1 / len(items) for name in items}
        vectors = [path.descent.vector for path in paths]
        requests = [
            GradientRequest(
                0,
                space.decode(vector),
                items,
                weights,
                self.config.exponent,
                written,
                self.targets.gold_counts,
                slots=self.sensitivity.slots,
                label=path.label if path.rate == self.config.rate else f"{path.label} at rate {path.rate:.2g}",
            )
            for path, vector in zip(paths, vectors, strict=True)
        ]
        steps = self.search.replay.differentiate(
            requests, lambda place, slopes: self.sensitivity.gradient(space, vectors[place], slopes.slopes)
        )
        if isinstance(steps, StopReason):
            return steps
        for path, step in zip(list(paths), steps, strict=True):
            if step.failure is not None:
                self.failures.append(f"the gradient ends at {path.name}: {step.failure}")
                paths.remove(path)
                continue
            path.descent.step(step.gradient)
            path.steps += 1
            probability = fmean(step.probabilities.values())
            told[path.label].append(probability)
            self.search.watch(
                GradientStepped(
                    path.label,
                    path.steps,
                    self.config.steps,
                    probability,
                    self.search.replay.replayed,
                    self.search.item_evaluations(),
                )
            )
        return None

    def _items_of_step(self, step: int) -> dict[str, tuple[int, ...]]:
        """The next of every task, from the beginning again where they end; more of them as the steps get smaller."""
        counts = items_of_steps(self.config, step + 1)
        first, count = sum(counts[:-1]), counts[-1]
        return {
            name: tuple(dict.fromkeys(items[place % len(items)] for place in range(first, first + count)))
            for name, items in self.step_items.items()
        }


def items_of_steps(config: StartConfig, steps: int) -> list[int]:
    """How many items of every task the first steps are made on."""
    return [config.items * min(MOST_TIMES, 2 ** (place // DOUBLE_EVERY)) for place in range(steps)]


def shuffled(items: Sequence[int], seed: str) -> tuple[int, ...]:
    """The items in an order that depends on the seed alone."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return tuple(order)
