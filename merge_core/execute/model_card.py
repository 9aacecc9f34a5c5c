"""The ``README.md`` of a model that is made of others."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from merge_core.checkpoint.card_metadata import OTHER, Licence, Licences
from merge_core.execute.markdown import escape, fenced, markdown_table
from merge_core.methods import METHODS
from merge_core.recipe.documents import outside_models
from merge_core.recipe.model_reference import ModelReference, hub_ids
from merge_core.recipe.parts import OutputSlice
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
    merged = dict.fromkeys(model for recipe in recipes for model in recipe.merged_models() if model in models)
    bases = {recipe.base_model for recipe in recipes}
    sections = [
        f"{front_matter(models, relative_to, licences)}\n# {name}",
        "This is a merge of pre-trained language models.",
        "## Merge method",
        _method_paragraph(recipes, relative_to),
        "## Models merged",
        "\n".join(f"* {_link(model, relative_to)}{' (base)' if model in bases else ''}" for model in merged),
        _lenders([model for model in models if model not in merged], relative_to),
        *_layer_section(final),
        "## Recipe",
        *(own or ["The recipe runs with any tool that reads the mergekit format."]),
        fenced("yaml", dump_recipes(tuple(recipes))),
        licence_section(licences or {}),
    ]
    return told_elsewhere("\n\n".join(section for section in sections if section) + "\n", models)


def told_elsewhere(card: str, models: Iterable[ModelReference]) -> str:
    """A card in which models that lie on this machine are called by the ends of their paths.

    Its reader has them elsewhere, and where they lie here may tell more of its maker than a card should.

    Args:
        card: any text.
        models: that it may name.
    """
    paths = {part.path for model in models for part in (model.model, model.lora) if part is not None}
    for path in sorted(paths):
        if Path(path).is_absolute():
            end = _end(path, paths)
            for written, instead in {path: end, escape(path): escape(end)}.items():
                alone = rf"(?<![\w./-]){re.escape(written)}(?![\w/-])"
                card = re.sub(alone, instead.replace("\\", "\\\\"), card)
    return card


def _end(path: str, paths: Iterable[str]) -> str:
    """As much of the end of a path as tells it from the others."""
    parts = path.strip("/").split("/")
    ends = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
    others = [f"/{other.strip('/')}" for other in paths if other != path]
    return next((end for end in ends if not any(other.endswith(f"/{end}") for other in others)), path)


def _method_paragraph(recipes: Sequence[Recipe], relative_to: Path | None) -> str:
    """How the result is made; of several documents, a step for each."""
    final = recipes[-1]
    if len(recipes) == 1:
        return f"Merged with {_method(final, relative_to)}."
    made = {recipe.name for recipe in recipes}
    steps = []
    for number, recipe in enumerate(recipes, start=1):
        merged = [model for model in recipe.merged_models() if model != recipe.base_model]
        named = [f"`{model}`" if str(model) in made else _link(model, relative_to) for model in merged]
        name = "the result" if recipe is final else f"`{recipe.name}`"
        steps.append(f"{number}. {name}: {_method(recipe, relative_to, made)}, of {', '.join(named)}")
    return "\n".join(["Merged in steps:\n", *steps])


def _method(recipe: Recipe, relative_to: Path | None, made: Container[str | None] = ()) -> str:
    """The merge method, linked to its paper, and the base."""
    base, link = recipe.base_model, METHODS[recipe.merge_method].link
    if base is None:
        return link
    return f"{link} with {f'`{base}`' if str(base) in made else _link(base, relative_to)} as the base"


def _lenders(models: Sequence[ModelReference], relative_to: Path | None) -> str:
    """Models of which no weights are merged."""
    named = ", ".join(_link(model, relative_to) for model in models)
    return f"Only tokenizer or tokens are taken from {named}." if models else ""


def _layer_section(recipe: Recipe) -> list[str]:
    """A heading, and which layers of which models the layers of the result are made of; nothing where all are alike."""
    towers = recipe.modules or (("", recipe),)
    rows = [
        [f"{name} {layers}".strip(), sources]
        for name, tower in towers
        for found in [_layer_rows(tower.slices or ())]
        if len(found) > 1
        for layers, sources in found
    ]
    return ["## Layers", markdown_table(["made of"], rows)] if rows else []


def _layer_rows(slices: Sequence[OutputSlice]) -> list[tuple[str, str]]:
    """Layers of the result, and those that they are made of; slices that go on with the same models are one row."""
    runs: list[tuple[int, int, list[tuple[str, int, int]]]] = []
    depth = 0
    for part in slices:
        sources = [(str(source.model), *source.layer_range) for source in part.sources]
        end = depth + part.layer_count
        before = runs[-1][2] if runs else []
        if [(model, high) for model, _, high in before] == [(model, low) for model, low, _ in sources]:
            joined = [(model, low, new[2]) for (model, low, _), new in zip(before, sources, strict=True)]
            runs[-1] = (runs[-1][0], end, joined)
        else:
            runs.append((depth, end, sources))
        depth = end
    return [
        (_span(first, end), ", ".join(f"{escape(model)} {_span(low, high)}" for model, low, high in sources))
        for first, end, sources in runs
    ]


def _span(first: int, end: int) -> str:
    return f"{first} to {end - 1}" if end - first > 1 else str(first)


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
    sections = (title, about, licence_section(licences))
    return told_elsewhere("\n\n".join(section for section in sections if section) + "\n", models)


def _link(reference: ModelReference, relative_to: Path | None) -> str:
    if reference.model.path not in hub_ids(reference, relative_to):
        return str(reference)
    return f"[{reference}](https://huggingface.co/{reference.model.path})"
