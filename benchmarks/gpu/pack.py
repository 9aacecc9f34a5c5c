"""Brings what `evolve run` needs to a machine without a network: wheels that it lacks, cut and packed.

    python benchmarks/gpu/pack.py --have FREEZE.txt --python 3.12 [--extra 4bit --cuda 130] [--leave-out ray]

FREEZE.txt is the machine's `pip freeze`, or a list of names; one without a version is taken to suit everyone. The
closure is that of pyproject.toml's dependencies, of what the tests of kernels need, and of the extras asked for; pip
downloads. What never runs there is cut: tests, sources, Ray's other libraries, builds for other versions of CUDA.
`run.sh` unpacks what is in build/gpu_packs. At the end the archives are read again, and everything in them must be met.
"""

from __future__ import annotations

import argparse
import fnmatch
import lzma
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from benchmarks.gpu.closure import Distribution, close, environment, is_metadata, read_have, unmet

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")  # of the extra `dev`
SLOW = "chardet<6"  # 6.0 takes a second to import, and `import requests` does so
UNUSED = (
    *("tests/*", "*/tests/*", "*/test/*", "*/benchmarks/*"),
    *("*.pyi", "*.pyx", "*.pxd", "*.c", "*.cpp", "*.h", "*.hpp", "*.map", "*.js.LICENSE.txt"),
    *(
        f"ray/{name}/*"
        for name in ("jars", "cpp", "data", "llm", "rllib", "serve", "train", "tune", "dashboard/client")
    ),
    *("plotly/package_data/widgetbundle.js", "plotly/labextension/*"),
)
BUILD = re.compile(r"_(cuda|rocm|xpu)\d+\.so$")  # of a library for one version of one make of card
GLIBC = 28  # the oldest 2.x on which wheels must run
KEPT_SCHEMES = ("purelib", "platlib")  # of a wheel's `.data`; scripts, headers and shared data are not imported
MEBIBYTE = 1 << 20
File = tuple[str, bytes, int]
"""Path, content and mode."""


def main() -> None:
    """Prints a line for each archive; exits with 1 when something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--have", type=Path, required=True, help="the machine's pip freeze, or a list of names")
    parser.add_argument("--python", default="3.12", help="its version of Python")
    parser.add_argument("--machine", default="x86_64")
    parser.add_argument("--cuda", help="keep builds for this version alone, as 130")
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml, as 4bit or vllm")
    parser.add_argument("--leave-out", action="append", default=[], help="a package that is not to be brought")
    parser.add_argument("--constraint", type=Path, default=ROOT / "constraints.txt", help="versions, as pip takes them")
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "gpu_packs")
    parser.add_argument("--part-mib", type=float, default=60.0, help="the largest archive")
    options = parser.parse_args()
    requirements = project_requirements(options.extra)
    markers = environment(options.python, options.machine)
    have = read_have(options.have.read_text()) | dict.fromkeys(map(canonicalize_name, options.leave_out))
    silent = sum(version is None for version in have.values())
    print(f"{len(have)} packages are there or left out; {silent} have no version in the list, and are taken to suit")
    with tempfile.TemporaryDirectory() as name:

        def fetch(needs: list[Requirement]) -> Iterable[Distribution]:
            return download(needs, Path(name), options.python, options.machine, options.constraint)

        try:
            packed = close(requirements, have, fetch, markers)
        except ValueError as error:
            sys.exit(f"pack.py: {error}")
        archives = write_archives(packed.values(), options.into, round(options.part_mib * MEBIBYTE), options.cuda)
    found = read_archives(archives)
    missing = [f"{name} was packed and is in no archive" for name in packed if name not in found]
    missing += unmet(requirements, have, found, markers)
    print(f"{len(found)} packages, {sum(path.stat().st_size for path in archives) / MEBIBYTE:.1f} MiB; ", end="")
    print("\n".join(["missing:", *missing]) if missing else "everything they need is among them or there")
    sys.exit(bool(missing))


def project_requirements(extras: Sequence[str]) -> list[Requirement]:
    """Dependencies, the tests' and those of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        sys.exit(f"pack.py: --extra {unknown[0]}: there is none of that name. There are: {', '.join(optional)}")
    tests = [text for text in optional["dev"] if Requirement(text).name in TESTS]
    chosen = [text for extra in extras for text in optional[extra]]
    return [Requirement(text) for text in (*project["dependencies"], *tests, *chosen)]


def download(
    needs: Sequence[Requirement], folder: Path, python: str, machine: str, constraint: Path
) -> list[Distribution]:
    """One wheel of each, by pip; a source distribution of pure Python is built into one."""
    versions = ".".join(python.split(".")[:2])
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    platforms += [f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")]
    (folder / "slow.txt").write_text(SLOW)
    pip = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        command = [*pip, "download", "--no-deps", "--prefer-binary", "--dest", fresh, "--python-version", versions]
        command += ["--constraint", str(constraint), "--constraint", str(folder / "slow.txt")]
        command += [word for platform in platforms for word in ("--platform", platform)]
        subprocess.run([*command, *map(str, needs)], check=True)
        for source in [path for path in Path(fresh).iterdir() if path.suffix != ".whl"]:
            subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", fresh, str(source)], check=True)
            source.unlink()
        wheels = [path.rename(folder / path.name) for path in Path(fresh).iterdir()]
    for wheel in wheels:
        *_, tags = parse_wheel_filename(wheel.name)
        if not any(tag.platform in ("any", *platforms) for tag in tags):
            sys.exit(
                f"pack.py: {wheel.name}: built here, and not for every machine. Leave it out, or bring it otherwise"
            )
    return [Distribution.read(wheel) for wheel in wheels]


def files_of(wheel: Path, cuda: str | None) -> Iterator[File]:
    """What a wheel installs, without what never runs."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = info.filename
            first, *rest = path.split("/")
            if first.endswith(".data"):
                if rest[0] not in KEPT_SCHEMES:
                    continue
                path = "/".join(rest[1:])
            if info.is_dir() or any(fnmatch.fnmatchcase(path, pattern) for pattern in UNUSED):
                continue
            if cuda and BUILD.search(path) and not path.endswith(f"_cuda{cuda}.so"):
                continue
            yield path, archive.read(info), 0o755 if info.external_attr >> 16 & 0o111 else 0o644


def write_archives(distributions: Iterable[Distribution], folder: Path, limit: int, cuda: str | None) -> list[Path]:
    """Packs, each of whole distributions where they fit; archives of an earlier call are deleted.

    An .xz file may be several streams one after the other, and so is a tar: each distribution is compressed alone, and
    the size of an archive is known before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("pack-*.tar.xz"):
        old.unlink()
    end = lzma.compress(bytes(2 * tarfile.BLOCKSIZE))
    parts: list[tuple[list[bytes], list[str]]] = []
    for name, piece in pieces(list(distributions), limit - len(end), cuda):
        fitting = (part for part in parts if sum(map(len, part[0])) + len(piece) + len(end) <= limit)
        part = next(fitting, None)
        if part is None:
            parts.append(part := ([], []))
        part[0].append(piece)
        part[1].append(name)
    paths = []
    for number, (streams, names) in enumerate(parts, 1):
        paths.append(folder / f"pack-{number:02}.tar.xz")
        paths[-1].write_bytes(b"".join([*streams, end]))
        print(f"{paths[-1].name}  {paths[-1].stat().st_size / MEBIBYTE:.1f} MiB: {', '.join(dict.fromkeys(names))}")
    return paths


def pieces(distributions: Sequence[Distribution], limit: int, cuda: str | None) -> Iterator[tuple[str, bytes]]:
    """Name and compressed files of each; of one that is larger than an archive, every file alone."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        whole = pool.map(lambda one: compress(list(files_of(one.path, cuda))), distributions)
        for distribution, stream in zip(distributions, whole, strict=True):
            if len(stream) <= limit:
                yield distribution.name, stream
                continue
            for piece in pool.map(lambda file: compress([file]), files_of(distribution.path, cuda)):
                if len(piece) > limit:
                    size = len(piece) / MEBIBYTE
                    sys.exit(f"pack.py: a file of {distribution.name} takes {size:.0f} MiB: raise --part-mib")
                yield distribution.name, piece


def compress(files: Sequence[File]) -> bytes:
    """The files as members of a tar that goes on."""
    members = []
    for path, content, mode in files:
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(content), mode
        members += [info.tobuf(tarfile.PAX_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE)]
    return lzma.compress(b"".join(members))


def read_archives(paths: Iterable[Path]) -> dict[str, Distribution]:
    """What the archives hold, by the metadata in them."""
    found = {}
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                if is_metadata(member.name):
                    content = archive.extractfile(member)
                    if content is not None:
                        distribution = Distribution.of(content.read(), path)
                        found[distribution.name] = distribution
    return found


if __name__ == "__main__":
    main()
