"""`evolve tokensurgeon`: its options, which are also those of mergekit-tokensurgeon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evolve.commands.options import CacheOption, ShardSizeOption, require_models, say_at_once
from evolve.commands.registry import register
from evolve.problems import printable

Tables = Literal["lm_head", "embed", "yes", "no"]


@register("tokensurgeon")
def tokensurgeon(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What gets a new tokenizer.")],
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="Whose tokenizer.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Directory for the model.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "--approximation-method",
            "-a",
            metavar="NAME",
            help="How rows of tokens that MODEL lacks are made: omp, common_interpolation, subword, stb, landmark_pca, "
            "mean, zero, randn, john_hewitt.",
        ),
    ] = "omp",
    count: Annotated[
        int, typer.Option("--k", "-k", min=1, metavar="N", help="Common tokens that a row is made of, or neighbours.")
    ] = 64,
    cosine: Annotated[
        bool,
        typer.Option("--cosine-similarity/--no-cosine-similarity", "-c/-nc", help="Neighbours by angle, not distance."),
    ] = False,
    weights: Annotated[
        Literal["distance_proportional", "barycentric", "least_squares"],
        typer.Option("--weight-scheme", "-w", help="Of neighbours under common_interpolation."),
    ] = "distance_proportional",
    subword: Annotated[
        Literal["mean", "sum", "weighted_mean", "first_last"],
        typer.Option("--subword-method", "-s", help="How the rows of a token's parts become one under subword."),
    ] = "mean",
    prefix_match: Annotated[
        Tables,
        typer.Option("--prefix-match", "-pm", help="Where a token has the row of the longest that it begins with."),
    ] = "no",
    byte_match: Annotated[
        Tables, typer.Option("--byte-match", "-bm", help="Where a token <0x0A> has the row of that byte's other form.")
    ] = "no",
    magikarp: Annotated[
        bool,
        typer.Option("--magikarp/--no-magikarp", help="Make rows of hardly trained tokens, too, and none of them."),
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            "--new-vocab-noise", "-nvn", min=0.0, metavar="X", help="Deviation of noise on rows that are made."
        ),
    ] = 0.0,
    scale: Annotated[
        float, typer.Option("--new-vocab-scale", "-nvs", metavar="X", help="Factor of rows that are made.")
    ] = 1.0,
    pad_to_multiple_of: Annotated[int, typer.Option(min=1, metavar="N", help="Add rows up to a multiple of it.")] = 1,
    batch: Annotated[
        int, typer.Option("--batch-size", min=-1, metavar="N", help="Rows made at once; -1 for all.")
    ] = 512,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Where the arithmetic is done: cpu, cuda, cuda:1, auto.")
    ] = "cpu",
    cuda: Annotated[bool, typer.Option("--cuda", hidden=True)] = False,
    seed: Annotated[
        int, typer.Option("--seed", "--random-seed", metavar="N", help="Of random rows, and of noise.")
    ] = 0,
    shard_size: ShardSizeOption = "5GB",
    cache: CacheOption = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let Python code of a model read its tokenizer.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no warnings.")] = False,
) -> None:
    """Give a model the tokenizer of another.

    Tokens that both have keep the model's rows, for the others rows are made.
    """
    require_models([model, donor])
    say_at_once(f"reading {model} and {donor}")

    from evolve.report.merge_progress import read_size
    from evolve.report.progress_bar import progress_bar
    from merge_core.toolbox.token_approximations import Settings
    from merge_core.toolbox.tokensurgeon import transplant_tokenizer

    with progress_bar("writing", "none" if quiet else "bar") as report:
        result = transplant_tokenizer(
            model,
            donor,
            output,
            method=method,
            settings=Settings(count, cosine, weights, subword, seed, noise, scale),
            prefix_match=prefix_match,
            byte_match=byte_match,
            magikarp=magikarp,
            pad_to_multiple_of=pad_to_multiple_of,
            batch=batch if batch > 0 else 1 << 40,
            device="cuda" if cuda else device,
            shard_bytes=read_size(shard_size),
            overwrite=overwrite,
            progress=report,
            cache=cache,
            trust_remote_code=trust_remote_code,
        )
    for warning in () if quiet else result.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    typer.echo(f"{result.taken} tokens have the model's rows, {result.made} have rows made by {method}")
    typer.echo(f"Model: {result.path} ({result.rows} rows)")
