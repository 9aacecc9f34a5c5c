"""The commands of `evolve`, to which every file of this package adds its own, and anyone else's in the same way."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

# Exit codes.
FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Command:
    """A function whose parameters, read by typer, are the command's arguments and options.

    Attributes:
        function: its docstring is the help text.
        epilog: what the help text ends with.
    """

    function: Callable[..., Any]
    epilog: str | None = None


COMMANDS: dict[str, Command] = {}
"""Name on the command line → what it does."""


def register(name: str, epilog: str | None = None) -> Callable[[Function], Function]:
    """Decorate the function of a command.

    Its module is imported at every start: what takes long to import is imported in the function.

    Args:
        name: as on the command line.
        epilog: what the help text ends with.

    Raises:
        ValueError: a command of that name is there already.
    """

    def add(function: Function) -> Function:
        if name in COMMANDS:
            raise ValueError(f"a command {name!r} is registered already. Choose another name")
        COMMANDS[name] = Command(_staying(function), epilog)
        return function

    return add


class EndedError(RuntimeError):
    """Something that a command called wanted to end the program, and not with a result."""


class InterruptedCommandError(Exception):
    """A command was stopped from outside, of which typer would make an exit code without a word."""


def _staying(function: Callable[..., Any]) -> Callable[..., Any]:
    """No command exits by itself, so that what does is a module of the user's or a library: an error, no success."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except SystemExit as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise EndedError(f"{frame.filename}:{frame.lineno} called for the program to end ({error!r})") from error
        except KeyboardInterrupt as error:
            raise InterruptedCommandError from error

    return call
