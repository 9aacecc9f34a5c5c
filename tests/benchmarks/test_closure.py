"""What a machine without a network is brought: the closure of requirements, and archives that hold it."""

from __future__ import annotations

import random
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.gpu.closure import Distribution, close, environment, read_have, unmet
from benchmarks.gpu.pack import read_archives, write_archives

MARKERS = environment("3.12")
INDEX = {
    "app 1.0": ["core>=2", "tool; python_version < '3.12'", "win; sys_platform == 'win32'", "net[fast]"],
    "core 2.0": ["shared<3"],
    "core 1.0": [],
    "net 1.0": ["speed; extra == 'fast'", "docs; extra == 'slow'"],
    "speed 1.0": ["shared>=2", "App"],
    "shared 3.0": [],
    "shared 2.5": ["leaf-of-2"],
    "leaf-of-2 1.0": [],
}


def wheel(
    folder: Path, name: str, version: str, requires: Iterable[str] = (), files: dict[str, bytes] | None = None
) -> Path:
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{stem}.dist-info/METADATA", "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)])
        )
        for file, content in (files or {}).items():
            archive.writestr(file, content)
    return path


@pytest.fixture
def fetch(tmp_path):
    """The newest that suits, as pip chooses."""

    def newest(needs: list[Requirement]) -> list[Distribution]:
        found = []
        for need in needs:
            versions = [Version(key.split()[1]) for key in INDEX if key.split()[0] == need.name]
            best = max(version for version in versions if version in need.specifier)
            requires = INDEX[f"{need.name} {best}"]
            found.append(Distribution.read(wheel(tmp_path, need.name, str(best), requires)))
        return found

    return newest


def names(packed: dict[str, Distribution]) -> set[str]:
    return {f"{one.name} {one.version}" for one in packed.values()}


def test_a_closure_follows_extras_and_the_markers_of_the_machine(fetch):
    packed = close([Requirement("app")], {}, fetch, MARKERS)
    # `shared` is asked for as <3 and as >=2, and a circle ends.
    assert names(packed) == {"app 1.0", "core 2.0", "net 1.0", "speed 1.0", "shared 2.5", "leaf-of-2 1.0"}
    assert not unmet([Requirement("app")], {}, packed, MARKERS)


def test_what_the_machine_has_is_not_brought_unless_its_version_does_not_suit(fetch):
    have = read_have("# pip freeze\nCore==1.0\nspeed\nshared==2.7\nnet @ file:///somewhere\n")
    assert have == {"core": Version("1.0"), "speed": None, "shared": Version("2.7"), "net": None}
    assert names(close([Requirement("app")], have, fetch, MARKERS)) == {"app 1.0", "core 2.0"}


def test_what_is_missing_is_named_with_who_needs_it(fetch):
    packed = close([Requirement("app")], {}, fetch, MARKERS)
    del packed["shared"]
    assert sorted(unmet([Requirement("app"), Requirement("other")], {"shared": Version("3.0")}, packed, MARKERS)) == [
        "core 2.0 needs shared<3, which neither has",
        "the project needs other, which neither has",
    ]


def test_a_wheel_that_is_not_what_was_asked_for_ends_it(fetch, tmp_path):
    with pytest.raises(ValueError, match="no wheel that suits: core>=2"):
        close([Requirement("core>=2")], {}, lambda _: [Distribution.read(wheel(tmp_path, "core", "1.0"))], MARKERS)


def test_archives_hold_what_runs_and_no_more_than_their_size(tmp_path, capsys):
    noise = [random.Random(seed).randbytes(3000) for seed in range(3)]
    files = {
        "one/a.py": b"x = 1",
        "one/tests/test_a.py": b"",
        "one/lib_cuda126.so": noise[0],
        "one/lib_rocm70.so": noise[0],
        "one/lib_cuda130.so": noise[1],
    }
    files |= {"one-1.0.data/scripts/one": b"", "one-1.0.data/purelib/one/b.py": b"y = 2"}
    files |= {"one/vendored/three-1.0.dist-info/METADATA": b"Name: three\nVersion: 1.0\nRequires-Dist: four"}
    small = wheel(tmp_path, "one", "1.0", files=files)
    large = wheel(tmp_path, "two", "1.0", ["one"], {"two/a.bin": noise[1], "two/b.bin": noise[2]})
    packed = [Distribution.read(small), Distribution.read(large)]
    archives = write_archives(packed, tmp_path / "packs", 4500, cuda="130")
    assert len(archives) > 1
    assert all(path.stat().st_size <= 4500 for path in archives)
    site = tmp_path / "site"
    for path in archives:
        with tarfile.open(path) as archive:
            # Python 3.11 has filters since its fourth release.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            archive.extractall(site)
    there = {
        str(path.relative_to(site)) for path in site.rglob("*") if path.is_file() and "dist-info" not in path.parts[-2]
    }
    assert there == {"one/a.py", "one/b.py", "one/lib_cuda130.so", "two/a.bin", "two/b.bin"}
    assert (site / "two/b.bin").read_bytes() == noise[2]
    assert names(read_archives(archives)) == {"one 1.0", "two 1.0"}
    assert "two" in capsys.readouterr().out
