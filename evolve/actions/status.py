"""What `evolve status` and `evolve best` read from an output directory, also while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evolve.problems import ConfigError
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import spending_of
from evolve.trials.trial import Kind, State, Trial, best_of


@dataclass(frozen=True)
class RunStatus:
    """The same findings for scripts and for people."""

    facts: dict[str, Any]
    text: str


def open_journal(directory: RunDirectory) -> Journal:
    """The journal of a run, wherever its search.yml put it.

    Raises:
        ConfigError: the directory does not hold a run.
    """
    if not directory.search.is_file():
        raise ConfigError(f"{directory.path}: holds no run: search.yml is missing. Give the --output of a run")
    settings = yaml.safe_load(directory.search.read_text(encoding="utf-8"))
    return Journal.open(settings.get("storage") or str(directory.journal))


def best_trial(path: Path) -> Trial:
    """The validated best of a finished run, else the best candidate so far.

    Raises:
        ConfigError: nothing has been scored yet.
    """
    directory = RunDirectory(path)
    trials = open_journal(directory).trials()
    summary = directory.read_summary()
    validated = summary.get("candidates") == _done(_candidates(trials))
    best = trials[summary["best"]] if validated else best_of(_candidates(trials)) or best_of(trials)
    if best is None:
        raise ConfigError(f"{path}: nothing has been scored yet")
    return best


def run_status(path: Path) -> RunStatus:
    """How far a run has come."""
    directory = RunDirectory(path)
    journal = open_journal(directory)
    trials = journal.trials()
    candidates = _candidates(trials)
    references = [trial for trial in trials if trial.is_reference]
    best = best_of(candidates)
    best_reference = best_of(references)
    budget = journal.header.get("config", {}).get("budget", {})
    summary = directory.read_summary()
    spent = spending_of(journal)
    done = _done(candidates)
    running = directory.in_use()
    finished = summary.get("candidates") == done and not running
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
        "search_seconds": journal.noted("search_seconds", 0.0),
        "item_evaluations": {purpose: count for purpose, count in spent.items() if count},
        "references": {trial.label: trial.objective for trial in references},
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
    else:
        chosen = trials[summary["best"]].label
        if chosen in summary.get("held_out", {}):
            lines.append(f"chosen on the held-out items: {chosen}: {summary['held_out'][chosen]:.4f}")
        lines.append(f"recipe: {directory.recipe}")
        lines.append(f"model:  {directory.model}")
    return RunStatus(facts, "\n".join(lines))


def _done(candidates: list[Trial]) -> int:
    return sum(trial.state is not State.RUNNING for trial in candidates)


def _candidates(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.kind is Kind.CANDIDATE]


def _scores(trial: Trial) -> dict[str, Any]:
    return {"task_scores": dict(trial.task_scores)}
