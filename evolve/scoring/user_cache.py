"""What is kept between runs for this user, and can be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Ours among the user's caches; made by who writes there.

    Raises:
        RuntimeError: the user has no home, as in a container that runs under a bare number, and nothing names a cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evolve-merge"
