"""Being stopped from outside: softly when asked for the first time, at once for the second."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Ctrl-C, a process manager, a terminal that hung up (an ssh connection that was lost).
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StoppedAtOnceError(KeyboardInterrupt):
    """Asked for a second time: what is at work is given up."""


@contextmanager
def soft_stop(stop: threading.Event, asked: Callable[[], None]) -> Iterator[None]:
    """The first signal sets a flag, the second raises `StoppedAtOnceError`, the third is the ordinary one.

    A signal that the process was started to ignore, as by `nohup`, stays ignored.

    Args:
        stop: the flag.
        asked: called when it was set.
    """
    previous: dict[int, Any] = {}

    def heard(_number: int, _frame: object) -> None:
        if stop.is_set():
            for number, handler in previous.items():
                signal.signal(number, handler)
            raise StoppedAtOnceError
        stop.set()
        with suppress(RuntimeError):  # from a stream that was being written to when the signal came
            asked()

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
