"""`evolve init`: a search.yml to begin with, from the command line or four questions."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from evolve.actions.inspect_options import InspectOptions
from evolve.commands.options import require_models, say_at_once
from evolve.commands.registry import register
from evolve.problems import ConfigError, Problem, printable

DEFAULT_TASKS = "gsm8k_train"


@register("init")
def init(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Directories, Hub ids, MODEL+ADAPTER; if none, asks questions."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(metavar="NAME[,NAME...]", help="lm-eval tasks on which candidates are scored.")
    ] = DEFAULT_TASKS,
    task_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Directory with lm-eval task files. Repeatable.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The base model; default: found from the weights.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="X", help="Time limit of the search; default: it stops by itself."),
    ] = None,
    write: Annotated[Path, typer.Option(metavar="SEARCH.YML", help="The file to write.")] = Path("search.yml"),
) -> None:
    """Write a search.yml to start from.

    Without models it asks for models, base, tasks and time.
    """
    if not models:
        models, base, tasks, minutes = _ask(base, tasks, minutes)
    options = InspectOptions(models=models, tasks=tasks, task_path=task_path or (), base=base, write=write)
    options.check()
    require_models(options.all_models)
    say_at_once("reading the models' headers")

    from evolve.actions.init import write_search

    with contextlib.redirect_stdout(sys.stderr):
        written, found = write_search(options, minutes)
    if written != write:
        typer.echo(printable(f"{write} has appeared meanwhile, and is kept"), err=True)
    typer.echo(printable(f"{written}: {found}"))
    typer.echo(f"Next: evolve check {shlex.quote(str(written))}, and evolve run {shlex.quote(str(written))}")


def _ask(base: str | None, tasks: str, minutes: float | None) -> tuple[list[str], str | None, str, float | None]:
    """Models, base model, tasks and minutes, from who sits at the terminal; what makes no sense is asked again.

    Raises:
        ConfigError: nobody does.
    """
    if not sys.stdin.isatty():
        raise ConfigError(Problem((), "expected models. Example: evolve init MODEL MODEL --tasks gsm8k_train"))
    models = typer.prompt("Models to merge (directories or Hub ids, separated by spaces)", value_proc=_models_of)
    question = "Their base model (empty: find it from the weights)"
    base = typer.prompt(question, default=base or "", show_default=False, value_proc=_base_of)
    tasks = typer.prompt("What should the merge be good at (lm-eval tasks, separated by commas)", default=tasks)
    given = "" if minutes is None else f"{minutes:g}"
    question = "Minutes to search (empty: until it stops improving)"
    minutes = typer.prompt(question, default=given, show_default=False, value_proc=_minutes_of)
    return models, base, tasks, minutes


def _models_of(text: str) -> list[str]:
    return _there(shlex.split(text.replace(",", " ")))


def _base_of(text: str) -> str | None:
    name = text.strip()
    return _there([name])[0] if name else None


def _there(models: list[str]) -> list[str]:
    try:
        require_models(models)
    except ConfigError as error:
        raise typer.BadParameter(printable(str(error))) from error
    return models


def _minutes_of(text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise typer.BadParameter(printable(f'expected a number of minutes, got "{text}". Example: 60')) from None
