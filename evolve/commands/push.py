"""`evolve push`: the merged model, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.registry import register
from evolve.problems import printable


@register("push")
def push(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output directory of a finished run, or of evolve merge.")
    ],
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the Hub; created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
) -> None:
    """Upload the merged model to the Hugging Face Hub.

    Includes its card and its recipe. After a failure, the same command resumes.
    """
    from evolve.actions.push import push_model

    typer.echo(printable(push_model(directory, repository, private=private)))
