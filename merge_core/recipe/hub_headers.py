"""Models of the hub as far as configs, tokenizers and headers of weights, for who will not read a weight.

A file of weights is stood for by one of its size that holds its header alone, the rest a hole that takes no disk.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000  # the format's own bound


@dataclass
class HubHeaders:
    """What was looked at.

    Attributes:
        root: where the stand-ins are.
        missing_bytes: model -> bytes of its weights that are on the hub and not here.
    """

    root: Path
    missing_bytes: dict[str, int] = field(default_factory=dict)

    def directory(
        self, name: str, revision: str | None, weights: Sequence[Sequence[str]], snapshot: Path
    ) -> Path | None:
        """A directory that opens like the model's own; None where the hub has no weights that have headers.

        Args:
            name: on the hub.
            revision: of it.
            weights: patterns of the files of weights; the first that there are files of are those of the model.
            snapshot: what is here of the model, its other files in any case.
        """
        from huggingface_hub import HfFileSystem

        hub: Any = HfFileSystem()
        place = f"{name}@{revision}" if revision else name
        target = self.root / hashlib.sha256(place.encode()).hexdigest()[:16]
        if target.is_dir():
            return target
        try:
            files = [entry for entry in hub.ls(place, detail=True) if entry["type"] == "file"]
        except OSError:  # no network
            if any(snapshot.glob("*.safetensors")):
                return snapshot
            raise
        choices = ([entry for entry in files if _matches(entry, patterns)] for patterns in weights)
        found = next((chosen for chosen in choices if chosen), None)
        if found is None:
            return None
        target.mkdir()
        for other in snapshot.iterdir():
            (target / other.name).symlink_to(other.resolve())
        for entry in found:
            if not (target / _file_name(entry)).exists():
                _stand_in(hub, entry, target / _file_name(entry))
                self.missing_bytes[place] = self.missing_bytes.get(place, 0) + int(entry["size"])
        return target


_ACTIVE: ContextVar[HubHeaders | None] = ContextVar("hub_headers", default=None)


@contextmanager
def headers_only() -> Iterator[HubHeaders]:
    """Let models of the hub be opened by their headers alone, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="evolve-headers-") as root:
        headers = HubHeaders(Path(root))
        token = _ACTIVE.set(headers)
        try:
            yield headers
        finally:
            _ACTIVE.reset(token)


def active_headers() -> HubHeaders | None:
    """The block that this is called in; None outside of any."""
    return _ACTIVE.get()


def _matches(entry: dict[str, Any], patterns: Sequence[str]) -> bool:
    return any(fnmatch(_file_name(entry), pattern) for pattern in patterns)


def _file_name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rpartition("/")[2]


def _stand_in(hub: Any, entry: dict[str, Any], target: Path) -> None:
    with hub.open(entry["name"], "rb", block_size=1 << 20) as remote, target.open("wb") as local:
        start = remote.read(_LENGTH_BYTES)
        length = min(int.from_bytes(start, "little"), _MOST_HEADER_BYTES, int(entry["size"]))
        local.write(start + remote.read(length))
        local.truncate(int(entry["size"]))
