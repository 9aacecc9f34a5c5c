"""`evolve schema`: the JSON schema of search.yml."""

from __future__ import annotations

import json

import typer

from evolve.commands.registry import register


@register("schema")
def schema() -> None:
    """Print the JSON schema of search.yml, for editors."""
    from evolve.config.json_schema import search_schema

    typer.echo(json.dumps(search_schema(), indent=2))
