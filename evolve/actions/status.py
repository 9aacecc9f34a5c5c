"""What `evolve status` and `evolve best` read from an output directory, also while the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.problems import ConfigError, error_lines, printable
from evolve.trials.journal import Journal, Stage
from evolve.trials.journal_file import JournalError
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import spending_of
from evolve.trials.trial import Kind, State, Trial, best_of


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
    journal = Journal.open(_location(directory))
    for note in journal.notes:
        print(printable(f"warning: {note}"), file=sys.stderr)
    return journal


def _location(directory: RunDirectory) -> str:
    if directory.journal.is_file():
        return str(directory.journal)
    if not directory.search.is_file():
        raise ConfigError(f"{directory.path}: holds no run: search.yml is missing. Give the --output of a run")
    from evolve.config.yaml_document import read_document  # brings the merge engine, which a journal does without

    storage = read_document(directory.search, {}).content.get("storage")
    return storage if isinstance(storage, str) else str(directory.journal)


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
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error_lines(error)[0]}"
        raise ConfigError(f"{path}: the run cannot be read, its journal is damaged: {reason}") from error


def _chosen(trials: Sequence[Trial], summary: Mapping[str, Any]) -> Trial | None:
    """The trial that a finished run handed over; None where its run.json does not say, or not of these trials."""
    number = summary.get("best")
    if summary.get("candidates") != _done(_candidates(trials)) or not isinstance(number, int):
        return None
    return trials[number] if 0 <= number < len(trials) and trials[number].objective is not None else None


def best_trial(path: Path) -> Trial:
    """The validated best of a finished run, else the best candidate so far.

    Raises:
        ConfigError: nothing has been scored yet.
    """
    directory = RunDirectory(path)
    with _legible(path):
        trials = open_journal(directory).trials()
    best = _chosen(trials, directory.read_summary()) or best_of(_candidates(trials)) or best_of(trials)
    if best is None:
        raise ConfigError(f"{path}: nothing has been scored yet")
    return best


def run_status(path: Path) -> RunStatus:
    """How far a run has come.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    with _legible(path):
        return _run_status(path)


def _run_status(path: Path) -> RunStatus:
    directory = RunDirectory(path)
    journal = open_journal(directory)
    trials = journal.trials()
    candidates = _candidates(trials)
    references = [trial for trial in trials if trial.is_reference]
    best = best_of(candidates)
    best_reference = best_of(references)
    budget = journal.header.get("config", {}).get("budget", {})
    summary = directory.read_summary()
    spent = spending_of(journal, trials)
    steps, looks = len(journal.steps()), len(journal.kept(Stage.LOOK))
    done = _done(candidates)
    running = directory.in_use()
    chosen = _chosen(trials, summary)
    finished = chosen is not None and not running
    failed = [trial for trial in candidates if trial.state is State.FAILED]
    infeasible = [trial for trial in candidates if trial.state is State.INFEASIBLE]
    stopped = [trial for trial in candidates if trial.state is State.STOPPED]
    facts: dict[str, Any] = {
        "directory": str(path),
        "finished": finished,
        "running": running,
        "stopped_by": summary.get("stopped_by") if finished else None,
        "candidates": done,
        "budget": budget,
        "failed": len(failed),
        "infeasible": len(infeasible),
        "stopped_early": len(stopped),
        "gradient_steps": steps,
        "points_looked_at": looks,
        "search_seconds": journal.noted("search_seconds", 0.0),
        "item_evaluations": {purpose: count for purpose, count in spent.items() if count},
        "references": {trial.label: trial.objective for trial in references},
        "journal_faults": journal.notes,
        "best": None if best is None else {"label": best.label, "objective": best.objective, **_scores(best)},
    }
    limit = budget.get("evaluations")
    item_limit = budget.get("items")
    lines = [
        f"{path}: {'finished' if finished else 'running' if running else 'not finished'}, {done}"
        + (f" of {limit}" if limit else "")
        + f" candidates scored, {len(failed)} failed"
        + (f", {len(infeasible)} infeasible" if infeasible else "")
        + (f", {len(stopped)} stopped early by races" if stopped else "")
    ]
    if steps:
        lines.append(f"gradient start: {steps} steps, {looks} points looked at on some of the items")
    spending = [f"{count} for {purpose}" for purpose, count in spent.items() if count]
    if spending:
        bound = f" (budget of the search: {item_limit})" if item_limit else ""
        lines.append(f"item evaluations: {', '.join(spending)}{bound}")
    if failed:
        lines.append(f"last failure: {failed[-1].label}: {failed[-1].measured.failure}")
    if best_reference is not None:
        lines.append(f"best reference: {best_reference.label}: {best_reference.objective:.4f}")
    if best is not None:
        lines.append(f"best candidate on the search items: {best.label}: {best.objective:.4f}")
        lines += [f"  {task}: {score:.4f}" for task, score in best.task_scores.items()]
    if running:
        lines.append("at work now; Ctrl-C there stops it softly")
    elif not finished:
        command = journal.noted("command", {})
        lines.append(f"go on with: {command.get('line')}  (in {command.get('directory')})")
    elif chosen is not None:
        held_out = summary.get("held_out")
        score = held_out.get(chosen.label) if isinstance(held_out, dict) else None
        if isinstance(score, float):
            lines.append(f"chosen on the held-out items: {chosen.label}: {score:.4f}")
        lines.append(f"recipe: {directory.recipe}")
        lines.append(f"model:  {directory.model}")
    return RunStatus(facts, "\n".join(lines))


def _done(candidates: Sequence[Trial]) -> int:
    return sum(trial.state is not State.RUNNING for trial in candidates)


def _candidates(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.kind is Kind.CANDIDATE]


def _scores(trial: Trial) -> dict[str, Any]:
    return {"task_scores": dict(trial.task_scores)}
