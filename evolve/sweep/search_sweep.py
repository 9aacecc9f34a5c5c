"""Searches against one another: each variant is a run in a directory of its own, and what it left is its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evolve.config.sweep import Variant
from evolve.evaluation.shared_workers import OpenWorkers, SharedWorkers
from evolve.preflight.fingerprints import fingerprints
from evolve.preflight.model_keys import MODIFIED
from evolve.preflight.prepare import Prepared
from evolve.problems import error_lines, is_ours
from evolve.scoring import Objective
from evolve.search_loop.objective import objective_of
from evolve.search_loop.results import Outcome
from evolve.search_loop.validation import best_so_far
from evolve.sweep.score_store import ScoreStore
from evolve.sweep.search_race import beaten_searches, item_budget, obstacle_to_races, replicates
from evolve.sweep.settled import ROUNDS
from evolve.sweep.table import result_line
from evolve.sweep.variants import VariantResult, contributions
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, ItemScores, candidates_done


class Run(Protocol):
    """Searches, or goes on searching, in a directory."""

    def __call__(self, prepared: Prepared, output: Path, open_workers: OpenWorkers, pause_after: int | None) -> Outcome:
        """Search on workers that it is given, and pause after so many item evaluations, if any are named."""


@dataclass
class SearchSweep:
    """A sweep of searches, in rounds of equal item evaluations where they can be raced.

    Attributes:
        directory: of the sweep; in it every variant has one.
        searches: name of a variant → its search.
        store: keeps what every variant had found when a round ended, by which the next run decides the same.
        run: searches.
        workers: those of all variants.
        race: whether who is settled to be beaten goes no further.
        on_progress: is told how it goes.
    """

    directory: Path
    searches: Mapping[str, Prepared]
    store: ScoreStore
    run: Run
    workers: SharedWorkers
    race: bool
    on_progress: Callable[[str], None]
    _results: dict[str, VariantResult] = field(default_factory=dict, init=False)
    _settings_keys: dict[str, str] = field(default_factory=dict, init=False)

    def compare(self, variants: Sequence[Variant]) -> list[VariantResult]:
        """Search, unless that is done already.

        Args:
            variants: of the sweep.

        Returns:
            What there is of each, in this order; fewer where a search was interrupted.
        """
        standing = list(variants)
        groups = len(replicates(variants))
        for number, share in enumerate(self._rounds(variants), start=1):
            pause_after = None if share is None else int(share * (item_budget(self.searches) or 0))
            best: dict[str, ItemScores] = {}
            # There and back, so that a round begins with the workers that the last one ended with.
            for place, variant in enumerate(self._by_seed(standing, backwards=number % 2 == 0), start=1):
                told = f"[{place}/{len(standing)}] {variant.name}"
                found = self._search(variant, pause_after, told)
                if found is None:
                    return self._finished(variants)
                best[variant.name] = contributions(self.searches[variant.name].scorers, found.scores)
            if pause_after is None:
                break
            objective = self._objective(variants[0])
            beaten = [
                variant
                for variant in beaten_searches(standing, best, self.searches, objective, groups)
                if not self._is_finished(variant)  # by itself, before the round was over
            ]
            for variant in beaten:
                self._results[variant.name] = self._result(variant, dropped=True)
                self.on_progress(f"round {number}: {variant.name} is settled to be beaten, and goes no further")
            standing = [variant for variant in standing if variant not in beaten]
        return self._finished(variants)

    def _rounds(self, variants: Sequence[Variant]) -> list[float | None]:
        """Shares of the budget, and None for the rest of it."""
        if not self.race or len(replicates(variants)) < 2:
            return [None]
        if obstacle := obstacle_to_races(variants, self.searches):
            self.on_progress(f"every search goes to its end: {obstacle}")
            return [None]
        return [*(share for share in ROUNDS if share < 1), None]

    def _by_seed(self, variants: Sequence[Variant], *, backwards: bool) -> list[Variant]:
        """Those of one seed one after the other: they share workers, and how they open."""
        seeds = list(dict.fromkeys(search.config.seed for search in self.searches.values()))
        key = {variant.name: seeds.index(self.searches[variant.name].config.seed) for variant in variants}
        return sorted(variants, key=lambda variant: -key[variant.name] if backwards else key[variant.name])

    def _search(self, variant: Variant, pause_after: int | None, told: str) -> Evaluation | None:
        """The best that a variant has found by then; None where it was interrupted."""
        nothing = Evaluation(-1)
        prepared, path = self.searches[variant.name], self.directory / variant.directory
        key, directory = self._key(variant, pause_after), RunDirectory(path)
        kept = self.store.kept(key) if directory.holds_run() else None  # one that was removed is searched again
        if pause_after is not None and kept is not None:
            return kept
        if variant.name in self._results:
            return nothing if self._results[variant.name].failure else self._best(variant)
        paused = False
        try:
            if not self._is_finished(variant):
                self.on_progress(f"{told}: in {path}")
                outcome = self.run(prepared, path, self.workers.open, pause_after)
                if outcome.interrupted:
                    return None
                paused = outcome.paused
        except (ValueError, RuntimeError) as error:  # one that fails must not cost the others
            if not is_ours(error):
                raise
            failure = " ".join(error_lines(error))
            self._results[variant.name] = VariantResult(variant, prepared.config.seed, directory=path, failure=failure)
            self.on_progress(f"{told}: {result_line(self._results[variant.name], self._objective(variant))}")
            return nothing
        best = self._best(variant)
        if not paused:
            self.store.keep(self._key(variant, None), best)
            self._results[variant.name] = self._result(variant)
            self.on_progress(f"{told}: {result_line(self._results[variant.name], self._objective(variant))}")
        if pause_after is not None:
            self.store.keep(key, best)
        return best

    def _key(self, variant: Variant, pause_after: int | None) -> str:
        """Of what a variant had found: one that was changed under its name, or whose task was, has found nothing."""
        if variant.name not in self._settings_keys:
            self._settings_keys[variant.name] = _settings_key(self.searches[variant.name])
        return f"after {pause_after} items {variant.directory} {self._settings_keys[variant.name]}"

    def _is_finished(self, variant: Variant) -> bool:
        """Whether its search came to the end of this very budget, so that it need not even be opened."""
        ended = self.store.kept(self._key(variant, None)) is not None
        if not (ended and RunDirectory(self.directory / variant.directory).holds_run()):
            return False
        return self._chosen(variant, self._journal(variant).standing().candidates) is not None

    def _chosen(self, variant: Variant, candidates: int) -> int | None:
        """Number of the trial that its search handed over."""
        number = RunDirectory(self.directory / variant.directory).read_summary(candidates).get("best")
        return number if isinstance(number, int) else None

    def _best(self, variant: Variant) -> Evaluation:
        """On the search items, of all that is in its journal; without scores where nothing is yet."""
        prepared = self.searches[variant.name]
        best = best_so_far(self._journal(variant).trials(), prepared)
        return Evaluation(-1) if best is None else best.measured

    def _result(self, variant: Variant, *, dropped: bool = False) -> VariantResult:
        prepared, path = self.searches[variant.name], self.directory / variant.directory
        journal = self._journal(variant)
        trials = journal.trials()
        number = self._chosen(variant, candidates_done(trials))
        best = best_so_far(trials, prepared) if dropped or number is None else trials[number]
        held_out = None if dropped or best is None else journal.kept(Stage.VALIDATION).get(best.number)
        return VariantResult(
            variant,
            prepared.config.seed,
            search={} if best is None else contributions(prepared.scorers, best.measured.scores),
            held_out={} if held_out is None else contributions(prepared.scorers, held_out.scores),
            dropped=dropped,
            items=sum(journal.spent.values()),
            seconds=float(journal.noted("search_seconds", 0.0)),
            directory=path,
        )

    def _journal(self, variant: Variant) -> Journal:
        directory = RunDirectory(self.directory / variant.directory)
        return Journal.open(self.searches[variant.name].config.storage or str(directory.journal))

    def _objective(self, variant: Variant) -> Objective:
        prepared = self.searches[variant.name]
        return objective_of(prepared.scorers, prepared.config, prepared.objective)

    def _finished(self, variants: Sequence[Variant]) -> list[VariantResult]:
        return [self._results[variant.name] for variant in variants if variant.name in self._results]


def _settings_key(prepared: Prepared) -> str:
    """Of all that a search's scores belong to."""
    made_with = {what: key for what, key in fingerprints(prepared).items() if not what.endswith(MODIFIED)}
    settings = json.dumps([prepared.config.model_dump(mode="json"), made_with], sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()
