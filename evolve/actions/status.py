"""What `evolve status`, `evolve best` and `evolve top` read from an output directory, also while the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.config.run_storage import run_storage
from evolve.problems import ConfigError, error_lines, printable
from evolve.trials.journal_lines import JournalError
from evolve.trials.run_directory import RunDirectory
from evolve.trials.standing import Scored, Standing, StandingFile

if TYPE_CHECKING:
    from evolve.report.run_record import RunRecord
    from evolve.trials.journal import Journal
    from evolve.trials.trial import Trial


@dataclass(frozen=True)
class RunStatus:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def open_journal(directory: RunDirectory) -> Journal:
    """The journal of a run, wherever its search.yml put it; what is wrong with it is said.

    Raises:
        ConfigError: the directory does not hold a run.
    """
    from evolve.trials.journal import Journal  # brings Optuna, which a standing does without

    journal = Journal.open(run_storage(directory))
    for fault in journal.faults:
        print(printable(f"warning: {fault}"), file=sys.stderr)
    return journal


@contextmanager
def _legible(path: Path) -> Iterator[None]:
    """Whatever damage to a run's files makes its readers raise is said as that, in one line.

    Raises:
        ConfigError: the run cannot be read.
    """
    try:
        yield
    except (ConfigError, JournalError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error_lines(error)[0]}"
        raise ConfigError(f"{path}: the run cannot be read, its journal is damaged: {reason}") from error


def run_standing(directory: RunDirectory) -> Standing:
    """How a run stands: as it left it beside its journal, or, where that is not of the journal as it is, counted anew.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    found = StandingFile(directory.journal).read()
    number = directory.last_choice()
    if found is not None and (number is None or number in found.scored):
        return found
    return open_journal(directory).standing(*([] if number is None else [number]))


def _chosen(standing: Standing, directory: RunDirectory) -> Scored | None:
    """The trial that a finished run handed over; None where it is not finished, or has gone on since."""
    number = directory.read_summary(standing.candidates).get("best")
    return standing.scored.get(number) if isinstance(number, int) else None


def is_finished(path: Path) -> bool:
    """Whether a run has come to its end, and has not gone on since.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    directory = RunDirectory(path)
    with _legible(path):
        return _chosen(run_standing(directory), directory) is not None


def require_finished(path: Path) -> RunDirectory:
    """Refuse a directory without a finished run, whose results are then those of the run as it is.

    Raises:
        ConfigError, JournalError: there is none, and which directories in it have one; it has gone on since its end;
            or it is damaged.
    """
    directory = RunDirectory(path)
    if not path.is_dir():
        raise ConfigError(f"{path}: no such directory. Give the --output of a run")
    if directory.last_choice() is None:
        inside = sorted(str(found.parent) for found in path.glob("*/run.json"))
        fix = f"Runs in it: {', '.join(inside[:5])}" if inside else "Let evolve run come to its end first"
        raise ConfigError(f"{path}: no finished run. {fix}")
    if not is_finished(path):
        found = "the run has gone on since its end, and its model, card and report are of that"
        raise ConfigError(f"{path}: {found}. Let evolve run come to its end again: evolve run {path}")
    return directory


def best_scored(path: Path) -> Scored:
    """The validated best of a finished run, else the best candidate so far.

    Raises:
        ConfigError: nothing has been scored yet.
    """
    directory = RunDirectory(path)
    with _legible(path):
        standing = run_standing(directory)
        best = _chosen(standing, directory) or standing.best_scored or standing.best_reference_scored
    if best is None:
        from evolve.report.top_table import nothing_scored

        raise ConfigError(f"{path}: {nothing_scored(read_run(path))}")
    return best


def best_recipe(path: Path, best: Scored) -> Mapping[str, Any]:
    """What it merges."""
    directory = RunDirectory(path)
    with _legible(path):
        return StandingFile(directory.journal).recipe(best) or open_journal(directory).trial(best.number).recipe


def best_trial(path: Path) -> Trial:
    """The same trial as the journal has it, with what it scored on every item.

    Raises:
        ConfigError: nothing has been scored yet.
    """
    best = best_scored(path)
    with _legible(path):
        return open_journal(RunDirectory(path)).trial(best.number)


def read_run(path: Path) -> RunRecord:
    """What a run has left, also while it goes on.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    from evolve.report.run_record import RunRecord

    directory = RunDirectory(path)
    with _legible(path):
        return RunRecord.of(directory, open_journal(directory))


def run_status(path: Path) -> RunStatus:
    """How far a run has come.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    with _legible(path):
        return _run_status(path)


def _run_status(path: Path) -> RunStatus:
    directory = RunDirectory(path)
    standing = run_standing(directory)
    summary = directory.read_summary(standing.candidates)
    best, best_reference = standing.best_scored, standing.best_reference_scored
    running = directory.in_use()
    chosen = _chosen(standing, directory)
    finished = chosen is not None and not running
    spent = {purpose: count for purpose, count in standing.spent.items() if count}
    facts: dict[str, Any] = {
        "directory": str(path),
        "finished": finished,
        "running": running,
        "stopped_by": summary.get("stopped_by") if finished else None,
        "candidates": standing.candidates,
        "budget": standing.budget,
        "failed": standing.failed,
        "infeasible": standing.infeasible,
        "stopped_early": standing.stopped,
        "gradient_steps": standing.steps,
        "failed_gradient_steps": standing.failed_steps,
        "points_looked_at": standing.looks,
        "search_seconds": standing.search_seconds,
        "item_evaluations": spent,
        "references": standing.references,
        "failed_references": standing.failed_references,
        "journal_faults": standing.faults,
        "best": None
        if best is None
        else {"label": best.label, "objective": best.objective, "task_scores": dict(best.task_scores)},
    }
    limit = standing.budget.get("evaluations")
    item_limit = standing.budget.get("items")
    lines = [
        f"{path}: {'finished' if finished else 'running' if running else 'not finished'}, {standing.candidates}"
        + (f" of {limit}" if limit else "")
        + f" candidates scored, {standing.failed} failed"
        + (f", {standing.infeasible} infeasible" if standing.infeasible else "")
        + (f", {standing.stopped} stopped early by races" if standing.stopped else "")
    ]
    if standing.steps:
        lines.append(f"gradient start: {standing.steps} steps, {standing.looks} points looked at on some of the items")
    if spent:
        told = ", ".join(f"{count} for {purpose}" for purpose, count in spent.items())
        lines.append(f"item evaluations: {told}" + (f" (budget of the search: {item_limit})" if item_limit else ""))
    if standing.last_failure:
        lines.append(f"last failure: {standing.last_failure}")
    lines += standing.lasting_failures
    if best_reference is not None:
        lines.append(f"best reference: {best_reference.label}: {best_reference.objective:.4f}")
    if best is not None:
        lines.append(f"best candidate on the search items: {best.label}: {best.objective:.4f}")
        lines += [f"  {task}: {score:.4f}" for task, score in best.task_scores.items()]
    if running:
        lines.append("at work now; Ctrl-C there stops it softly")
    elif not finished and standing.command:  # else it was killed before it said so
        lines.append(f"go on with: {standing.command.get('line')}  (in {standing.command.get('directory')})")
    elif chosen is not None:
        held_out = summary.get("held_out")
        score = held_out.get(chosen.label) if isinstance(held_out, dict) else None
        if isinstance(score, float):
            lines.append(f"chosen on the held-out items: {chosen.label}: {score:.4f}")
        lines.append(f"recipe: {directory.recipe}")
        lines.append(f"model:  {directory.model}")
    return RunStatus(facts, "\n".join(lines))
