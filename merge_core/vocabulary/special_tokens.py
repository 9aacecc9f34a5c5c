"""The special tokens of a tokenizer by what they are for: which one texts begin with, end with, are padded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from merge_core.json_files import read_json


def special_tokens(directory: Path) -> dict[str, str]:
    """Purpose, by the key of ``tokenizer_config.json`` (``bos_token``), → token.

    Raises:
        MergeError: a file that cannot be read.
    """
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = directory / name
        content: dict[str, Any] = read_json(file) if file.is_file() else {}
        for key, value in content.items():
            token = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(token, str):
                found[key] = token
    return found
