"""The output directory of one run: who may write there, what it was made from, and the files in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from evolve.problems import ConfigError, Problem
from evolve.trials.journal import FILE_NAME

_DISK_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# Settings that change neither which trials are made nor what they score; they may differ from run to run.
_FREE = ("budget", "workers", "ray", "output", "allow_benchmark_test")


class RunDirectory:
    """Names the files, and makes sure that one process writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / FILE_NAME
        self.recipe = path / "best_recipe.yml"
        self.model = path / "model"
        self.card = path / "README.md"
        self.trials = path / "trials.csv"
        self.search = path / "search.yml"
        self.pareto = path / "pareto"  # a recipe for every member of the front of a Pareto search
        self.items = path / "items.json"  # task -> ids of its search and held-out items
        self.summary = path / "run.json"
        self.statistics_cache = path / ".statistics_cache"  # shared by the workers, until the run is finished

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process; the lock goes with the process, however it ends.

        Raises:
            ConfigError: another run is using the directory, or it cannot be written, now or later: its disk is full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("w")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be used as output: {error.strerror}") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{self.path}: another run is using this directory; wait for it, or choose another --output"
                ) from None
            try:
                yield
            except OSError as error:
                if error.errno not in _DISK_TROUBLES:
                    raise
                problem = f"{self.path}: cannot be written: {error.strerror}. What was recorded before is kept; "
                raise ConfigError(problem + "free some space and run it again, or choose another --output") from error

    def in_use(self) -> bool:
        """Whether a process holds the directory at this moment."""
        try:
            with (self.path / ".lock").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def read_summary(self) -> dict[str, Any]:
        """What the run left about itself; empty when it has not ended yet."""
        try:
            return dict(json.loads(self.summary.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def dump_yaml(data: Any) -> str:
    """YAML as people write it: keys in order, short lists on one line."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> None:
    """A run is continued with the configuration it was begun with; only its budget may grow.

    Raises:
        ConfigError: one line per difference.
    """
    problems = []
    for place, before, after in _differences(old, new):
        if place.split(".")[0] not in _FREE:
            message = f"this run was begun with {_shown(before)}, the file now says {_shown(after)}"
            problems.append(Problem((place,), message, name))
    for bound in ("evaluations", "items", "minutes", "plateau", "target"):
        before, after = (settings.get("budget", {}).get(bound) for settings in (old, new))
        if before is not None and after is not None and after < before:
            message = f"was {before}, is {after}; a budget can only be raised"
            problems.append(Problem(("budget", bound), message, name))
    if problems:
        raise ConfigError(*problems, "Put the old values back, or start a new run with another --output")


_ABSENT = object()


def _differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{place}[{index}]")
    elif old != new:
        yield place, old, new


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)
