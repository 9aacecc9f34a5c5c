"""What the card of a model says for machines: the front matter of its README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from merge_core.checkpoint.reader import Checkpoint

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LONGEST_CARD = 1 << 20  # bytes

OTHER = "other"
"""The hub's word for a licence that it has no name for."""


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


@dataclass(frozen=True)
class Licence:
    """What a card says of a licence.

    Attributes:
        hub_id: the hub's name of it; `other` where the hub has none.
        name: its own, where the hub has none.
        link: where such a one can be read.
    """

    hub_id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return self.name or self.hub_id

    @property
    def metadata(self) -> dict[str, str]:
        """The keys of a front matter that say it."""
        keys = {"license": self.hub_id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in keys.items() if value is not None}


Licences = Mapping[str, Licence | None]
"""Model -> its licence, None where it has no card, or one that says none."""


def stated_licences(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Licence | None]:
    """The licence of every model and adapter, as their cards have them.

    Args:
        checkpoints: reference -> model.
    """
    found = {}
    for label, checkpoint in checkpoints.items():
        names, directories = label.split("+"), checkpoint.directories
        if len(names) != len(directories):  # one that is merged of others
            names = [f"{label} ({directory.name})" for directory in directories]
        for name, directory in zip(names, directories, strict=True):
            found[name] = _licence(card_metadata(directory))
    return found


def _licence(metadata: Mapping[str, Any]) -> Licence | None:
    hub_id, name, link = (metadata.get(key) for key in ("license", "license_name", "license_link"))
    if not isinstance(hub_id, str):
        return None
    if hub_id != OTHER:
        return Licence(hub_id)
    # A link to a file beside that card leads nowhere from another one.
    is_elsewhere = isinstance(link, str) and link.startswith(("https://", "http://"))
    return Licence(hub_id, name if isinstance(name, str) else None, link if is_elsewhere else None)
