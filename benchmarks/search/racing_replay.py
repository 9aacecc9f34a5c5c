"""Races replayed on stored scores: how many items a race saves, and how often it is wrong.

    python benchmarks/search/racing_replay.py [--seeds 20] [--journal runs/demo/journal.log]

Without a journal it takes `demo_zoo_responses.npz`: every score of the 308 candidates and 6 references of
`configs/demo.yml` on its 600 search items, as version 0.1.0 found them. Each generation of 14 is raced for the 7 that
CMA-ES makes its next distribution from; the race sees of earlier generations only what it has paid for.

saved     item evaluations of all candidates on all items, per item evaluation of the race
+ best    the same, with what it takes to score everything of a candidate that would be the best so far
wrong     candidates dropped though their scores on all items are among the 7 best, per candidate dropped
settled   candidates that stop before they saw all items
wrongly   of these, those whose scores on all items are on the other side of the cut, either side
parents   share of the true 7 parents that the race chooses too
lost      objective of the best candidate minus that of the best that the race saw whole

Wald: a normal interval of each paired difference, uncorrected. Hoeffding: Serfling's bound without replacement,
corrected for pairs and looks. Both draw items evenly and predict nothing. "tolerance 0": to settle a side means to know
it by the last item. "resolution": either side will do where all items together could not tell. Intervals: 95 % of the
mean over seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from evolve.racing.race import ROUNDS, Race, Side, resolution
from evolve.search_loop.races import ENOUGH, RECENT
from evolve.trials.journal import Journal
from evolve.trials.trial import Kind

STORED = Path(__file__).parent / "demo_zoo_responses.npz"
CONFIDENCE = 0.95
Margin = Callable[[np.ndarray, int], np.ndarray]
"""From paired differences, shape (pairs, seen), and the number of all items to half-widths of their means, (pairs,)."""


@dataclass(frozen=True)
class Responses:
    """Scores of a finished search: models x items, the batch of each model (-1: reference), the task of each item."""

    scores: np.ndarray
    batches: np.ndarray
    tasks: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Equal weights of the tasks, whatever their numbers of items."""
        count = np.bincount(self.tasks)
        shares: np.ndarray = 1 / (len(count) * count[self.tasks])
        return shares


@dataclass(frozen=True)
class Outcome:
    """What one replay came to; the columns of the table."""

    saved: float
    saved_with_the_best: float
    wrong_drops: float
    settled: float
    wrongly_settled: float
    same_parents: float
    lost: float


@dataclass
class Raced:
    """One generation after its race: how much each saw and in which order, where it was settled, what it is worth."""

    seen: np.ndarray
    order: np.ndarray
    side: np.ndarray
    estimates: np.ndarray


@dataclass(frozen=True)
class Start:
    """What races: the rows, how many are above the cut, the resolution of all items, and a seed."""

    rows: np.ndarray
    parents: int
    resolution: float
    seed: int


Method = Callable[[Responses, np.ndarray, Start], Raced]
"""From responses, scores of earlier models (NaN: not seen), and what races."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--journal", default=None)
    options = parser.parse_args()
    responses = stored() if options.journal is None else of_journal(options.journal)
    print(f"{len(responses.scores)} models, {len(responses.tasks)} items, {responses.batches.max() + 1} generations")
    print(f"{'':34}{'saved':>12}{'+ best':>12}{'wrong':>12}{'settled':>12}{'wrongly':>12}{'parents':>12}{'lost':>14}")
    for name, method in METHODS.items():
        rows = np.array([astuple(replay(responses, method, seed)) for seed in range(options.seeds)])
        half = 1.96 * rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
        cells = [f"{mean:.3f}±{around:.3f}" for mean, around in zip(rows.mean(axis=0), half, strict=True)]
        print(f"{name:34}" + "".join(f"{cell:>12}" for cell in cells[:-1]) + f"{cells[-1]:>14}")


def stored() -> Responses:
    """The search of the demo."""
    file = np.load(STORED)
    scores = np.unpackbits(file["responses"], axis=1, count=int(file["items"])).astype(float)
    return Responses(scores, file["batches"], file["task_of_item"].astype(np.intp))


def of_journal(location: str) -> Responses:
    """A search of one's own whose candidates were scored on all items, by metrics in [0, 1] that should go up."""
    trials = [trial for trial in Journal.open(location).trials() if trial.task_scores]
    items = [(task, item) for task, scores in trials[0].measured.scores.items() for item in scores]
    rows = [[trial.measured.scores[task][item] for task, item in items] for trial in trials]
    _, tasks = np.unique([task for task, _ in items], return_inverse=True)
    batches = [trial.batch if trial.kind is Kind.CANDIDATE else -1 for trial in trials]
    return Responses(np.array(rows, dtype=float), np.array(batches), tasks)


def replay(responses: Responses, method: Method, seed: int) -> Outcome:
    """All generations, one after the other."""
    scores, shares = responses.scores, responses.shares
    known = np.where((responses.batches < 0)[:, None], scores, np.nan)
    spent = extra = drops = wrong_drops = settled = wrongly = same = parents_in_all = 0
    whole: list[float] = []
    for generation in range(responses.batches.max() + 1):
        rows = np.flatnonzero(responses.batches == generation)
        parents = len(rows) // 2
        visible = (responses.batches < 0) | (responses.batches >= generation - RECENT)
        earlier = visible & (responses.batches < generation)
        field = known[earlier & (responses.batches >= 0)]
        field = field[np.isfinite(field).all(axis=1)]
        if len(field) < ENOUGH:
            field = scores[responses.batches < 0]
        finest = resolution(shares, field, CONFIDENCE)
        raced = method(responses, known[earlier], Start(rows, parents, finest, generation + seed * 1000))
        true = scores[rows] @ shares
        ranked = np.sort(true)[::-1]
        dropped, lifted = raced.side == Side.BELOW, raced.side == Side.ABOVE
        bad_drop, bad_lift = dropped & (true > ranked[parents] + 1e-9), lifted & (true < ranked[parents - 1] - 1e-9)
        drops, wrong_drops = drops + dropped.sum(), wrong_drops + bad_drop.sum()
        settled, wrongly = settled + (dropped | lifted).sum(), wrongly + (bad_drop | bad_lift).sum()
        chosen = np.lexsort((-raced.estimates, -raced.side))[:parents]
        same += (true[chosen] >= ranked[parents - 1] - 1e-9).sum()
        parents_in_all += parents
        spent += raced.seen.sum()
        for index in np.argsort(-raced.estimates):
            bar = max(whole, default=-math.inf)
            if raced.seen[index] < len(shares) and raced.estimates[index] > bar:
                extra += len(shares) - raced.seen[index]
                raced.seen[index] = len(shares)
            if raced.seen[index] == len(shares):
                whole.append(float(true[index]))
            seen = raced.order[: raced.seen[index]]
            known[rows[index], seen] = scores[rows[index], seen]
    candidates = responses.batches >= 0
    everything = candidates.sum() * len(shares)
    return Outcome(
        saved=everything / spent,
        saved_with_the_best=everything / (spent + extra),
        wrong_drops=wrong_drops / max(drops, 1),
        settled=settled / candidates.sum(),
        wrongly_settled=wrongly / max(settled, 1),
        same_parents=same / parents_in_all,
        lost=float((scores[candidates] @ shares).max()) - max(whole),
    )


def race(tolerance: float, thin: bool = True) -> Method:
    """This project's; tolerance in units of the resolution of all items."""

    def method(responses: Responses, known: np.ndarray, start: Start) -> Raced:
        running = Race(
            responses.shares,
            responses.tasks,
            known,
            candidates=len(start.rows),
            parents=start.parents,
            confidence=CONFIDENCE,
            tolerance=tolerance * start.resolution,
            seed=start.seed,
            thin=thin,
        )
        while not running.finished:
            running.observe(responses.scores[np.ix_(start.rows[running.racing], running.next_items)])
        return Raced(running.seen, running.order.items, running.side, running.estimates())

    return method


def naive(margin: Margin, tolerance: float) -> Method:
    """Even sampling, and intervals of the paired differences by a formula."""

    def method(responses: Responses, known: np.ndarray, start: Start) -> Raced:
        rows, items = start.rows, len(responses.tasks)
        order = np.random.default_rng(start.seed).permutation(items)
        scores = (responses.scores[rows] * responses.shares * items)[:, order]
        allowed = tolerance * start.resolution
        side, seen = np.full(len(rows), Side.UNDECIDED), np.zeros(len(rows), dtype=int)
        better = np.full((len(rows), len(rows)), -math.inf)  # lower ends of the differences
        for share in ROUNDS:
            end = round(share * items)
            racing = np.flatnonzero(side == Side.UNDECIDED)
            seen[racing] = end
            if end == items:
                break
            for index in racing:
                differences = scores[index, :end] - scores[racing, :end]
                lower = differences.mean(axis=1) - margin(differences, items)
                better[index, racing] = np.where(racing == index, -math.inf, lower)
            above = (better + allowed > 0).sum(axis=1) >= len(rows) - start.parents
            below = (better + allowed > 0).sum(axis=0) >= start.parents
            side[racing] = np.where(below[racing], Side.BELOW, np.where(above[racing], Side.ABOVE, Side.UNDECIDED))
        estimates = np.array([row[:end].mean() for row, end in zip(scores, seen, strict=True)])
        return Raced(seen, order, side, estimates)

    return method


def wald(differences: np.ndarray, items: int) -> np.ndarray:
    """Half-widths by the normal distribution, for one look at one pair."""
    seen = differences.shape[1]
    z = NormalDist().inv_cdf(CONFIDENCE)
    half: np.ndarray = z * differences.std(axis=1, ddof=1) * math.sqrt((1 - seen / items) / seen)
    return half


def hoeffding(differences: np.ndarray, items: int) -> np.ndarray:
    """Half-widths for differences in [-1, 1], that hold for all pairs of 14 and three looks (Serfling 1974)."""
    seen = differences.shape[1]
    chance = (1 - CONFIDENCE) / (13 * (len(ROUNDS) - 1))
    half = math.sqrt(2 * (1 - (seen - 1) / items) * math.log(1 / chance) / seen)
    return np.full(len(differences), half)


METHODS: dict[str, Method] = {
    "Hoeffding, tolerance 0": naive(hoeffding, 0.0),
    "Hoeffding, resolution": naive(hoeffding, 1.0),
    "Wald, tolerance 0": naive(wald, 0.0),
    "Wald, resolution": naive(wald, 1.0),
    "race, tolerance 0": race(0.0),
    "race, resolution, evenly drawn": race(1.0, thin=False),
    "race, resolution": race(1.0),
    "race, 1.5 x resolution": race(1.5),
}


if __name__ == "__main__":
    main()
