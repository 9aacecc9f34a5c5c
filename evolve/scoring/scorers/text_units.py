"""Texts cut into the items that they are scored by."""

from __future__ import annotations

import re
from typing import Literal

Unit = Literal["file", "paragraph", "chunk"]

_PIECE = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")


def cut(text: str, unit: Unit, chunk_bytes: int) -> list[str]:
    """The items of a text, none of them blank.

    Args:
        text: A file's.
        unit: `file` is the whole; `paragraph` what stands between blank lines; `chunk` pieces that joined are the
            text, cut at white space.
        chunk_bytes: A chunk has at most so many bytes in UTF-8, unless a single word has more.
    """
    if unit == "file":
        return [text]
    if unit == "paragraph":
        return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    chunks: list[str] = []
    size = chunk_bytes  # so that the first piece begins a chunk
    for piece in _PIECE.findall(text):
        length = len(piece.encode())
        if size + length > chunk_bytes:
            chunks.append("")
            size = 0
        chunks[-1] += piece
        size += length
    return chunks
