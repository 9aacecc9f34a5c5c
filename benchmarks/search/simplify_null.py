"""Whether a simplification is honest: simulated runs whose short forms lose what is known.

    python benchmarks/search/simplify_null.py --runs 200

Each run has tasks, held-out items of random difficulty, a long recipe and short forms, of which the last are tried
where none of the first does. A form answers an item as the long one does, or, for some of the items, anew with the
same chance of being right, less what it truly loses. The product's own code halves the items, decides, and tells. Of
the accepted forms it is counted how often the interval that is told covers what they truly lose, and how often the
interval on the items that decided would have.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from types import SimpleNamespace
from typing import Any

from evolve.config.strategy import SimplifyConfig
from evolve.evaluation.request import Request
from evolve.report.intervals import Interval
from evolve.scoring import Split
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search_loop.objective import ObjectiveFunction
from evolve.simplify.examiner import Examiner
from evolve.simplify.simplification import shortest
from evolve.trials.trial import Evaluation

TASKS = ("first", "second", "third", "fourth")
FORMS = 3
LONGER_FORMS = 4
LOSSES = (0.0, 0.005, 0.01, 0.02, 0.03)
RESAMPLES = 1000  # of the bootstrap, where the product takes more
ANEW = 0.15  # of the items that a short form answers otherwise than by the long one's answer


@dataclass(frozen=True)
class Task:
    """A scorer that only aggregates."""

    name: str
    direction: str = "maximize"

    def aggregate(self, values: Any) -> Any:
        return score_with_error(MeanOfItems(statistics.fmean), values)

    def contributions(self, values: Any) -> Any:
        return dict(values)


@dataclass
class Memory:
    """A journal that forgets."""

    found: dict[int, Evaluation] = field(default_factory=dict)

    def kept(self, stage: object) -> dict[int, Evaluation]:
        return self.found

    def keep(self, stage: object, evaluation: Evaluation) -> None:
        self.found[evaluation.number] = evaluation


class Simulated:
    """Answers with what was drawn."""

    workers = 1

    def __init__(self, answers: Sequence[Mapping[str, Mapping[int, float]]]) -> None:
        self._answers = answers

    def evaluate(self, requests: Sequence[Request]) -> Iterator[Evaluation]:
        for request in requests:
            own = self._answers[request.recipe["form"]]
            scores = {task: {item: own[task][item] for item in items} for task, items in request.items.items()}
            yield Evaluation(request.number, scores=scores)


def simulated_run(seed: int, items: int, loss: float) -> tuple[int, Interval, Interval] | None:
    """Which form is accepted, its difference on the items that decided and as it is told; None: none is.

    Args:
        seed: of everything.
        items: held out of each task.
        loss: what every form truly loses.
    """
    generator = random.Random(seed)
    chances = {task: {item: generator.betavariate(4.0, 0.6) for item in range(items)} for task in TASKS}
    long = {task: {i: float(generator.random() < p) for i, p in own.items()} for task, own in chances.items()}
    forms = [_short_answers(long, chances, loss, generator) for _ in range(FORMS + LONGER_FORMS)]
    tasks = [SimpleNamespace(label=name, signal="metric", weight=1.0) for name in TASKS]
    config = SimpleNamespace(
        tasks=tasks, objective="weighted_sum", objectives=(), normalize="none", cost_weights={}, seed=seed
    )
    prepared: Any = SimpleNamespace(
        splits={task: Split((), tuple(range(items))) for task in TASKS},
        scorers=tuple(map(Task, TASKS)),
        config=config,
    )
    journal: Any = Memory()
    evaluator: Any = Simulated(forms)
    function = ObjectiveFunction(prepared.scorers, config, None)  # type: ignore[arg-type]
    examiner = Examiner.of(prepared, journal, evaluator, function, Evaluation(0), Evaluation(0, scores=long), Event())
    examiner = replace(examiner, resamples=RESAMPLES)

    def examined(form: int) -> tuple[Mapping[str, Any], Interval] | None:
        difference = examiner.difference({"form": form}, examiner.deciding)
        return None if difference is None else ({"form": form}, difference)

    allow = SimplifyConfig().allow
    found = shortest(range(FORMS), examined, allow) or shortest(range(FORMS, FORMS + LONGER_FORMS), examined, allow)
    if found is None:
        return None
    told = examiner.difference(found[0], examiner.telling)
    return None if told is None else (found[0]["form"], found[1], told)


def _short_answers(
    long: Mapping[str, Mapping[int, float]],
    chances: Mapping[str, Mapping[int, float]],
    loss: float,
    generator: random.Random,
) -> dict[str, dict[int, float]]:
    """Right as often as the long one on average, less the loss: where it answers anew, and only there."""
    least = {task: statistics.fmean(own.values()) for task, own in chances.items()}
    return {
        task: {
            item: right
            if generator.random() >= ANEW
            else float(generator.random() < chances[task][item] * (1 - loss / ANEW / least[task]))
            for item, right in own.items()
        }
        for task, own in long.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--items", type=int, nargs="*", default=[50, 100, 450], help="held out of each of four tasks")
    arguments = parser.parse_args()
    print(
        "| held out of a task | every form loses | the shortest is accepted | any is | told covers | decided covers |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for items in arguments.items:
        for loss in LOSSES:
            runs = [simulated_run(seed, items, loss) for seed in range(arguments.runs)]
            accepted = [run for run in runs if run is not None]
            first = sum(form == 0 for form, _, _ in accepted) / len(runs)
            covers = [
                statistics.fmean(one.low <= -loss <= one.high for one in own) if own else math.nan
                for own in ([told for _, _, told in accepted], [decided for _, decided, _ in accepted])
            ]
            shares = [first, len(accepted) / len(runs), *covers]
            print(f"| {items} | {loss:g} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
