"""`evolve simplify`, and what `evolve run` does of it at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from evolve.actions.open_run import refuse_changed
from evolve.actions.status import best_trial, require_finished
from evolve.config.reader import read_search
from evolve.config.strategy import SimplifyConfig
from evolve.preflight.prepare import Prepared, prepare
from evolve.problems import ConfigError, error_lines
from evolve.report.formatting import format_interval
from evolve.report.short_recipe import LEGIBLE, NoShortRecipe, ShortRecipe
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.search_loop.results import Shorten, write_run_report
from evolve.simplify.examiner import StoppedSimplifyingError
from evolve.simplify.long_recipe import LongRecipe, numbers_in, obstacle
from evolve.simplify.simplification import Simplification, seen_from
from evolve.stopping import StoppedAtOnceError, soft_stop
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory, dump_recipe
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, Trial, candidates_done
from evolve.trials.writer_lock import storage_held
from merge_core import MergeError


@dataclass(frozen=True)
class SimplifyOutcome:
    """The same findings for scripts and for people.

    Attributes:
        interrupted: whether it was stopped; what was scored is kept.
    """

    facts: dict[str, Any]
    text: str
    interrupted: bool = False


def shortener(prepared: Prepared, directory: RunDirectory, search: Search) -> Shorten | None:
    """What shortens the best recipe at the end of a run; None where that is switched off.

    Args:
        prepared: the search.
        directory: where it is written.
        search: whose journal and evaluator are used.
    """
    limits = prepared.config.simplify
    if limits is False:
        return None

    def shorten(best: Trial, held_out: Evaluation | None) -> ShortRecipe | NoShortRecipe | None:
        numbers = numbers_in(prepared.template, best.recipe)
        if numbers <= LEGIBLE or obstacle(prepared, best) is not None:
            return None
        RunDirectory(directory.simple.parent).remove(directory.simple)  # of an earlier end of this run
        simplification = Simplification(
            prepared, search.journal, search.evaluator, search.objective_function, limits, directory.simple, search.stop
        )
        try:
            short = simplification.run(best, held_out)
        except StoppedSimplifyingError:
            return None
        except (MergeError, ConfigError) as error:  # what was found is worth more than its short form
            print(f"warning: no shorter recipe is looked for: {error_lines(error)[0]}", file=sys.stderr)
            return None
        if isinstance(short, ShortRecipe):
            _write(prepared, directory, short.recipe)
        return short

    return shorten


def run_simplify(
    path: Path, allow: float | None, most: int | None, on_progress: Callable[[str], None]
) -> SimplifyOutcome:
    """Look for the shortest form of a finished run's best recipe that is not worse.

    Args:
        path: directory of the run.
        allow: how much of the objective may be lost; None: as the search says.
        most: numbers at most; None: as the search says.
        on_progress: is told how it goes.

    Raises:
        ConfigError: no finished run, or a recipe with nothing to be shortened.
    """
    directory = require_finished(path)
    prepared = prepare(read_search(directory.search))
    best = best_trial(path)
    if reason := obstacle(prepared, best):
        raise ConfigError(f"{path}: nothing to shorten: {reason}")
    numbers, least = numbers_in(prepared.template, best.recipe), LongRecipe.of(prepared, best).least
    if numbers <= least:
        raise ConfigError(f"{path}: nothing to shorten: its best recipe has {numbers} numbers, and needs as many")
    if most is not None and most < least:
        reason = "those of the parameters that a recipe has to give"
        raise ConfigError(f"--numbers {most}: at least {least} numbers are needed, {reason}")
    location = prepared.config.storage or str(directory.journal)
    said = {name: value for name, value in (("allow", allow), ("numbers", most)) if value is not None}
    limits = (prepared.config.simplify or SimplifyConfig()).model_copy(update=said)
    with directory.locked(prepared.inputs), storage_held(location):
        journal = Journal.open(location, create=True)
        refuse_changed(journal, prepared)
        held_out = journal.kept(Stage.VALIDATION).get(best.number)
        stop = Event()
        evaluator = create_evaluator(prepared)
        function = _calibrated(prepared, journal)
        simplification = Simplification(
            prepared, journal, evaluator, function, limits, directory.simple, stop, on_progress
        )
        on_progress(f"{numbers} numbers in the best recipe; shorter ones are scored beside it")
        try:
            with soft_stop(stop, lambda: on_progress("stopping; what is scored is kept")):
                short = simplification.run(best, held_out)
        except (StoppedSimplifyingError, StoppedAtOnceError):
            return SimplifyOutcome({"simple": None, "numbers": numbers}, "Stopped. The same command goes on.", True)
        finally:
            evaluator.close()
        if isinstance(short, NoShortRecipe):
            return SimplifyOutcome(short.facts, short.sentence)
        if not short.kept:
            _write(prepared, directory, short.recipe)
        _note(directory, journal, short)
    return SimplifyOutcome(short.facts, _text(short, limits.allow))


def _calibrated(prepared: Prepared, journal: Journal) -> ObjectiveFunction:
    """The search's objective, with the scale that its parents set."""
    function = ObjectiveFunction(prepared.scorers, prepared.config, prepared.space.base_model, prepared.objective)
    if function.needs_parents:
        parents = [trial for trial in journal.trials() if trial.kind is Kind.PARENT]
        function.calibrate({trial.label: trial.measured for trial in parents})
    return function


def _write(prepared: Prepared, directory: RunDirectory, recipe: Mapping[str, Any]) -> None:
    file = directory.simple
    file.parent.mkdir(parents=True, exist_ok=True)
    RunDirectory(file.parent).write(file, dump_recipe(seen_from(recipe, prepared.directory, file.parent)))


def _note(directory: RunDirectory, journal: Journal, short: ShortRecipe) -> None:
    """Keep what is told of it beside the other results, from where the report has it."""
    summary = directory.read_summary(candidates_done(journal.trials()))
    directory.write(directory.summary, json.dumps(summary | {"simple": short.facts}, indent=2) + "\n")
    write_run_report(directory, journal)


def _text(short: ShortRecipe, allow: float) -> str:
    lines = short.sentences(str(short.file))
    lines.append(f"On the deciding items: {format_interval(short.deciding, signed=True)}.")
    told = short.telling
    if told is not None and told.value < -allow:
        lines.append("The other items show a larger loss. Trust these, and lower --allow.")
    return "\n".join([*lines, "", dump_recipe(short.recipe)])
