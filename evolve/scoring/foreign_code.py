"""Code that is not ours, run so that it can neither end the process nor leave it another than it was.

A scorer is the user's own, or a library's that it calls: it may call `sys.exit`, never return, fork, close descriptors,
or leave another working directory behind. That is a fact about what it was given to score, or of no consequence, and
never about the search that called it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from evolve.scoring.process_state import process_restored


class EscapeError(RuntimeError):
    """Foreign code raised what would have ended the process: SystemExit, KeyboardInterrupt, or anything like them."""


class TookTooLongError(RuntimeError):
    """Foreign code did not come back within its time."""


class _TimeIsUp(BaseException):
    """No `Exception`, so that code which catches all of these does not go on after it."""


@contextlib.contextmanager
def contained(seconds: float | None = None) -> Iterator[None]:
    """Run foreign code as `without_escape` does; and what it changed of the process is as before.

    Args:
        seconds: after which it is interrupted, in the main thread, once it runs Python or waits; None: never.

    Raises:
        EscapeError: it raised something that is no `Exception`.
        TookTooLongError: it did not come back in time.
    """
    with without_escape(), process_restored():
        try:
            with _alarm(seconds):
                yield
        except _TimeIsUp:
            raise TookTooLongError(
                f"not finished after {seconds:g} seconds; workers.time_limit sets how long it may take"
            ) from None


@contextlib.contextmanager
def without_escape() -> Iterator[None]:
    """Run foreign code that raises an `Exception` at most.

    A real Ctrl-C passes, where a signal can raise it, and so does what our own handlers raise, a kind of it. A child
    that the code forked ends where the code does: what comes next is its parent's to do.

    Raises:
        EscapeError: it raised something that is no `Exception`.
    """
    process = os.getpid()
    try:
        yield
    except _TimeIsUp:
        raise
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and (
            type(error) is not KeyboardInterrupt or signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            raise
        raise EscapeError(_described(error)) from error
    finally:
        if os.getpid() != process:
            os._exit(1)  # files and buffers are the parent's to write


def _described(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {error!r} ({Path(frame.filename).name}:{frame.lineno})"


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    if seconds is None or threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
