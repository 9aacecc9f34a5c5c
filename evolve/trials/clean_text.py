"""Text from anywhere, such as what a scorer raised, as it may be kept and shown: one line of bounded length."""

from __future__ import annotations

from typing import Any

LONGEST = 500  # characters of a reason


def clean_line(text: str) -> str:
    """A text without what terminals obey and files cannot hold, its middle cut out where it is long.

    Args:
        text: anything, lone surrogates, escape codes and line ends included.
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        # Cleaned after cutting: cleaning 20 MB takes seconds.
        return f"{clean_line(text[:half])} … ({len(text):,} characters) … {clean_line(text[-half:])}"
    if text.isprintable():
        return text
    return " ".join("".join(one if one.isprintable() else _instead(one) for one in text).split())


def writable(value: Any) -> Any:
    """JSON data whose texts can be written as UTF-8: lone surrogates are replaced, nothing else is changed."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {writable(key): writable(inner) for key, inner in value.items()}
    return [writable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _instead(character: str) -> str:
    return " " if character.isspace() else "\ufffd"
