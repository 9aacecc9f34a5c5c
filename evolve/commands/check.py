"""`evolve check`: whether a search or a recipe is sound, and what it will cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import SetOption, StrictOption, read_overrides, require_file, say_at_once
from evolve.commands.registry import register
from evolve.problems import ConfigError, Problem, printable
from evolve.trials.bundle_directory import BundleDirectory


@register("check")
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A search.yml, the directory of a run or bundle, or a merge recipe.")
    ],
    set_: SetOption = None,
    strict: StrictOption = False,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Estimate memory and time on this GPU, such as rtx4090 or h100.",
            show_default="this machine's",
        ),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0.0, metavar="X", help="Price per hour of the GPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Validate a search, sweep or recipe, and estimate its cost.

    Reads only configs and headers, also of models on the Hub.
    """
    file = BundleDirectory(file).search if file.is_dir() else file  # of a run, or of a bundle
    require_file(file)
    say_at_once(f"reading {file.name} and the headers of its models")

    from evolve.actions.check_recipe import check_recipe, is_recipe
    from evolve.actions.check_search import check_search
    from evolve.actions.check_sweep import check_sweep, is_sweep

    options = {"--set": set_, "--card": card, "--price": price}
    given = [name for name, value in options.items() if value]
    if is_recipe(file):
        if given:
            raise ConfigError(Problem((), f"is a recipe; {given[0]} is for searches", file.name))
        report = check_recipe(file, strict)
    elif is_sweep(file):
        if card or price:
            raise ConfigError(Problem((), "is a sweep; --card and --price are for searches", file.name))
        report = check_sweep(file, read_overrides(set_))
    else:
        report = check_search(file, read_overrides(set_), strict, card, price)
    typer.echo(json.dumps(report.facts, indent=2) if as_json else printable(report.text))
