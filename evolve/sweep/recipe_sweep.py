"""Plain recipes against one another: all on the same items, in rounds; who is settled to be beaten sees no more."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evolve.config.sweep import Variant
from evolve.evaluation.evaluator import Evaluator
from evolve.evaluation.request import Request
from evolve.scoring import Objective, Scorer
from evolve.sweep.score_store import ScoreStore
from evolve.sweep.settled import ROUNDS, settled_to_be_beaten
from evolve.sweep.variants import VariantResult, contributions
from evolve.trials.trial import Evaluation, ItemScores

Items = Mapping[str, tuple[int, ...]]


@dataclass
class RecipeSweep:
    """A sweep of recipes without genes.

    Attributes:
        evaluator: merges and scores.
        scorers: the tasks.
        objective: what their scores become.
        search: task → ids of the items that choose, in the order in which they are scored.
        held_out: task → ids of those on which the finalists are told.
        finalists: how many there are.
        seed: of the items.
        store: keeps what is scored.
        race: whether who is settled to be beaten sees no more items.
        on_progress: is told how it goes.
    """

    evaluator: Evaluator
    scorers: Sequence[Scorer]
    objective: Objective
    search: Items
    held_out: Items
    finalists: int
    seed: int
    store: ScoreStore
    race: bool = True
    on_progress: Callable[[str], None] = lambda text: None
    _found: dict[str, Evaluation] = field(default_factory=dict, init=False)
    _recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, init=False)

    def run(self, variants: Sequence[Variant], recipes: Mapping[str, Mapping[str, Any]]) -> list[VariantResult]:
        """Score them.

        Args:
            variants: to compare.
            recipes: name of a variant → its recipe.
        """
        self._recipes = recipes
        standing = list(variants)
        dropped: set[str] = set()
        for number, share in enumerate(ROUNDS if self.race else (1.0,), start=1):
            items = {task: ids[: math.ceil(share * len(ids))] for task, ids in self.search.items()}
            self._score(standing, "search", items)
            scored = [variant for variant in standing if self._found_of(variant, "search").failure is None]
            if share < 1 and len(scored) > 1:
                beaten = self._beaten(scored, items, len(variants))
                dropped |= beaten
                if beaten:
                    self.on_progress(f"round {number}: {len(beaten)} of {len(scored)} are beaten and see no more items")
                standing = [variant for variant in scored if variant.name not in beaten]
            else:
                standing = scored
        finalists = sorted(standing, key=lambda variant: -self._value(variant, "search", self.search))[: self.finalists]
        if any(self.held_out.values()):
            self._score(finalists, "held_out", self.held_out)
        return [self._result(variant, variant.name in dropped) for variant in variants]

    def _score(
        self,
        variants: Sequence[Variant],
        part: str,
        items: Items,
    ) -> None:
        """The items that are not scored yet; each variant is kept as soon as it is."""
        requests, asked = [], {}
        for number, variant in enumerate(variants):
            known = self._found_of(variant, part)
            missing = {
                task: tuple(item for item in ids if item not in known.scores.get(task, {}))
                for task, ids in items.items()
            }
            if known.failure is None and any(missing.values()):
                asked[number] = variant
                requests.append(
                    Request(number, self._recipes[variant.name], {t: ids for t, ids in missing.items() if ids})
                )
        for done, found in enumerate(self.evaluator.evaluate(requests), start=1):
            variant = asked[found.number]
            merged = _together(self._found_of(variant, part), found)
            key = self._key(variant, part)
            self._found[key] = merged
            self.store.keep(key, merged)
            kind = "held-out items" if part == "held_out" else "items"
            told = found.failure or f"{self._value(variant, part, items):.4f} on {merged.item_count} {kind}"
            self.on_progress(f"[{done}/{len(requests)}] {variant.name}: {told}")

    def _beaten(self, variants: Sequence[Variant], items: Items, of_all: int) -> set[str]:
        found = {variant.name: self._contributions(variant, "search", items) for variant in variants}
        values = {variant.name: self._value(variant, "search", items) for variant in variants}
        return settled_to_be_beaten(found, values, self.objective, of_all=of_all, seed=self.seed)

    def _found_of(self, variant: Variant, part: str) -> Evaluation:
        key = self._key(variant, part)
        if key not in self._found:
            self._found[key] = self.store.kept(key) or Evaluation(-1)
        return self._found[key]

    def _key(self, variant: Variant, part: str) -> str:
        """Of a score: a recipe that was changed under its name has none."""
        recipe = json.dumps(self._recipes[variant.name], sort_keys=True, default=str)
        return f"{part} {hashlib.sha256(recipe.encode()).hexdigest()}"

    def _contributions(self, variant: Variant, part: str, items: Items) -> ItemScores:
        scores = self._found_of(variant, part).restricted(items).scores
        return contributions(self.scorers, scores)

    def _value(self, variant: Variant, part: str, items: Items) -> float:
        """Of these items alone: what an earlier run scored beyond them must not change what is decided by them."""
        scores = self._found_of(variant, part).restricted(items).scores
        return self.objective.value(
            {scorer.name: scorer.aggregate(scores[scorer.name]).value for scorer in self.scorers}
        )

    def _result(self, variant: Variant, dropped: bool) -> VariantResult:
        search, held_out = self._found_of(variant, "search"), self._found_of(variant, "held_out")
        failure = search.failure or held_out.failure
        return VariantResult(
            variant,
            self.seed,
            search={} if search.failure else self._contributions(variant, "search", self.search),
            held_out={} if failure else self._contributions(variant, "held_out", self.held_out),
            dropped=dropped,
            items=search.item_count + held_out.item_count,
            seconds=search.total_seconds + held_out.total_seconds,
            failure=failure,
        )


def _together(known: Evaluation, found: Evaluation) -> Evaluation:
    """What was scored before and what is scored now, of the same model."""
    if found.failure is not None or known.number < 0:
        return found
    tasks = dict.fromkeys([*known.scores, *found.scores])
    return Evaluation(
        found.number,
        scores={task: {**known.scores.get(task, {}), **found.scores.get(task, {})} for task in tasks},
        total_seconds=known.total_seconds + found.total_seconds,
    )
