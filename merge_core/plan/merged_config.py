"""The ``config.json`` of a merged model: layer count, per-layer lists, dtype, vocabulary, tied head."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from merge_core.checkpoint.layout import Layout
from merge_core.plan.tensor_job import TensorJob

LayerOrigin = tuple[Mapping[str, Any], Layout, range]
"""A source's config, its layout and the layers taken from it."""


def merged_config(
    template_config: Mapping[str, Any],
    template: Layout,
    origins: Sequence[LayerOrigin],
    jobs: Sequence[TensorJob],
    tied: bool,
    dtype: torch.dtype | None,
    aligned: bool = False,
) -> dict[str, Any]:
    """Adapt the template model's config to the result.

    Args:
        template_config: the config of the model that the result is modelled on.
        template: that model's layout.
        origins: for each output slice, where its layers come from.
        jobs: the planned tensors.
        tied: whether the result's head is its embedding.
        dtype: of the result, None to keep the template's.
        aligned: whether the vocabulary is the recipe's own, of whatever size the embedding has.
    """
    config = copy.deepcopy(dict(template_config))
    layer_count = sum(len(layers) for _, _, layers in origins)
    section = language_section(config, template.count_key)
    for name, value in list(section.items()):
        if _are_indices(name, value, template.layer_count):  # which layers have experts, say
            section[name] = _layer_indices(name, value, origins)
        elif _says_each(name, value, template.layer_count):
            section[name] = _layer_list(name, value, origins)
    if template.count_key:
        section[template.count_key[-1]] = layer_count
    if dtype is not None:
        keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
        for key in keys:
            config[key] = str(dtype).removeprefix("torch.")
    vocabulary = _vocabulary(template, jobs)
    if vocabulary is not None:
        holder = section if "vocab_size" in section else config
        if vocabulary < holder.get("vocab_size", vocabulary) or aligned:
            holder["vocab_size"] = vocabulary
    if tied != template.tied:
        config["tie_word_embeddings"] = tied
        if "tie_word_embeddings" in section:
            section["tie_word_embeddings"] = tied
    return config


def layer_settings(config: Mapping[str, Any], count_key: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config without what it says of single layers, and that: their number, and lists of what each of them is.

    Args:
        config: of a model.
        count_key: path in it of the number of layers, () where it does not say.
    """
    whole = copy.deepcopy(dict(config))
    section = language_section(whole, count_key)
    count = section.get(count_key[-1]) if count_key else None
    names = [
        name
        for name, value in section.items()
        if (isinstance(value, list) and "layer" in name) or (count and _says_each(name, value, count))
    ]
    return whole, {name: section.pop(name) for name in (*count_key[-1:], *names)}


def states_layers(config: Mapping[str, Any], layout: Layout) -> bool:
    """Whether a config says how many layers there are, by a number or by something for each."""
    each = any(_says_each(name, value, layout.layer_count) for name, value in config.items())
    return bool(layout.count_key) or each


def displaced_layers(
    template_config: Mapping[str, Any], template: Layout, origins: Sequence[LayerOrigin]
) -> tuple[int, ...]:
    """Layers of the result whose tensors are not those that the config expects at their place.

    Where layers differ in kind (some have experts), a config says by a list which are which, and then the list follows
    its layers; or by their place, as ``first_k_dense_replace``, which no other order of layers can keep.

    Args:
        template_config, template, origins: as in `merged_config`.
    """
    expected = [frozenset(layer) for layer in template.layers]
    section = language_section(template_config, template.count_key)
    listed = any(
        (isinstance(value, list) and len(value) > 1 and "layer" in name)
        or _says_each(name, value, template.layer_count)
        for name, value in section.items()
    )
    if len(set(expected)) == 1 or listed:
        return ()
    found = [frozenset(layout.layers[layer]) for _, layout, layers in origins for layer in layers]
    return tuple(index for index, kind in enumerate(found) if kind != expected[min(index, len(expected) - 1)])


def language_section(config: Any, count_key: tuple[str, ...]) -> Any:
    """The part of a config that says how many layers the language model has, at ``count_key`` from the config."""
    for key in count_key[:-1]:
        config = config[key]
    return config


def _says_each(name: str, value: Any, layer_count: int) -> bool:
    """Whether it says something of each layer, as what it attends to: in a list, or by letters as ``M*-M``."""
    lists = isinstance(value, list) and "layer" in name
    return (lists or (isinstance(value, str) and "pattern" in name)) and len(value) == layer_count


def _layer_list(name: str, own: list[Any] | str, origins: Sequence[LayerOrigin]) -> list[Any] | str:
    result = []
    for config, layout, layers in origins:
        values = language_section(config, layout.count_key).get(name)
        if type(values) is not type(own) or not _says_each(name, values, layout.layer_count):
            values = own
        result += [values[layer] for layer in layers if layer < len(values)]
    return "".join(result) if isinstance(own, str) else result


def _are_indices(name: str, values: Any, layer_count: int) -> bool:
    """Whether a list names layers, in order, rather than say something of each."""
    if not isinstance(values, list) or "layer" not in name:
        return False
    whole = all(type(value) is int and 0 <= value < layer_count for value in values)
    return bool(values) and whole and all(low < high for low, high in pairwise(values))


def _layer_indices(name: str, own: list[int], origins: Sequence[LayerOrigin]) -> list[int]:
    chosen: list[bool] = []
    for config, layout, layers in origins:
        values = language_section(config, layout.count_key).get(name)
        chosen_here = values if values is not None and _are_indices(name, values, layout.layer_count) else own
        chosen += [layer in chosen_here for layer in layers]
    return [index for index, is_one in enumerate(chosen) if is_one]


def _vocabulary(template: Layout, jobs: Sequence[TensorJob]) -> int | None:
    for job in jobs:
        if job.output == template.embedding:
            return job.shape[0]
    return None
