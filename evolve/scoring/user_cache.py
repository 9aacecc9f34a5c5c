"""What is kept between runs for this user, and can be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Ours among the user's caches; made by who writes there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evolve-merge"
