"""`evolve inspect`: which models belong together, before anything is searched."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from evolve.actions.inspect_options import DEFAULT_LIMIT, InspectOptions
from evolve.commands.options import require_file, require_models, say_at_once
from evolve.commands.registry import FAILED, register
from evolve.problems import printable


@register("inspect")
def inspect(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Directories, Hub ids, MODEL+ADAPTER.")],
    tasks: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME...]", help="lm-eval tasks: score the models and the average of each pair."),
    ] = None,
    task_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Directory with lm-eval task files. Repeatable.")
    ] = None,
    tasks_from: Annotated[
        Path | None, typer.Option(metavar="SEARCH.YML", help="Use the tasks of a search instead.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, metavar="N", help="Maximum number of items per task.")] = DEFAULT_LIMIT,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The base model; default: found from the weights.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="SEARCH.YML", help="Write a search.yml for these models and tasks.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="Data type of the forward pass: auto, float32, bfloat16 or float16."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON, on stdout.")] = False,
) -> None:
    """Find the base of several models, and which merge well.

    Also shows how far apart they are, and in which layers. Runs the models only with --tasks or --tasks-from.
    """
    options = InspectOptions(
        models=models,
        tasks=tasks,
        task_path=task_path or (),
        tasks_from=tasks_from,
        limit=limit,
        base=base,
        write=write,
        backend_settings={"device": device, "dtype": dtype},
    )
    options.check()
    require_models(options.all_models)
    if tasks_from is not None:
        require_file(tasks_from)
    say_at_once("reading the models' headers")

    from evolve.actions.inspect import run_inspect

    with contextlib.redirect_stdout(sys.stderr):  # whatever a library or a task prints is not a result
        outcome = run_inspect(options, lambda text: typer.echo(printable(text), err=True))
    typer.echo(json.dumps(outcome.facts, indent=2) if as_json else printable(outcome.text).rstrip())
    if outcome.failed:
        raise typer.Exit(FAILED)
