"""What differs between the settings of two runs, and what of it a run may be continued with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from evolve.problems import ConfigError, Problem

# Settings that change neither which trials are made nor what they score; they may differ from run to run. Of what is
# found along a path the content counts, wherever it is.
_FREE = (
    "budget",
    "workers",
    "ray",
    "output",
    "simplify",
    "allow_benchmark_test",
    "callbacks",
    "relative_to",
    "task_search_path",
)


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> None:
    """A run is continued with the configuration it was begun with; only its budget may grow.

    Raises:
        ConfigError: one line per difference.
    """
    problems = []
    for place, before, after in setting_changes(old, new):
        if place.split(".")[0] not in _FREE:
            message = f"this run was begun with {shown_setting(before)}, the file now says {shown_setting(after)}"
            problems.append(Problem((place,), message, name))
    for bound in ("evaluations", "items", "minutes", "plateau", "target"):
        before, after = (settings.get("budget", {}).get(bound) for settings in (old, new))
        if before is not None and after is not None and after < before:
            message = f"was {before}, is {after}; a budget can only be raised"
            problems.append(Problem(("budget", bound), message, name))
    if problems:
        raise ConfigError(*problems, "Put the old values back, or start a new run with another --output")


_ABSENT = object()


def setting_changes(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted place, what was there and what is, of all that differs between two configurations."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{place}.{key}" if place else str(key)
            yield from setting_changes(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from setting_changes(before, after, f"{place}[{index}]")
    elif old != new:
        yield place, old, new


def shown_setting(value: Any) -> str:
    """For people."""
    return "nothing" if value is _ABSENT else json.dumps(value, default=str)
