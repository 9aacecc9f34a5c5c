"""Where a model's layers, embeddings and head are, from tensor names, shapes and the config. No table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.checkpoint_reader import Checkpoint, TensorHeader
from merge_core.errors import MergeError

_INDEX = re.compile(r"\.(\d+)\.")
_COUNT_KEY = re.compile(r"(n|num)_?(hidden_|decoder_|encoder_|transformer_)?(layers?|blocks?)")
_EMBEDDING = re.compile(r"emb(ed|_|\.|s\b)|(^|\.)w[tp]e\.|rope_freqs")
_POSITION = re.compile(r"(^|\.)wpe\.|position|token_type")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|head)\.weight$")
# Buffers that old checkpoints carry and no model reads.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$")


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a model.

    Attributes:
        root: what stands before the layer list in names (``model.`` of ``model.layers``); the same model saved
            without its head may lack it, so names are compared without it.
        layers_name: name of the layer list, root included.
        layers: per layer: name inside the layer → tensor name.
        before: rootless name → tensor name, of what is used before the layers (embeddings).
        after: the same for what is used after them (final norm, head).
        towers: other layer lists, as layouts without ``before`` and ``after`` (a vision tower).
        embedding: tensor name of the input embedding.
        head: rootless name of the output head, when it has tensors of its own.
        tied: whether the head is the embedding.
        count_key: path in the config of the number of layers, () when the config does not say.
    """

    root: str
    layers_name: str
    layers: tuple[Mapping[str, str], ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    towers: tuple[Layout, ...]
    embedding: str | None
    head: str | None
    tied: bool
    count_key: tuple[str, ...]

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        return len(self.layers)


def find_layout(checkpoint: Checkpoint) -> Layout:
    """Find the parts of a model.

    The layer list is the numbered list of names (``model.layers.0.``) whose length the config states; without
    such a statement, the longest. Embeddings are known by their names, everything else outside layers is after.

    Raises:
        MergeError: no numbered list of layers, or a list with gaps.
    """
    lists: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    outside: list[str] = []
    for name in sorted(checkpoint.tensors):
        if _IGNORED.search(name):
            continue
        match = _INDEX.search(name)
        if match is None:
            outside.append(name)
        else:
            lists[name[: match.start()]][int(match.group(1))][name[match.end() :]] = name
    if not lists:
        raise MergeError(f"{checkpoint.directory}: no numbered layers among its tensor names. Is it a language model?")
    counts = dict(_layer_counts(checkpoint.config))
    main = _main_list({name: len(content) for name, content in lists.items()}, set(counts.values()))
    layers = _dense(lists[main], main, checkpoint)
    towers = tuple(_tower(name, _dense(content, name, checkpoint)) for name, content in lists.items() if name != main)
    root = main[: main.rfind(".") + 1]
    tied = _is_tied(checkpoint, outside)
    before, after, embedding, head = {}, {}, None, None
    for name in outside:
        is_head = _HEAD.search(name) is not None
        if is_head and tied:
            continue  # a stored copy of the embedding, which the model does not read
        if _EMBEDDING.search(name) is not None and not is_head:
            before[name.removeprefix(root)] = name
            is_position = _POSITION.search(name) is not None
            if embedding is None and not is_position and _has_vocabulary(checkpoint.tensors[name], checkpoint.config):
                embedding = name
        else:
            after[name.removeprefix(root)] = name
            if is_head:
                head = name.removeprefix(root)
    count_key = next((key for key, count in counts.items() if count == len(layers)), ())
    return Layout(root, main, layers, before, after, towers, embedding, head, tied, count_key)


def _layer_counts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every statement of a number of layers in a config: its own first, then those of nested configs."""
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and _COUNT_KEY.fullmatch(key):
            yield (*path, key), value
    # A text tower's config comes before a vision tower's.
    for key in sorted(config, key=lambda key: "text" not in key):
        if isinstance(config[key], dict):
            yield from _layer_counts(config[key], (*path, key))


def _main_list(lengths: Mapping[str, int], stated: set[int]) -> str:
    def preference(name: str) -> tuple[bool, bool, int]:
        return lengths[name] in stated, "vision" not in name and "visual" not in name, lengths[name]

    return max(lengths, key=preference)


def _dense(content: Mapping[int, dict[str, str]], name: str, checkpoint: Checkpoint) -> tuple[dict[str, str], ...]:
    missing = [index for index in range(max(content) + 1) if index not in content]
    if missing:
        raise MergeError(f"{checkpoint.directory}: no tensors of {name}.{missing[0]}. Fetch the model again")
    return tuple(content[index] for index in range(len(content)))


def _tower(name: str, layers: tuple[Mapping[str, str], ...]) -> Layout:
    return Layout(name[: name.rfind(".") + 1], name, layers, {}, {}, (), None, None, False, ())


def _is_tied(checkpoint: Checkpoint, outside: list[str]) -> bool:
    stated = find_key(checkpoint.config, "tie_word_embeddings")
    has_head = any(_HEAD.search(name) for name in outside)
    # Configs leave out values that are their class's default. A head that is not in the file must then be
    # the embedding; a head that is there must have been saved because it differs.
    return not has_head if stated is None else bool(stated)


def find_key(config: Mapping[str, Any], key: str) -> Any:
    """A key's value at the top of a config, else in a nested config, text towers first; None if nowhere."""
    if config.get(key) is not None:
        return config[key]
    for name in sorted(config, key=lambda name: "text" not in name):
        if isinstance(config[name], dict):
            found = find_key(config[name], key)
            if found is not None:
                return found
    return None


def _has_vocabulary(header: TensorHeader, config: Mapping[str, Any]) -> bool:
    vocabulary = find_key(config, "vocab_size")
    # Padded vocabularies have more rows than the config may say.
    return len(header.shape) == 2 and (vocabulary is None or header.shape[0] >= vocabulary)
