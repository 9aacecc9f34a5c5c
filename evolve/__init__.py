"""Find the best merge of several language models: `evolve.search`, and `evolve.merge`, `score`, `inspect` beside it.

Importing this package imports nothing else; what a name stands for is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolve.api.genes import choice, gene
    from evolve.api.models import inspect, merge, score
    from evolve.api.search import load, search
    from evolve.api.search_result import Best, SearchResult
    from evolve.trackers.callback import Callback

_HOMES = {
    "Best": "api.search_result",
    "Callback": "trackers.callback",
    "SearchResult": "api.search_result",
    "choice": "api.genes",
    "gene": "api.genes",
    "inspect": "api.models",
    "load": "api.search",
    "merge": "api.models",
    "score": "api.models",
    "search": "api.search",
}

__all__ = ["Best", "Callback", "SearchResult", "choice", "gene", "inspect", "load", "merge", "score", "search"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evolve' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"evolve.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
