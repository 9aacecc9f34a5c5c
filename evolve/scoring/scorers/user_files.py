"""Where the files that a configuration names are looked for, and the library of tasks that ship."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evolve.scoring.errors import TaskError


def task_library() -> Path:
    """The directory of the tasks that ship: `tasks/` of a checkout, or what an installation has in its place."""
    installed = Path(__file__).resolve().parents[1] / "task_library"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "tasks"


@dataclass(frozen=True, slots=True)
class SearchPaths:
    """Beside the file that names them, in its search paths, in the working directory, at last among what ships.

    Attributes:
        directory: Of the file that names them.
        search_paths: The user's own directories.
    """

    directory: Path = Path()
    search_paths: tuple[Path, ...] = ()

    def directories(self) -> tuple[Path, ...]:
        """All places, in order, each once."""
        return tuple(
            dict.fromkeys(path.resolve() for path in (self.directory, *self.search_paths, Path(), task_library()))
        )

    def files(self, pattern: str) -> list[Path]:
        """The files that a name or a glob pattern stands for, sorted, from the first place that has any.

        Args:
            pattern: A path, or a pattern with `*`, `?`, `[...]` or `**`.

        Raises:
            TaskError: There are none.
        """
        for directory in self.directories():
            found = sorted(set(_expanded(directory, pattern)))
            if found:
                return found
        looked = ", ".join(map(str, self.directories()))
        raise TaskError(f"no file {pattern!r}. Looked in {looked}.")

    def file(self, name: str) -> Path:
        """The one file of a name.

        Raises:
            TaskError: There is none.
        """
        return self.files(glob.escape(name))[0]


def _expanded(directory: Path, pattern: str) -> Iterator[Path]:
    # An absolute pattern replaces the directory.
    for name in glob.iglob(pattern, root_dir=directory, recursive=True):
        if (directory / name).is_file():
            yield directory / name


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, line ends as they are.

    Raises:
        TaskError: It cannot be read, is no UTF-8, or is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise TaskError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it, for "
            f"example with iconv -f latin1 -t utf-8."
        ) from error
    if not text.strip():
        raise TaskError(f"{path.name} is empty")
    return text
