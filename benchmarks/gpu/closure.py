"""What a machine lacks of a set of requirements: their closure over wheels, and a check that nothing is missing."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

Have = Mapping[str, Version | None]
"""Canonical name to version; None where a list gives no version, which then suits everyone."""


@dataclass(frozen=True)
class Distribution:
    """A wheel, by its metadata."""

    name: str
    version: Version
    requires: tuple[Requirement, ...]
    path: Path

    @classmethod
    def read(cls, wheel: Path) -> Distribution:
        """The distribution that a wheel holds.

        Raises:
            ValueError: the file has no metadata.
        """
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if is_metadata(name)]
            if not found:
                raise ValueError(f"{wheel.name}: no METADATA in it. It is no wheel")
            return cls.of(archive.read(found[0]), wheel)

    @classmethod
    def of(cls, text: bytes, path: Path) -> Distribution:
        """The distribution of a METADATA file; fields that are not asked for here may break their rules."""
        metadata = Metadata.from_email(text, validate=False)
        return cls(canonicalize_name(metadata.name), metadata.version, tuple(metadata.requires_dist or ()), path)


def is_metadata(path: str) -> bool:
    """Whether it is a distribution's own METADATA; deeper down lie those of what it vendors."""
    return path.count("/") == 1 and path.endswith(".dist-info/METADATA")


def environment(python: str, machine: str = "x86_64") -> dict[str, str]:
    """The values of markers on Linux.

    Args:
        python: version of CPython, "3.12" or "3.12.3".
        machine: as `uname -m` says.
    """
    version = Version(python)
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{version.major}.{version.minor}.{version.micro}",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{version.major}.{version.minor}.{version.micro}",
        "python_version": f"{version.major}.{version.minor}",
        "sys_platform": "linux",
    }


def read_have(text: str) -> dict[str, Version | None]:
    """What is installed, from `pip freeze`, `pip list`, or names alone.

    Args:
        text: a package a line: `name`, `name==version`, `name version`, or `name @ address`. Comments are skipped.
    """
    found: dict[str, Version | None] = {}
    for line in text.splitlines():
        words = line.split("#")[0].replace("==", " ").split()
        if not words or words[0].startswith("-") or words[0] == "Package":
            continue
        version = words[1] if len(words) > 1 and words[1] != "@" else None
        found[canonicalize_name(words[0])] = Version(version) if version else None
    return found


def wanted(
    requirements: Iterable[Requirement], packed: Mapping[str, Distribution], markers: Mapping[str, str]
) -> dict[str, Requirement]:
    """Everything asked for, by the requirements and by what is packed of their closure; one requirement a name.

    Args:
        requirements: where it begins.
        packed: distributions so far. What none of them is is asked for and leads nowhere further.
        markers: of `environment`.
    """
    found: dict[str, Requirement] = {}
    queue = [need for need in requirements if _applies(need, (), markers)]
    for need in queue:  # grows
        name = canonicalize_name(need.name)
        known = found.get(name)
        if known is None:
            merged = Requirement(name)
        elif need.extras <= known.extras and set(need.specifier) <= set(known.specifier):
            continue
        else:
            merged = Requirement(str(known))
        merged.extras |= need.extras
        merged.specifier &= need.specifier
        found[name] = merged
        if name in packed:
            queue += [other for other in packed[name].requires if _applies(other, merged.extras, markers)]
    return found


def _applies(need: Requirement, extras: Iterable[str], markers: Mapping[str, str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({**markers, "extra": extra}) for extra in ("", *extras))


def _is_met(need: Requirement, have: Have, packed: Mapping[str, Distribution]) -> bool:
    """Whether what would be imported suits; what is packed comes before what the machine has."""
    name = canonicalize_name(need.name)
    if name not in packed and name not in have:
        return False
    version = packed[name].version if name in packed else have[name]
    return version is None or need.specifier.contains(version, prereleases=True)


def close(
    requirements: Sequence[Requirement],
    have: Have,
    fetch: Callable[[list[Requirement]], Iterable[Distribution]],
    markers: Mapping[str, str],
) -> dict[str, Distribution]:
    """The distributions that a machine must be brought, by canonical name, in the order of asking.

    Args:
        requirements: what is to run there.
        have: what the machine has. Its own requirements are its own affair.
        fetch: wheels for requirements, one of each.
        markers: of `environment`.

    Raises:
        ValueError: a wheel fetched is not what was asked for, so that it would be asked for again.
    """
    packed: dict[str, Distribution] = {}
    while True:
        needs = wanted(requirements, packed, markers)
        missing = [need for need in needs.values() if not _is_met(need, have, packed)]
        if not missing:
            return {name: packed[name] for name in needs if name in packed}
        packed |= {distribution.name: distribution for distribution in fetch(missing)}
        wrong = [str(need) for need in missing if not _is_met(need, have, packed)]
        if wrong:
            raise ValueError(f"no wheel that suits: {', '.join(wrong)}")


def unmet(
    requirements: Iterable[Requirement], have: Have, packed: Mapping[str, Distribution], markers: Mapping[str, str]
) -> list[str]:
    """What neither the packs nor the machine have, a line for each; none where all is there."""
    needs = wanted(requirements, packed, markers)
    asked = [("the project", need) for need in requirements if _applies(need, (), markers)]
    for name, distribution in packed.items():
        extras = needs[name].extras if name in needs else ()
        asked += [
            (f"{name} {distribution.version}", need)
            for need in distribution.requires
            if _applies(need, extras, markers)
        ]
    return [f"{who} needs {need}, which neither has" for who, need in asked if not _is_met(need, have, packed)]
