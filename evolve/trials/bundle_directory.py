"""The directory that `evolve bundle` makes: a search with what it reads, and what it once found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Where a run reads, writes, computes and reports is a matter of the machine and its user; the addresses of a storage or
# a cluster and the options of a tracker may hold secrets, and others would report to the author's tracker.
_OF_THE_MACHINE = ("output", "storage", "task_search_path", "relative_to", "ray", "callbacks")


def portable(search: Mapping[str, Any]) -> dict[str, Any]:
    """A search without what is one machine's or one user's, as it may be given to others."""
    return {key: value for key, value in search.items() if key not in _OF_THE_MACHINE}


class BundleDirectory:
    """Names the files of a bundle.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.search = path / "search.yml"
        self.tasks = path / "tasks"  # files that the search reads: tasks, scorers, constraints, merge methods, data
        self.original = path / "original"  # results of the run that it was made from
        self.facts = path / "bundle.json"  # what that run's scores belong to

    def is_bundle(self) -> bool:
        """Whether one is here."""
        return self.facts.is_file() and self.search.is_file()

    def read_facts(self) -> dict[str, Any]:
        """Seed, versions and keys of the run that it was made from; empty where they cannot be read."""
        from merge_core.errors import MergeError  # brings torch, and commands look for a bundle first
        from merge_core.json_files import read_json

        try:
            return read_json(self.facts)
        except MergeError:
            return {}

    def depends_on(self) -> dict[str, str]:
        """What the scores of that run belong to: what it is -> its key. Of what is none of that, nothing."""
        found = self.read_facts().get("depends_on")
        return {str(what): str(key) for what, key in found.items()} if isinstance(found, dict) else {}
