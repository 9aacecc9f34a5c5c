"""Cheap keys of model files: a changed model is noticed without reading all of it.

Small files, which tokenizers and configurations are, are hashed whole. Of large ones count the size, the header (the
first megabyte), and blocks spread evenly over the file: training or merging again changes numbers everywhere, so that
any block tells. A change that misses all blocks was made by hand in place; the time of the last modification tells of
it, and counts beside the rest. Where the hub's cache names a file by the hash of its content, that stands for the time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from merge_core import Checkpoint
from merge_core.vocabulary.tokenizer_files import TOKENIZER_FILES

WHOLE_BYTES = 2**26  # files up to this size are hashed whole: some 50 ms
_HEADER_BYTES = 2**20
_BLOCK_BYTES = 2**12  # a page, which is what a disk reads at least
_BLOCKS = 256  # so that a shard of 5 GB has one every 20 MB, and a spinning disk takes a second or two
_SETTINGS = ("config.json", "generation_config.json", "adapter_config.json", "adapter_model.*", *TOKENIZER_FILES)
_CONTENT_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

MODIFIED = ", modified"  # ends the key of a time


def model_keys(checkpoint: Checkpoint) -> dict[str, str]:
    """The keys of all files that a model is read from, an adapter's included.

    Returns:
        Name of a file -> what it holds; and for large files beside that `NAME, modified` -> time, in UTC.
    """
    keys: dict[str, str] = {}
    for file in dict.fromkeys(file for part in checkpoint.parts for file in _files(part)):
        name = file.name if file.parent == checkpoint.directory else f"{file.parent.name}/{file.name}"
        state = file.stat()
        if state.st_size <= WHOLE_BYTES:
            keys[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            continue
        keys[name] = _sampled(file, state.st_size)
        real = file.resolve()
        if real.parent.name == "blobs" and _CONTENT_HASH.fullmatch(real.name):
            keys[name] += f" {real.name}"
        else:
            keys[name + MODIFIED] = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="microseconds")
    return keys


def _files(checkpoint: Checkpoint) -> Iterator[Path]:
    yield from sorted({header.file for header in checkpoint.tensors.values()})
    for directory in checkpoint.directories:
        for pattern in _SETTINGS:
            yield from (file for file in sorted(directory.glob(pattern)) if file.is_file())


def _sampled(file: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb", buffering=0) as stream:
        digest.update(stream.read(_HEADER_BYTES))
        for block in range(_BLOCKS):
            digest.update(os.pread(stream.fileno(), _BLOCK_BYTES, (size - _BLOCK_BYTES) * block // (_BLOCKS - 1)))
    return digest.hexdigest()
