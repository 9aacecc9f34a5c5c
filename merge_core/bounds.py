"""How much is taken from files and documents that come from outside: far above what real ones need, far below harm."""

from __future__ import annotations

RECIPE_BYTES = 8_000_000
"""Of a text of YAML."""

CONFIG_BYTES = 64_000_000
"""Of a JSON file that is neither a tokenizer nor an index; with a chat template in it the largest have under one."""

TOKENIZER_BYTES = 512_000_000
"""Of a ``tokenizer.json``; those of 260,000 tokens have 35 million."""

INDEX_BYTES = 256_000_000
"""Of an index of shards; that of 90,000 tensors has 9 million."""

HEADER_BYTES = 100_000_000
"""Of a safetensors header, the format's own limit; it also bounds what a corrupt length field can make us read."""

VALUES = 8_000_000
"""Numbers, texts, lists and maps in one JSON text: memory is theirs, whatever its length."""

YAML_VALUES = 200_000
"""The same in one YAML text, an alias counting as often as it is used."""

DEPTH = 64
"""Lists and maps inside one another."""

ENTRIES = 2_000
"""Of a list in a recipe: models, slices, knots of a gradient."""

NAME_CHARACTERS = 1_000
"""Of a model's reference, a document's name, a tensor's name."""

TEMPLATE_CHARACTERS = 1_000_000
"""Of a chat template."""

LAYERS = 10_000
"""Of a model."""

DIMENSION = 2**40
"""Of a tensor's shape."""

TOKENS = 10_000_000
"""Of a vocabulary: every id is below."""

PADDING_MULTIPLE = 65_536
"""Of the rows of an embedding."""

LARGEST_NUMBER = 3.4e38
"""Of a parameter's magnitude: the arithmetic is float32's, in which a larger one is infinity."""

PIPE_SECONDS = 30.0
"""That a pipe may be silent before its text is taken for incomplete."""
