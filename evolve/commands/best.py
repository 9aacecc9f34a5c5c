"""`evolve best`: the best recipe of a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from evolve.commands.options import RunArgument
from evolve.commands.registry import register


@register("best")
def best(
    directory: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print label, scores and recipe as JSON.")] = False,
) -> None:
    """Print the best recipe found so far."""
    from evolve.actions.status import best_recipe, best_scored
    from evolve.trials.run_directory import dump_recipe

    trial = best_scored(directory)
    recipe = best_recipe(directory, trial)
    if as_json:
        facts = {
            "label": trial.label,
            "objective": trial.objective,
            **({"objectives": list(trial.objective_values)} if trial.objective_values else {}),
            "task_scores": dict(trial.task_scores),
            "recipe": dict(recipe),
        }
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(dump_recipe(recipe).rstrip())
