"""What is wrong with a recipe in which layers are searched, as far as it can be told without the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from evolve.config.schema_problems import schema_problems
from evolve.problems import Problem, problems_within
from evolve.space.genes import find_genes
from evolve.space.layer_genes import NAMES, kind_of_layers, merges_layers, parse_layers
from evolve.space.template import Template
from merge_core import MergeError, Recipe


def check_layers(template: Template) -> Iterator[Problem]:
    """Each mistake: in `layers`, and in what stands beside it.

    Args:
        template: a recipe with `layers`.
    """
    document = template.document
    if not (isinstance(template.layers, Mapping) or template.layers in NAMES):
        message = f"expected {', '.join(NAMES)} or a mapping such as {{path: any, longest: 40}}"
        yield Problem(("layers",), f"{message}, got {template.layers!r}")
        return
    try:
        parse_layers(template.layers)
    except ValidationError as error:
        for problem in schema_problems(error, template.layers, kind_of_layers(template.layers)):
            yield problem.within("layers")
    models = document.get("models")
    if merges_layers(template):
        if not isinstance(models, list):
            message = "a list of models is needed beside layers, which are those of the merge: it has all of them"
            yield Problem(("layers",), message)
        if isinstance(template.layers, Mapping) and "scale" in template.layers:
            message = "only passthrough scales layers; a layer that is merged counts fully whenever it is passed"
            yield Problem(("layers", "scale"), f"{message}. Remove it")
        return
    if not isinstance(models, list) or not all(isinstance(entry, dict) and set(entry) == {"model"} for entry in models):
        yield Problem(("models",), "layers needs a list of models and nothing else of them, such as [{model: a}]")
        return
    others = [key for key in ("slices", "modules", "parameters", "base_model") if key in document]
    if others:
        yield Problem((others[0],), "has no meaning beside layers. Remove it")
        return
    beside = {key: value for key, value in document.items() if key not in ("layers", "models")}
    for path, _ in find_genes(beside):
        yield Problem(path, "cannot be a gene beside layers. Write one value")
    whole = [{"sources": [{"model": entry["model"], "layer_range": [0, 1]}]} for entry in models]
    try:
        Recipe.from_mapping({**beside, "slices": whole}, where="")
    except MergeError as error:
        yield from problems_within(error)
