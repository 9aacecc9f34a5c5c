"""`evolve gguf`: a model as a file of llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import CacheOption, require_models, say_at_once
from evolve.commands.registry import register


@register("gguf")
def gguf(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model directory, Hub id, or MODEL+ADAPTER.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    type_name: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Type of matrices: F32, F16, BF16, Q8_0.")
    ] = "Q8_0",
    cache: CacheOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Write a model as a GGUF file for llama.cpp.

    If it cannot, it prints the llama.cpp command that can.
    """
    require_models([model])
    say_at_once(f"reading {model}")

    from evolve.report.progress_bar import progress_bar
    from merge_core.toolbox.gguf_file import write_gguf

    with progress_bar("writing", "none" if quiet else "bar") as report:
        path = write_gguf(model, output, type_name.upper(), progress=report, cache=cache)
    typer.echo(f"GGUF: {path} ({path.stat().st_size / 1e9:.2f} GB)")
