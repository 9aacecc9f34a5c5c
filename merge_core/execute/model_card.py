"""The ``README.md`` of a merged model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from merge_core.methods import METHODS
from merge_core.recipe.documents import outside_models
from merge_core.recipe.model_reference import ModelReference, hub_ids
from merge_core.recipe.recipe import Recipe, dump_recipes
from merge_core.recipe.user_methods import own_method_notice


def front_matter(
    models: Iterable[ModelReference], relative_to: Path | None = None, more: Mapping[str, object] | None = None
) -> str:
    """The head of a merged model's card, which the hub reads.

    Args:
        models: what was merged.
        relative_to: the recipe's directory, where local models are looked for first.
        more: what else is known of it, by the hub's keys.
    """
    front: dict[str, object] = {"library_name": "transformers", "tags": ["mergekit", "merge"]}
    known = list(dict.fromkeys(name for model in models for name in hub_ids(model, relative_to)))
    if known:
        # The hub refuses a card whose base_model is not a hub id.
        front = {"base_model": known, "base_model_relation": "merge", **front}
    front |= more or {}
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)}---"


def model_card(recipes: Sequence[Recipe], name: str, relative_to: Path | None = None) -> str:
    """Write a model card: front matter, method, models, recipe.

    Args:
        recipes: the documents of the recipe file, the final one last.
        name: the model's title.
        relative_to: the recipe's directory, where local models are looked for first.

    Returns:
        Markdown with a YAML front matter that the hub reads.
    """
    models = list(dict.fromkeys(model for recipe in recipes for model in outside_models(recipe, recipes)))
    methods = [METHODS[method] for method in dict.fromkeys(recipe.merge_method for recipe in recipes)]
    own = [f"{notice}." for method in methods if (notice := own_method_notice(method.name))]
    final = recipes[-1]
    base = "" if final.base_model is None else f", with {_link(final.base_model, relative_to)} as the base"
    lines = [
        front_matter(models, relative_to),
        f"# {name}",
        "",
        "This is a merge of pre-trained language models.",
        "",
        "## Merge method",
        "",
        f"Merged with {' and '.join(method.link for method in methods)}{base}.",
        "",
        "## Models merged",
        "",
        *[f"* {_link(model, relative_to)}" for model in models if model != final.base_model or len(models) == 1],
        "",
        "## Recipe",
        "",
        *(own or ["The recipe runs with any tool that reads the mergekit format."]),
        "",
        "```yaml",
        dump_recipes(tuple(recipes)).strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _link(reference: ModelReference, relative_to: Path | None) -> str:
    if reference.model.path not in hub_ids(reference, relative_to):
        return str(reference)
    return f"[{reference}](https://huggingface.co/{reference.model.path})"
