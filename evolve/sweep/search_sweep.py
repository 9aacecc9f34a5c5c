"""Searches against one another: each variant is a run in a directory of its own, and what it left is its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from evolve.config.sweep import Variant
from evolve.evaluation.shared_workers import OpenWorkers
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError, error_lines
from evolve.search_loop.ending import SearchError
from evolve.sweep.variants import VariantResult, contributions
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.stage import Stage
from merge_core import MergeError

Run = Callable[[Prepared, Path, OpenWorkers], bool]
"""Searches in a directory, on workers that it is given; whether it came to its end."""


def run_variant(
    variant: Variant, prepared: Prepared, path: Path, run: Run, open_workers: OpenWorkers
) -> VariantResult | None:
    """Search, unless that is done already.

    Args:
        variant: which.
        prepared: its search.
        path: the directory of its run.
        run: searches.
        open_workers: gives it the workers.

    Returns:
        None where it was interrupted.
    """
    directory = RunDirectory(path)
    try:
        if not _is_finished(directory, prepared) and not run(prepared, path, open_workers):
            return None
    except (SearchError, ConfigError, MergeError) as error:  # one that fails must not cost the others
        failure = " ".join(error_lines(error))
        return VariantResult(variant, prepared.config.seed, directory=path, failure=failure)
    config = prepared.config
    journal = Journal.open(config.storage or str(directory.journal))
    summary = directory.read_summary()
    best = journal.trials()[summary["best"]]
    held_out = journal.kept(Stage.VALIDATION).get(best.number)
    return VariantResult(
        variant,
        config.seed,
        search=contributions(prepared.scorers, best.measured.scores),
        held_out={} if held_out is None else contributions(prepared.scorers, held_out.scores),
        items=sum(summary.get("item_evaluations", {}).values()),
        seconds=float(summary.get("search_seconds", 0.0)),
        directory=path,
    )


def _is_finished(directory: RunDirectory, prepared: Prepared) -> bool:
    """Whether a run of these settings left its results, so that it need not even be opened."""
    if "best" not in directory.read_summary() or not directory.search.is_file():
        return False
    wanted = prepared.config.model_dump(mode="json", exclude_none=True)
    written: Mapping[str, object] = yaml.safe_load(directory.search.read_text(encoding="utf-8"))
    names = {"task_search_path"}  # told from where it is written
    return {k: v for k, v in written.items() if k not in names} == {k: v for k, v in wanted.items() if k not in names}
