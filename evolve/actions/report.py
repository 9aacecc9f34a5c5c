"""`evolve report` from the directories of runs to their pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from evolve.actions.status import read_run
from evolve.problems import ConfigError, error_lines
from evolve.report.named_file import PAGE, PICTURE, write_named
from evolve.report.pictures.page import report_page, write_report
from evolve.trials.run_directory import RunDirectory


def write_pictures(path: Path, directory: Path) -> list[Path]:
    """Write the pictures of a run as PNG files, one for each that has something to show.

    Args:
        path: directory of the run.
        directory: where to; made where there is none.

    Raises:
        ConfigError: the directory holds no run, or matplotlib is not installed; or another file is in the way.
    """
    from evolve.report.pictures.drawn import all_pictures
    from evolve.report.pictures.still import png

    run, written = read_run(path), []
    directory.mkdir(parents=True, exist_ok=True)
    for name, picture in all_pictures().items():
        file = directory / f"{name}.png"
        with _shown(path):
            figure = picture.draw(run)
            drawing = None if figure is None else png(figure, picture.title)
        if drawing is not None:
            write_named(file, drawing, PICTURE)
            written.append(file)
    return written


def report_runs(paths: Sequence[Path], output: Path | None) -> Path:
    """Write the report of a run, or of several side by side.

    Args:
        paths: directories of runs.
        output: the file; by default report.html of the one run.

    Returns:
        Where it was written.

    Raises:
        ConfigError: a directory holds no run; its report was changed; several runs, and no file is named; or what is
            there is another run's report, or none.
    """
    runs = [read_run(path) for path in paths]
    if output is None and len(runs) > 1:
        raise ConfigError("--output: name the file for a report of several runs. Example: --output compared.html")
    output = output or RunDirectory(paths[0]).report
    home = RunDirectory(output.parent)
    if output == home.report and home.holds_run():
        if [path.resolve() for path in paths] != [home.path.resolve()]:
            raise ConfigError(f"{output}: is the report of the run there. Name another file")
        with _shown(*paths):
            return write_report(home, runs[0])
    with _shown(*paths):
        page = report_page(runs)
    write_named(output, page, PAGE)
    return output


@contextlib.contextmanager
def _shown(*paths: Path) -> Iterator[None]:
    """Whatever a picture raises is one line: anyone may have added it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        yield
    except (ConfigError, OSError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error_lines(error)[0]}"
        names = ", ".join(map(str, paths))
        raise ConfigError(
            f"{names}: the report cannot be made: {reason}. Where a package adds a picture, mend or remove it"
        ) from error
