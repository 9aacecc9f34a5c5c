"""`evolve run --from`: the search of an earlier run again, with some settings changed, in a directory of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.problems import ConfigError
from evolve.trials.run_directory import RunDirectory
from evolve.trials.setting_changes import setting_changes, shown_setting

# Where the earlier run wrote; the next one writes elsewhere.
_PLACES = ("output", "storage")


@dataclass(frozen=True)
class NextRun:
    """A run that is begun from another one's search.

    Attributes:
        search: the earlier run's copy of its search.yml.
        overrides: settings put in, by dotted path.
        output: the new run's directory.
        changes: what differs from the earlier run, a line each.
    """

    search: Path
    overrides: Mapping[str, Any]
    output: Path
    changes: tuple[str, ...]


def next_run(earlier: Path, overrides: Mapping[str, Any], output: Path | None) -> NextRun:
    """What `--from` stands for.

    Args:
        earlier: directory of a run, finished or not.
        overrides: settings that change, by dotted path.
        output: directory of the new run; by default the earlier one's name with the next number that is free.

    Raises:
        ConfigError: no run is there, its search cannot be read, or the new run would go where it is.
    """
    search = RunDirectory(earlier).search
    if not search.is_file():
        inside = sorted(str(found.parent) for found in earlier.glob("*/search.yml"))
        fix = f"Runs in it: {', '.join(inside[:5])}" if inside else "Give the --output of a run"
        raise ConfigError(f"{earlier}: holds no run: search.yml is missing. {fix}")
    if output is not None and output.resolve() == earlier.resolve():
        raise ConfigError(
            f"{output}: is the run that is taken up. Go on with it by evolve run {earlier}, or name another --output"
        )
    from evolve.config.yaml_document import read_document  # brings the merge engine

    before, after = read_document(search, {}).content, read_document(search, overrides).content
    # The copy says where that run wrote; settings of this command line say otherwise where they do.
    moved = {key: None for key in _PLACES if key in before and key not in overrides}
    changes = tuple(
        f"{place}: {shown_setting(old)} → {shown_setting(new)}" for place, old, new in setting_changes(before, after)
    )
    return NextRun(search, {**overrides, **moved}, output or _free(earlier), changes)


def _free(earlier: Path) -> Path:
    names = (earlier.with_name(f"{earlier.resolve().name}-{number}") for number in itertools.count(2))
    return next(path for path in names if not path.exists())
