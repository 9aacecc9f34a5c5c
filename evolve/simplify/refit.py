"""The numbers of a shorter recipe found anew, from the long one's means: a small search of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.reader import read_search
from evolve.evaluation.evaluator import Evaluator
from evolve.preflight.prepare import Prepared, prepare
from evolve.search_loop.conduct import conduct
from evolve.search_loop.ending import SearchError
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.opening import choose_start
from evolve.trials.events import Watcher
from evolve.trials.journal import Journal
from evolve.trials.trial import Kind, Trial, best_of

AFTER_A_GRADIENT = 3  # candidates: the best points of the way
WITHOUT = 60  # candidates, where there is no gradient


@dataclass(frozen=True)
class Refit:
    """How a shorter recipe is fitted.

    Attributes:
        file: the search.yml of the run.
        settings: that it was run with.
        evaluator: scores.
        watch: is told what happens.
        stop: set to stop softly.
    """

    file: Path
    settings: Mapping[str, Any]
    evaluator: Evaluator
    watch: Watcher
    stop: threading.Event

    def __call__(self, settings: Mapping[str, Any], directory: Path) -> Trial | None:
        """Search with other genes; None where it was stopped.

        Args:
            settings: dotted path → genes of the short form.
            directory: of its journal, with which it goes on.

        Raises:
            SearchError: no candidate can be scored.
        """
        prepared = self._prepared(settings)
        directory.mkdir(parents=True, exist_ok=True)
        search = Search(
            journal=Journal.open(str(directory / "journal.log"), create=True),
            space=prepared.space,
            evaluator=self.evaluator,
            objective_function=ObjectiveFunction(prepared.scorers, prepared.config, prepared.space.base_model),
            items={name: split.search for name, split in prepared.splits.items()},
            budget=prepared.config.budget,
            watch=self.watch,
            stop=self.stop,
        )
        conduct(search, prepared)
        if self.stop.is_set():
            return None
        best = best_of([trial for trial in search.trials if trial.kind is Kind.CANDIDATE])
        if best is None:
            raise SearchError("no candidate of the shorter recipe could be scored")
        return best

    def _prepared(self, settings: Mapping[str, Any]) -> Prepared:
        common = {**self.settings, **settings, "budget": {"evaluations": AFTER_A_GRADIENT}}
        prepared = prepare(read_search(self.file, common))
        if choose_start(prepared).sensitivity is None:
            prepared = prepare(read_search(self.file, {**common, "budget": {"evaluations": WITHOUT}}))
        return prepared
