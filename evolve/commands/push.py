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
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="On the hub; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make it one that only you see.")] = False,
) -> None:
    """Put the merged model on the Hugging Face Hub.

    With its card and its recipe. Again after a failure, it goes on.
    """
    from evolve.actions.push import push_model

    typer.echo(printable(push_model(directory, repository, private=private)))
