"""Being stopped from outside: softly when asked for the first time, at once for the second."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Ctrl-C, a process manager, a terminal that hung up (an ssh connection that was lost).
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_FINALIZER_SECONDS = 0.1


class SignalledError(KeyboardInterrupt):
    """A signal asks the program to end: no plain KeyboardInterrupt, which code that is contained may raise itself."""


class StoppedAtOnceError(SignalledError):
    """Asked for a second time: what is at work is given up."""


@contextmanager
def stopping_interrupts() -> Iterator[None]:
    """Whoever asks a program to end interrupts it as Ctrl-C does, so that it cleans up what it has begun.

    A signal that the process was started to ignore, or that somebody handles, is left alone.
    """

    def heard(_number: int, _frame: object) -> None:
        raise SignalledError

    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def starting_undisturbed() -> Iterator[None]:
    """A process that is started here is not ended by a Ctrl-C before it has called `leave_stopping_to_parent`.

    Nor is its start cut short: what is heard meanwhile, by whichever thread, is heard again afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard: list[int] = []
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, lambda number, _frame: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # which a child inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(heard):
            signal.raise_signal(number)


def leave_stopping_to_parent() -> None:
    """In a process of its own: what a terminal tells all of its processes is for the one that started this one."""
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: None)  # not ignored, which programs that it starts would inherit
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def soft_stop(stop: threading.Event, asked: Callable[[], None]) -> Iterator[None]:
    """The first signal sets a flag, the second raises `StoppedAtOnceError`, the third is the ordinary one.

    A signal that the process was started to ignore, as by `nohup`, stays ignored. A second one that comes while an
    object is being finalized, which no exception gets out of, is heard again when that is over.

    Args:
        stop: the flag.
        asked: called when it was set.
    """
    previous: dict[int, Any] = {}
    again: list[threading.Timer] = []
    report = sys.unraisablehook

    def heard(number: int, _frame: object) -> None:
        if stop.is_set():
            for other, handler in previous.items():
                signal.signal(other, handler)
            raise StoppedAtOnceError(number)
        stop.set()
        with suppress(RuntimeError):  # from a stream that was being written to when the signal came
            asked()

    def not_raised(what: Any) -> None:
        if not isinstance(what.exc_value, StoppedAtOnceError):
            report(what)
            return
        for number in previous:
            signal.signal(number, heard)
        again.append(threading.Timer(_FINALIZER_SECONDS, os.kill, (os.getpid(), *what.exc_value.args)))
        again[-1].start()

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, heard)
        sys.unraisablehook = not_raised
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = report
