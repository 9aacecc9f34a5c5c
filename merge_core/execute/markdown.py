"""Markdown of model cards."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Text of one line that Markdown and a Markdown table show as it is."""
    # An underscore inside a word emphasises nothing, and brackets are a link only before a parenthesis.
    special = r"[\\`*<|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\("
    return re.sub(special, lambda match: "\\" + match.group(), text)


def fenced(language: str, text: str) -> str:
    """A block of code."""
    # Longer than any run of backticks inside, or a model's name could end the block.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column has no heading, and whose others are numbers or short words."""
    lines = [["", *headings], ["---", *["---:"] * len(headings)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
