"""What a search leaves: the best recipe and its model, card, table of trials, evidence, the Pareto front."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from evolve.inspection.card_metadata import stated_licences
from evolve.preflight.compatibility import benchmark_tests
from evolve.preflight.prepare import Prepared
from evolve.problems import error_lines
from evolve.report.block_map import render_blocks
from evolve.report.intervals import TaskColumn
from evolve.report.model_card import model_card
from evolve.report.pareto_table import render_front
from evolve.report.run_record import RunRecord, score_facts
from evolve.report.score_page import render_table
from evolve.report.score_table import score_table
from evolve.report.short_recipe import NoShortRecipe, ShortRecipe, render_short_recipe
from evolve.report.spending_table import render_spending
from evolve.report.trials_csv import trials_csv
from evolve.report.verdict import verdict
from evolve.scoring import Scorer
from evolve.search_loop.ending import SearchError
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction, objective_facts
from evolve.search_loop.validation import validate
from evolve.space.repeat_space import RepeatSpace
from evolve.trials.costs import CostTerms
from evolve.trials.events import RunFinished, StopReason
from evolve.trials.journal import Journal
from evolve.trials.pareto_front import Front, pareto_front
from evolve.trials.run_directory import RunDirectory, dump_recipe
from evolve.trials.trial import Evaluation, State, Trial, candidates_done
from merge_core import documents_of, merge
from merge_core.atomic_output import write_atomically
from merge_core.output_directory import move_into_place, new_directory
from merge_core.ownership import list_files, remove_made
from merge_core.recipe.documents import written_documents
from merge_core.recipe.user_methods import copy_methods

_PACKAGES = ("torch", "transformers", "safetensors", "lm_eval", "cma", "optuna", "ray", "numpy")


Shorten = Callable[[Trial, Evaluation | None], ShortRecipe | NoShortRecipe | None]
"""The best trial, and what it scored on the held-out items → a shorter form of its recipe; None: nobody looked."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: StopReason
    best: Trial | None
    directory: RunDirectory

    @property
    def interrupted(self) -> bool:
        """Stopped from outside, with the search unfinished."""
        return self.reason is StopReason.INTERRUPTED

    @property
    def paused(self) -> bool:
        """Stopped where it was to stop, with the search unfinished."""
        return self.reason is StopReason.PAUSED


def finish(
    prepared: Prepared, directory: RunDirectory, search: Search, reason: StopReason, shorten: Shorten | None = None
) -> Outcome:
    """Validate, write, and prove that what is written is what was scored.

    Args:
        prepared: the search.
        directory: where it is written.
        search: at its end.
        reason: why it ended.
        shorten: looks for a shorter form of the best recipe; None: nobody does.
    """
    best, held_out = validate(search, prepared)
    config, objective_function = prepared.config, search.objective_function
    cost_terms = objective_function.cost_terms
    if search.stop.is_set():
        write_so_far(directory, search.journal, best, cost_terms)
        return Outcome(StopReason.INTERRUPTED, best, directory)
    if directory.read_summary().get("best") != best.number:  # of an earlier end, which other finalists decided
        directory.goes_on()
    every = list(search.trials)  # of many, most are read from the journal at each look
    _write_trials(directory, every, best, cost_terms)
    short = None if shorten is None else shorten(best, held_out.get(best.number))
    if search.stop.is_set():
        _write_report(directory, search.journal)
        return Outcome(StopReason.INTERRUPTED, best, directory)
    # Of the other trials only the number of items is told, and for a corpus metric contributions take their time.
    trials = [
        replace(trial, evaluation=_contributing(trial.measured, prepared.scorers))
        if trial.is_reference or trial.number == best.number
        else trial
        for trial in every
    ]
    validated = {number: _contributing(evaluation, prepared.scorers).scores for number, evaluation in held_out.items()}
    table = score_table(
        trials,
        validated,
        _task_columns(prepared),
        best.number,
        objective=objective_function.scalarization,
        cost_terms=cost_terms,
        held_out_costs={number: cost_terms.measured(evaluation) for number, evaluation in held_out.items()},
        seed=config.seed,
    )
    front = _front(every, held_out, objective_function, best) if objective_function.objective_names else None
    _write_front(directory, front)
    spent = search.journal.spent
    seconds = float(search.journal.noted("search_seconds", 0.0))
    fingerprint = search.evaluator.fingerprint(best.recipe)
    history = _draw_history(directory, search.journal)
    card = model_card(
        table,
        trials,
        validated,
        seed=config.seed,
        versions=versions(),
        wall_seconds=seconds,
        title=directory.path.name,
        benchmark_tests=benchmark_tests(prepared.scorers),
        front=front,
        spending=spent,
        short=short if isinstance(short, ShortRecipe) else None,
        relative_to=prepared.directory,
        licences=stated_licences(prepared.checkpoints),
        fingerprint=fingerprint,
        picture=None if history is None else directory.history.name,
    )
    beside = {directory.card.name: card} | ({} if history is None else {directory.history.name: history})
    _save_model(prepared, directory, best, fingerprint, beside)
    for name, content in beside.items():
        directory.write(directory.path / name, content)
    evidence = {
        "best": best.number,
        "best_label": best.label,
        "stopped_by": reason,
        "fingerprint": fingerprint,
        "seed": config.seed,
        "optimizer": search.journal.noted("optimizer", config.optimizer.name),
        "candidates": candidates_done(every),
        "failed": sum(trial.state is State.FAILED for trial in every),
        "infeasible": sum(trial.state is State.INFEASIBLE for trial in every),
        "stopped_early": sum(trial.state is State.STOPPED for trial in every),
        "search_seconds": seconds,
        "item_evaluations": {purpose: count for purpose, count in spent.items() if count},
        "held_out": {every[number].label: objective_function(evaluation) for number, evaluation in held_out.items()},
        "benchmark_tests": benchmark_tests(prepared.scorers),
        "objective": objective_facts(objective_function.scalarization, cost_terms),
        "pareto_front": front.facts() if front is not None else None,
        "scores": score_facts(table),
        "verdict": verdict(table),
        "machine": machine(),
        "simple": short.facts if short is not None else None,
        "versions": versions(),
    }
    directory.write(directory.summary, json.dumps(evidence, indent=2) + "\n")
    remove_made(directory.statistics_cache)
    _write_report(directory, search.journal)
    files = {
        "recipe": directory.recipe,
        "model": directory.model,
        "card": directory.card,
        "trials": directory.trials,
        "report": directory.report,
    }
    summary = render_table(table, _table_width())
    if short is not None:
        files |= {"simple": short.file} if isinstance(short, ShortRecipe) else {}
        summary += "\n" + render_short_recipe(short, _table_width())
    if isinstance(prepared.space, RepeatSpace):
        summary += "\n" + render_blocks(prepared.space, search.trials, _table_width())
    if front is not None:
        files["pareto"] = directory.pareto
        summary += "\n" + render_front(front, _table_width())
    summary += "\n" + render_spending(spent, _table_width())
    search.watch(RunFinished(directory.path, best, files, summary))
    return Outcome(reason, best, directory)


def _front(
    trials: Sequence[Trial], held_out: Mapping[int, Evaluation], function: ObjectiveFunction, best: Trial
) -> Front:
    members = pareto_front(trials)
    return Front(
        names=function.objective_names,
        trials=members,
        held_out={
            trial.number: function.objective_values(
                function.task_scores(held_out[trial.number].scores),
                function.cost_terms.measured(held_out[trial.number]),
            )
            for trial in members
            if trial.number in held_out
        },
        chosen=best.number,
    )


def _write_front(directory: RunDirectory, front: Front | None) -> None:
    """A recipe for every member, in the place of those of an earlier end of this run."""
    if front is None:
        return
    with new_directory(directory.pareto, overwrite=True) as pareto:
        for name, trial in front.files().items():
            write_atomically(pareto / name, dump_recipe(trial.recipe))
            copy_methods([one["merge_method"] for one in written_documents(trial.recipe)], pareto)


def _save_model(
    prepared: Prepared, directory: RunDirectory, best: Trial, scored: str, beside: Mapping[str, str | bytes]
) -> None:
    """Merge to disk, and let the result take its place only when it is what was scored, bit for bit.

    Args:
        prepared: the search.
        directory: of the run.
        best: what is merged.
        scored: the fingerprint of what was scored.
        beside: name -> content of the files that lie beside the weights.

    Raises:
        SearchError: it is not; the earlier model, if any, stays.
    """
    recipe = documents_of(best.recipe, directory.recipe.name)
    unproven = directory.unproven_model
    saved = merge(
        recipe, unproven, relative_to=prepared.directory, seed=prepared.config.seed, overwrite=True, write_card=False
    )
    if saved.fingerprint != scored:
        remove_made(unproven)
        raise SearchError(
            f"the merged model ({saved.fingerprint[:16]}) is not the one that was scored ({scored[:16]}) and is not "
            "kept; the recipe and the trials are. Was a source model changed during the run?"
        )
    for name, content in beside.items():
        write_atomically(unproven / name, content)
    list_files(unproven)
    move_into_place(unproven, directory.model)


def _draw_history(directory: RunDirectory, journal: Journal) -> bytes | None:
    """How the search went, for the card; None where there is nothing to show, or nothing to draw it with."""
    from evolve.report.pictures.history import history
    from evolve.report.pictures.still import can_draw, png

    with _no_loss(directory, "picture of the search"):
        figure = history(RunRecord.of(directory, journal)) if can_draw() else None
        return None if figure is None else png(figure, "How the search went")
    return None


def _table_width() -> int:
    """As wide as the terminal, but no wider than is easily read."""
    return min(100, shutil.get_terminal_size((100, 24)).columns)


def write_so_far(directory: RunDirectory, journal: Journal, best: Trial | None, cost_terms: CostTerms) -> None:
    """What an unfinished run leaves, too: the table of trials, the best recipe so far, and the report.

    What a finished one left is kept, where nothing was scored since.
    """
    trials = journal.trials()
    if directory.read_summary(candidates_done(trials)):
        return
    _write_trials(directory, trials, best, cost_terms)
    _write_report(directory, journal)


def _write_trials(directory: RunDirectory, trials: Sequence[Trial], best: Trial | None, cost_terms: CostTerms) -> None:
    directory.write(directory.trials, trials_csv(trials, cost_terms))
    if best is not None:
        directory.write(directory.recipe, dump_recipe(best.recipe))


def _write_report(directory: RunDirectory, journal: Journal) -> None:
    from evolve.report.pictures.page import write_report  # brings plotly

    with _no_loss(directory, "report"):
        write_report(directory, RunRecord.of(directory, journal))


@contextlib.contextmanager
def _no_loss(directory: RunDirectory, what: str) -> Iterator[None]:
    """What a search has found is not lost where it cannot be shown: an error is a warning, also that of a full disk."""
    try:
        yield
    except Exception as error:  # a picture may be anyone's, and its template too
        if not directory.path.is_dir():
            raise
        reason = error_lines(error)[0]
        print(f"warning: no {what} was made: {reason}. Try: evolve report {directory.path}", file=sys.stderr)


def _task_columns(prepared: Prepared) -> list[TaskColumn]:
    """The tasks as the report shows them."""
    weights = {task.label: task.weight for task in prepared.config.tasks}
    return [
        TaskColumn(scorer.name, scorer.metric, scorer.direction, weights[scorer.name]) for scorer in prepared.scorers
    ]


def _contributing(evaluation: Evaluation, scorers: tuple[Scorer, ...]) -> Evaluation:
    """With per-item numbers whose mean is the task's score, for metrics that are no means themselves."""
    scores = evaluation.scores
    found = {scorer.name: scorer.contributions(scores[scorer.name]) for scorer in scorers if scorer.name in scores}
    return replace(evaluation, scores=found)


def machine() -> dict[str, str]:
    """What the run was made on: system, processor, cores, GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found = {"system": platform.platform(), "processor": platform.machine(), "cores": f"{os.cpu_count()} cores"}
    return found | ({"gpus": ", ".join(gpus)} if gpus else {})


def versions() -> dict[str, str]:
    """What the run was made with; one worker does without Ray, and then so does its environment."""
    found = {"python": platform.python_version()}
    for name in ("evolve-merge", *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
