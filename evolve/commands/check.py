"""`evolve check`: whether a search or a recipe is sound, and what it will cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import SetOption, StrictOption, read_overrides, require_file, say_at_once
from evolve.commands.registry import register
from evolve.problems import ConfigError, Problem, printable


@register("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A search.yml or a merge recipe.")],
    set_: SetOption = None,
    strict: StrictOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Validate a search, a sweep or a recipe from configs and headers alone, and estimate what it costs."""
    require_file(file)
    say_at_once(f"reading {file.name} and the headers of its models")

    from evolve.actions.check_recipe import check_recipe, is_recipe
    from evolve.actions.check_search import check_search
    from evolve.actions.check_sweep import check_sweep, is_sweep

    if is_recipe(file):
        if set_:
            raise ConfigError(Problem((), "is a recipe; --set is for searches", file.name))
        report = check_recipe(file, strict)
    elif is_sweep(file):
        report = check_sweep(file, read_overrides(set_))
    else:
        report = check_search(file, read_overrides(set_), strict)
    typer.echo(json.dumps(report.facts, indent=2) if as_json else printable(report.text))
