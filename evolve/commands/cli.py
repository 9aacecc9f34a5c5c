"""The program: its commands, and errors at the door. Nothing else."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import pkgutil
import sys
import threading
import time
import warnings
from typing import Annotated, NoReturn

import typer

from evolve import commands
from evolve.commands.registry import COMMANDS, FAILED, INTERRUPTED, USER_ERROR, InterruptedCommandError
from evolve.library_noise import quiet_libraries
from evolve.plugins import load_plugins
from evolve.problems import error_lines, is_ours, printable
from evolve.standard_streams import flush_or_forget, open_missing
from evolve.stopping import stopping_interrupts
from evolve.waiting_threads import choose_waiting

_STREAM_TROUBLES = (errno.EBADF, errno.EIO, errno.ENOSPC)

# What a path can be that no program can use: too long, links in a circle, through a file, where nobody may write, on a
# disk that fails.
_PATH_TROUBLES = (
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE),
)
_NO_MEMORY = "can't allocate memory"  # torch says of the CPU's
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

THREADS_SECONDS = 10.0  # that threads have to end, once the command has


def make_app() -> typer.Typer:
    """The command line, with every command that is registered."""
    load_plugins()
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"{commands.__name__}.{module.name}")
    app = typer.Typer(
        name="evolve",
        help="Find the best merge of several language models: evolutionary search over weights, densities and layers.",
        epilog="Exit codes: 0 done, 1 something failed, 2 a mistake in a file, a model or the command line, 130 "
        "interrupted. Errors are lines on stderr; results go to stdout.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name, epilog=command.epilog)(command.function)
    return app


def program() -> None:
    """Run the command that was typed, and end with it, whatever threads a scorer has left behind."""
    code: object = FAILED
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
        raise
    finally:
        # Python waits without end for threads that are no daemons.
        last = code if isinstance(code, int) else FAILED
        threading.Thread(target=_end_anyway, args=(last,), daemon=True).start()


def _end_anyway(code: int) -> None:
    time.sleep(THREADS_SECONDS)
    os._exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. A user's mistake is its message alone, and exit code 2; one who stops it gets a line, and 130."""
    open_missing()
    quiet_libraries()
    choose_waiting()
    warnings.simplefilter("ignore")
    try:
        with stopping_interrupts():
            make_app()(args=arguments, prog_name="evolve")
    except (InterruptedCommandError, KeyboardInterrupt):
        typer.echo("Stopped. Nothing is left half done; the same command begins again, or goes on.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _STREAM_TROUBLES:
            sys.exit(FAILED)  # what stdout leads to takes nothing more, which its reader knows
        _refuse_path(error)
        _refuse_locale(error)
        if not is_ours(error):
            raise
        for line in error_lines(error):
            typer.echo(f"error: {line}", err=True)
        sys.exit(USER_ERROR)
    except MemoryError as error:
        _end_without_memory(error)
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error):
            _end_without_memory(error)
        _refuse_path(error.__context__)  # by which pathlib says that links go in a circle
        if not is_ours(error):
            raise
        for line in error_lines(error):
            typer.echo(f"error: {line}", err=True)
        sys.exit(FAILED)
    finally:
        flush_or_forget()


def _refuse_path(error: BaseException | None) -> None:
    """End with one line if the file system refused a path, which is no bug of ours."""
    if isinstance(error, OSError) and error.filename is not None and error.errno in (*_PATH_TROUBLES, *_NO_ROOM):
        fix = "Free some space, or name another path" if error.errno in _NO_ROOM else "Name another path"
        typer.echo(f"error: {printable(str(error.filename))}: {error.strerror}. {fix}", err=True)
        sys.exit(USER_ERROR)


def _end_without_memory(error: BaseException) -> NoReturn:
    """End with one line: a machine that is too small is no bug of ours."""
    said = str(error).strip().split("\n")[0].rstrip(".")
    place = f": {printable(said)}" if said else ""
    typer.echo(f"error: out of memory{place}. Close other programs, or use a machine with more", err=True)
    sys.exit(FAILED)


def _refuse_locale(error: BaseException) -> None:
    """End with one line if the locale has no name for a file, as LC_ALL=C has none for one with an umlaut."""
    encoding = sys.getfilesystemencoding()
    if isinstance(error, UnicodeEncodeError) and encoding != "utf-8":
        missing = ascii(error.object[error.start : error.end])
        typer.echo(
            f"error: names of files are {encoding} in this locale, which has no {missing}. Set PYTHONUTF8=1", err=True
        )
        sys.exit(USER_ERROR)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"evolve {importlib.metadata.version('evolve-merge')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    program()
