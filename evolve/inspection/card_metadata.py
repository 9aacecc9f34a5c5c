"""What the card of a model says for machines: the front matter of its README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from merge_core import Checkpoint

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LONGEST_CARD = 1 << 20  # bytes


def card_metadata(directory: Path) -> dict[str, Any]:
    """The keys of the front matter; none where there is no card, or it cannot be read.

    Args:
        directory: of the model.
    """
    card = directory / "README.md"
    if not card.is_file() or card.stat().st_size > _LONGEST_CARD:
        return {}
    match = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        content = yaml.safe_load(match[1]) if match is not None else None
    except (yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def stated_licences(checkpoints: Mapping[str, Checkpoint]) -> dict[str, str | None]:
    """The licence of every model, as its card has it.

    Args:
        checkpoints: label -> model.

    Returns:
        Label -> the hub's name of a licence, that of its own where it is `other`; None where no card says.
    """
    found: dict[str, str | None] = {}
    for label, checkpoint in checkpoints.items():
        metadata = card_metadata(checkpoint.directory)
        licence = metadata.get("license")
        named = metadata.get("license_name") if licence == "other" else None
        stated = named or licence
        found[label] = stated if isinstance(stated, str) else None
    return found
