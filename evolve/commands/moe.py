"""`evolve moe`: a mixture of experts, by the files of mergekit-moe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import CacheOption, ShardSizeOption, require_file, say_at_once
from evolve.commands.registry import register
from evolve.problems import printable


@register("moe")
def moe(
    file: Annotated[Path, typer.Argument(metavar="FILE.YML", help="A file of mergekit-moe: base_model and experts.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Directory for the mixture.")],
    seed: Annotated[
        int, typer.Option("--seed", "--random-seed", metavar="N", help="Seed of random routers and of noise.")
    ] = 0,
    shard_size: ShardSizeOption = "5GB",
    cache: CacheOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no warnings.")] = False,
    _useless: Annotated[bool, typer.Option("--i-understand-this-is-not-useful-without-training", hidden=True)] = False,
) -> None:
    """Make a mixture of experts from dense models.

    Its routers are computed from prompts.
    """
    require_file(file)
    say_at_once(f"reading {file.name} and its models")

    from evolve.actions.moe import make_moe
    from evolve.report.merge_progress import read_size

    result = make_moe(
        file,
        output,
        quiet=quiet,
        seed=seed,
        shard_bytes=read_size(shard_size),
        cache=cache,
        overwrite=overwrite,
    )
    for warning in () if quiet else result.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    typer.echo(f"Mixture: {result.path} ({result.architecture}, {result.tensors} tensors)")
