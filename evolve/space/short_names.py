"""What models are called where there is little room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Model -> the last part of its path, or the whole reference where that is ambiguous."""
    short = {model: PurePosixPath(model).name or model for model in models}
    ambiguous = {name for name, times in Counter(short.values()).items() if times > 1}
    return {model: (model if name in ambiguous else name) for model, name in short.items()}
