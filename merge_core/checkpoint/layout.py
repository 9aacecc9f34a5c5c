"""Where a model's layers, embeddings and head are, from tensor names, shapes and the config. No table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.bounds import LAYERS
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, shown
from merge_core.input_files import reading

_INDEX = re.compile(r"\.([0-9]+)\.")
_COUNT_KEY = re.compile(r"(n|num)_?(hidden_|decoder_|encoder_|transformer_)?(layers?|blocks?)")
_EMBEDDING = re.compile(r"emb(ed|_|\.|s\b)|(^|\.)w[tp]e\.|rope_freqs")
_POSITION = re.compile(r"(^|\.)wpe\.|position|token_type")
HEAD = "lm_head.weight"
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|head|vocab_projector)\.weight$")
# What else of a head has a row per token: its bias, and the output of the heads of masked language models.
_PART_OF_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|output|head|vocab_projector|predictions|decoder)(\.decoder)?\.(weight|bias)$"
)
# What checkpoints carry and no language model reads: buffers of old ones, the value head of a trainer (TRL's).
# Attention masks are named as biases but have four dimensions.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|(^|\.)v_head\.")
_MASK = re.compile(r"\.(attn|attention|self_attention)\.bias$")
# What may stand before the same name in another release of a model or in a model saved without its head.
_WRAPPERS = re.compile(r"^((model|language_model|text_model|transformer|backbone|decoder)\.)+")
_TEXT_TOWER = re.compile(r"(^|\.)(language_model|text_model)\.")
_VISION_MODEL = re.compile(r"\bvision_model\.")
PREDICTION = "mtp"
"""The module of layers for multi-token prediction."""
_PREDICTION = re.compile(r"(^|[._])(mtp|nextn)")
# The modules beside the language model, by a word of their name, under the names that recipes give them.
_MODULES = (
    (PREDICTION, _PREDICTION),
    ("multi_modal_projector", re.compile(r"(?<!vocab_)projector|merger|connector|resampler|multi_?modal|(^|_)mm_")),
    ("audio_tower", re.compile(r"audio|speech")),
    ("vision_tower", re.compile(r"vision|visual|image|(^|_)vit(_|$)")),
)


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
        extra: further layers of the list, which the config does not count (multi-token prediction).
        modules: what stands beside the language model (``vision_tower``, ``multi_modal_projector``):
            module → name in every release of the model → tensor name.
        embedding: tensor name of the input embedding.
        head: `HEAD` when the output head has tensors of its own.
        head_parts: names of what else of the head has a row per token, such as its bias.
        tied: whether the head is the embedding.
        count_key: path in the config of the number of layers, () when the config does not say.
    """

    root: str
    layers_name: str
    layers: tuple[Mapping[str, str], ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    extra: tuple[Mapping[str, str], ...]
    modules: Mapping[str, Mapping[str, str]]
    embedding: str | None
    head: str | None
    head_parts: tuple[str, ...]
    tied: bool
    count_key: tuple[str, ...]

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def vocabulary_tensors(self) -> tuple[str, ...]:
        """Names of the tensors with a row per token: embedding, head and the head's other parts."""
        head = None if self.head is None else self.after.get(self.head)
        return tuple(name for name in (self.embedding, head, *self.head_parts) if name is not None)


def checkpoint_layout(checkpoint: Checkpoint) -> Layout:
    """The layout of a checkpoint, found once and kept with it.

    Raises:
        MergeError: as `find_layout`.
    """
    return checkpoint.memo(checkpoint_layout, lambda: _checked_layout(checkpoint))


def _checked_layout(checkpoint: Checkpoint) -> Layout:
    with reading(checkpoint.directory / "config.json"):
        return find_layout(checkpoint)


def find_layout(checkpoint: Checkpoint) -> Layout:
    """Find the parts of a model.

    The layer list is the numbered list of names (``model.layers.0.``) whose length the config states; without
    such a statement, the longest. Embeddings are known by their names, everything else outside layers is after.
    Vision and audio towers and their projectors, known by name or by standing beside a ``language_model``, are
    modules.

    Raises:
        MergeError: no numbered list of layers, or a list with gaps.
    """
    lists: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    outside: list[str] = []
    for name in sorted(checkpoint.tensors):
        if _IGNORED.search(name) or (_MASK.search(name) and len(checkpoint.tensors[name].shape) == 4):
            continue
        match = _INDEX.search(name)
        if match is not None:
            layer = lists[name[: match.start()]][_layer_index(match.group(1), name, checkpoint)]
            _add(layer, name[match.end() :], name, checkpoint)
        else:
            outside.append(name)
    if not lists:
        raise MergeError(f"{checkpoint.directory}: no numbered layers among its tensor names. Is it a language model?")
    counts = dict(_layer_counts(checkpoint.config))
    main = _main_list({name: len(content) for name, content in lists.items()}, set(counts.values()))
    layers = _dense(lists.pop(main), main, checkpoint)
    count_key = next((key for key, count in counts.items() if count == len(layers)), ())
    extra: tuple[Mapping[str, str], ...] = ()
    if not count_key and counts:
        # The first statement is the language model's. Layers beyond it are not run, but belong to the model.
        key, count = next(iter(counts.items()))
        if 0 < count < len(layers):
            layers, extra, count_key = layers[:count], layers[count:], key
    outside += [name for content in lists.values() for inner in content.values() for name in inner.values()]
    root = main[: main.rfind(".") + 1]
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    language: list[str] = []
    for name in sorted(outside):
        module = _module(name, main)
        if module is None:
            language.append(name)
        else:
            _add(modules[module], _VISION_MODEL.sub("", without_wrappers(name)), name, checkpoint)
    tied = _is_tied(checkpoint, language)
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    embedding, head = None, None
    for name in language:
        head_here = is_head(name)
        if head_here and tied:
            continue  # a stored copy of the embedding, which the model does not read
        # One name for all heads: ``embed_out`` and ``lm_head`` are two releases of one architecture.
        key_name = HEAD if head_here else without_wrappers(name.removeprefix(root))
        if _EMBEDDING.search(name) is not None and not head_here:
            _add(before, key_name, name, checkpoint)
            if embedding is None and not is_position(name) and _has_vocabulary(name, checkpoint, 2):
                embedding = name
        else:
            _add(after, key_name, name, checkpoint)
            if head_here:
                head = HEAD
    parts = tuple(
        name
        for name in after.values()
        if _PART_OF_HEAD.search(name) and not is_head(name) and _has_vocabulary(name, checkpoint)
    )
    return Layout(root, main, layers, before, after, extra, dict(modules), embedding, head, parts, tied, count_key)


def _layer_index(digits: str, name: str, checkpoint: Checkpoint) -> int:
    if len(digits) > len(str(LAYERS)) or int(digits) >= LAYERS:
        raise MergeError(f"{checkpoint.directory}: tensor {name} is of a layer beyond {LAYERS}. Fetch the model again")
    return int(digits)


def _add(part: dict[str, str], meaning: str, name: str, checkpoint: Checkpoint) -> None:
    """Two tensors of one meaning, such as layers ``0`` and ``00``, would be one of them, in silence."""
    if meaning in part:
        raise MergeError(
            f"{checkpoint.directory}: tensors {part[meaning]} and {name} are the same part of the model. "
            "Remove the one that it does not read"
        )
    part[meaning] = name


def without_wrappers(name: str) -> str:
    """A name as it is in every release of a model, saved with its head or without."""
    return _WRAPPERS.sub("", name)


def is_prediction_setting(key: str) -> bool:
    """Whether a key of a config says something of the layers for multi-token prediction."""
    return _PREDICTION.search(key) is not None


def is_head(name: str) -> bool:
    """Whether a tensor is the output head."""
    return _HEAD.search(name) is not None


def is_position(name: str) -> bool:
    """Whether an embedding has rows for places in a text, or for its parts, not for tokens."""
    return _POSITION.search(name) is not None


def _module(name: str, main: str) -> str | None:
    """The module that a tensor outside the layers belongs to; None is the language model."""
    first = ".".join(without_wrappers(name).split(".")[:2])
    for module, words in _MODULES:
        if words.search(first):
            return module
    if _TEXT_TOWER.search(f"{main}.") and not _TEXT_TOWER.search(name) and not is_head(name):
        return first.partition(".")[0]
    return None


def _layer_counts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every statement of a number of layers in a config: its own first, then those of nested configs."""
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and _COUNT_KEY.fullmatch(key):
            if value > LAYERS:
                raise ValueError(f"{key} is {shown(value)}, at most {LAYERS} are possible")
            yield (*path, key), value
    # A text tower's config comes before a vision tower's.
    for key in sorted(config, key=lambda key: "text" not in key):
        if isinstance(config[key], dict):
            yield from _layer_counts(config[key], (*path, key))


def _main_list(lengths: Mapping[str, int], stated: set[int]) -> str:
    def preference(name: str) -> tuple[bool, bool, int]:
        return _module(name, "") is None, lengths[name] in stated, lengths[name]

    return max(lengths, key=preference)


def _dense(content: Mapping[int, dict[str, str]], name: str, checkpoint: Checkpoint) -> tuple[dict[str, str], ...]:
    missing = next((index for index in range(len(content)) if index not in content), None)
    if missing is not None:
        raise MergeError(f"{checkpoint.directory}: no tensors of {name}.{missing}. Fetch the model again")
    return tuple(content[index] for index in range(len(content)))


def _is_tied(checkpoint: Checkpoint, outside: list[str]) -> bool:
    stated = find_key(checkpoint.config, "tie_word_embeddings")
    has_head = any(is_head(name) for name in outside)
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


def _has_vocabulary(name: str, checkpoint: Checkpoint, dimensions: int | None = None) -> bool:
    """Whether a tensor may have a row per token, by its shape and the config."""
    shape, vocabulary = checkpoint.tensors[name].shape, find_key(checkpoint.config, "vocab_size")
    if len(shape) != (dimensions or len(shape)) or not shape:
        return False
    # Padded vocabularies have more rows than the config may say.
    return vocabulary is None or shape[0] >= vocabulary
