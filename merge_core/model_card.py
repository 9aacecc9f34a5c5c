"""The ``README.md`` of a merged model."""

from __future__ import annotations

import os

import yaml

from merge_core.methods import METHODS, Method
from merge_core.model_reference import ModelReference
from merge_core.recipe import Recipe, dump_recipes
from merge_core.user_methods import own_method_notice


def model_card(recipes: tuple[Recipe, ...], name: str) -> str:
    """Write a model card: front matter, method, models, recipe.

    Args:
        recipes: the documents of the recipe file, the final one last.
        name: the model's title.

    Returns:
        Markdown with a YAML front matter that the hub reads.
    """
    intermediates = {recipe.name for recipe in recipes if recipe.name is not None}
    references = dict.fromkeys(reference for recipe in recipes for reference in recipe.references())
    models = [reference for reference in references if str(reference) not in intermediates]
    hub_models = [reference.model.path for reference in models if _is_hub_id(reference)]
    front: dict[str, object] = {"library_name": "transformers", "tags": ["mergekit", "merge"]}
    if hub_models:
        # The hub refuses a card whose base_model is not a hub id.
        front = {"base_model": list(dict.fromkeys(hub_models)), **front}
    methods = [METHODS[method] for method in dict.fromkeys(recipe.merge_method for recipe in recipes)]
    own = [f"{notice}." for method in methods if (notice := own_method_notice(method.name))]
    final = recipes[-1]
    base = "" if final.base_model is None else f", with {_link(final.base_model)} as the base"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {name}",
        "",
        "This is a merge of pre-trained language models.",
        "",
        "## Merge method",
        "",
        f"Merged with {' and '.join(map(_title, methods))}{base}.",
        "",
        "## Models merged",
        "",
        *[f"* {_link(reference)}" for reference in models if reference != final.base_model or len(models) == 1],
        "",
        "## Recipe",
        "",
        *(own or ["The recipe runs with any tool that reads the mergekit format."]),
        "",
        "```yaml",
        dump_recipes(recipes).strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _title(method: Method) -> str:
    return f"[{method.title}]({method.source})" if method.source else f"`{method.title}`"


def _is_hub_id(reference: ModelReference) -> bool:
    path = reference.model.path
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not os.path.isdir(path)


def _link(reference: ModelReference) -> str:
    return f"[{reference}](https://huggingface.co/{reference.model.path})" if _is_hub_id(reference) else str(reference)
