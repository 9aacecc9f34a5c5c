"""The ``README.md`` of a model that is made of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from merge_core.checkpoint.card_metadata import OTHER, Licence, Licences
from merge_core.execute.markdown import escape, fenced, markdown_table
from merge_core.methods import METHODS
from merge_core.recipe.documents import outside_models
from merge_core.recipe.model_reference import ModelReference, hub_ids
from merge_core.recipe.recipe import Recipe, dump_recipes
from merge_core.recipe.user_methods import own_method_notice


def front_matter(
    models: Iterable[ModelReference],
    relative_to: Path | None = None,
    licences: Licences | None = None,
    more: Mapping[str, object] | None = None,
) -> str:
    """The head of a card, which the hub reads.

    Args:
        models: what was merged.
        relative_to: the recipe's directory, where local models are looked for first.
        licences: of these.
        more: what else is known of it, by the hub's keys.
    """
    front: dict[str, object] = {"library_name": "transformers", "tags": ["mergekit", "merge"]}
    known = list(dict.fromkeys(name for model in models for name in hub_ids(model, relative_to)))
    if known:
        # The hub refuses a card whose base_model is not a hub id.
        front = {"base_model": known, "base_model_relation": "merge", **front}
    front |= {**_licence_keys(licences or {}), **(more or {})}
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)}---"


def _licence_keys(licences: Licences) -> dict[str, str]:
    """What the hub reads of them: nothing where one is not known, and `other` where they differ."""
    different = {licence for licence in licences.values() if licence is not None}
    if not different or None in licences.values():
        return {}
    return (different.pop() if len(different) == 1 else Licence(OTHER)).metadata


def licence_section(licences: Licences) -> str:
    """A heading, the licence of every model, and what that means for the result; empty without models."""
    if not licences:
        return ""
    rows = [
        [escape(model), escape("not stated" if licence is None else str(licence))]
        for model, licence in licences.items()
    ]
    paragraphs = ["## Licences", markdown_table(["licence"], rows)]
    if len({licence for licence in licences.values() if licence is not None}) > 1:
        paragraphs.append(
            "**The licences differ.** A merge has parts of every model and may be used only as all of them allow."
        )
    if None in licences.values():
        paragraphs.append("Of some models the licence is not known. Look it up before this one is published.")
    return "\n\n".join(paragraphs)


def model_card(
    recipes: Sequence[Recipe], name: str, relative_to: Path | None = None, licences: Licences | None = None
) -> str:
    """The card of a merged model: front matter, method, models, recipe, licences.

    Args:
        recipes: the documents of the recipe file, the final one last.
        name: the model's title.
        relative_to: the recipe's directory, where local models are looked for first.
        licences: of the models.

    Returns:
        Markdown with a YAML front matter that the hub reads.
    """
    models = list(dict.fromkeys(model for recipe in recipes for model in outside_models(recipe, recipes)))
    methods = [METHODS[method] for method in dict.fromkeys(recipe.merge_method for recipe in recipes)]
    own = [f"{notice}." for method in methods if (notice := own_method_notice(method.name))]
    final = recipes[-1]
    base = "" if final.base_model is None else f", with {_link(final.base_model, relative_to)} as the base"
    merged = [f"* {_link(model, relative_to)}" for model in models if model != final.base_model or len(models) == 1]
    sections = [
        f"{front_matter(models, relative_to, licences)}\n# {name}",
        "This is a merge of pre-trained language models.",
        "## Merge method",
        f"Merged with {' and '.join(method.link for method in methods)}{base}.",
        "## Models merged",
        "\n".join(merged),
        "## Recipe",
        *(own or ["The recipe runs with any tool that reads the mergekit format."]),
        fenced("yaml", dump_recipes(tuple(recipes))),
        licence_section(licences or {}),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def plain_card(
    models: Sequence[ModelReference], name: str, about: str, licences: Licences, relative_to: Path | None = None
) -> str:
    """The card of a model that no recipe makes: front matter, a sentence, licences.

    Args:
        models: that it is made of.
        name: its title.
        about: what it is.
        licences: of the models.
        relative_to: where local models are looked for first.
    """
    title = f"{front_matter(models, relative_to, licences)}\n# {name}"
    return "\n\n".join(section for section in (title, about, licence_section(licences)) if section) + "\n"


def _link(reference: ModelReference, relative_to: Path | None) -> str:
    if reference.model.path not in hub_ids(reference, relative_to):
        return str(reference)
    return f"[{reference}](https://huggingface.co/{reference.model.path})"
