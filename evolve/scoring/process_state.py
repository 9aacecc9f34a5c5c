"""What foreign code may change of a process, remembered and put back."""

from __future__ import annotations

import contextlib
import fcntl
import locale
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

_OUT_OF_THE_WAY = 4096  # copies of descriptors have numbers up there, where code that closes all in sight seldom looks
_kept_open: set[int] = {0, 1, 2}

Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""How a setting is read, and how it is written."""


@contextlib.contextmanager
def kept_open(descriptor: int) -> Iterator[None]:
    """Foreign code that closes this descriptor finds that it did not, as it does for the three of standard streams."""
    _kept_open.add(descriptor)
    try:
        yield
    finally:
        _kept_open.discard(descriptor)


@dataclass(frozen=True)
class ProcessState:
    """A process as it was at one moment.

    Attributes:
        settings: how each is read and written, and what it was.
        descriptors: number -> a copy.
        streams: name -> Python's standard stream.
    """

    settings: tuple[tuple[Setting, Any], ...]
    descriptors: dict[int, int]
    streams: dict[str, Any]

    @classmethod
    def now(cls, *, of_imports: bool = True) -> ProcessState:
        """Look at everything; some hundred microseconds.

        Args:
            of_imports: also at what modules may set up for themselves when they are imported.
        """
        highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(_kept_open) - 1, _OUT_OF_THE_WAY)
        descriptors = {}
        for number in sorted(_kept_open):
            with contextlib.suppress(OSError):  # it was closed before
                descriptors[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, highest)
        streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        settings = tuple((setting, setting[0]()) for setting in _settings(of_imports=of_imports))
        return cls(settings, descriptors, streams)

    def restore(self) -> None:
        """Put back what is another now."""
        for number, copy in self.descriptors.items():
            _open_again(number, copy)
        for name, stream in self.streams.items():
            if stream is not None and stream.closed:
                mode, number = ("r", 0) if name == "stdin" else ("w", 1 if name == "stdout" else 2)
                stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        for (read, write), before in self.settings:
            with contextlib.suppress(OSError):  # a working directory that is gone
                if not _same(read(), before):
                    write(before)


@contextlib.contextmanager
def process_restored(*, of_imports: bool = True) -> Iterator[None]:
    """What code in it changes of the process is as before at its end.

    Args:
        of_imports: as in `ProcessState.now`.
    """
    before = ProcessState.now(of_imports=of_imports)
    try:
        yield
    finally:
        before.restore()


def _open_again(number: int, copy: int) -> None:
    """The descriptor as it was; where the copy was closed too, one that takes what is written and leads nowhere."""
    try:
        if not os.path.samestat(os.fstat(copy), _status(number) or os.stat(os.devnull)):
            os.dup2(copy, number, inheritable=number <= 2)
        os.close(copy)
    except OSError:
        if number <= 2 and _status(number) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)


def _status(descriptor: int) -> os.stat_result | None:
    try:
        return os.fstat(descriptor)
    except OSError:
        return None


def _settings(*, of_imports: bool) -> Iterator[Setting]:
    import numpy as np

    from evolve.scoring.torch_settings import torch_settings

    yield _working_directory, os.chdir
    yield _umask, os.umask
    yield random.getstate, random.setstate
    yield lambda: np.random.get_state(legacy=False), np.random.set_state
    yield np.geterr, lambda value: np.seterr(**value)
    yield from torch_settings()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            yield partial(signal.getsignal, number), partial(_set_handler, number)
    if of_imports:
        yield lambda: dict(os.environ), _set_environment
        yield lambda: list(sys.path), _set_path
        yield lambda: list(warnings.filters), _set_warnings
        yield sys.getrecursionlimit, sys.setrecursionlimit
        yield lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)


def _same(one: Any, other: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return None


def _set_environment(values: dict[str, str]) -> None:
    for name in set(os.environ) - set(values):
        del os.environ[name]
    os.environ.update(values)
    time.tzset()


def _set_path(directories: list[str]) -> None:
    sys.path[:] = directories


def _umask() -> int:
    mask = os.umask(0o077)  # there is no other way to read it
    os.umask(mask)
    return mask


def _set_warnings(filters: list[Any]) -> None:
    warnings.resetwarnings()  # by which Python notices the change
    warnings.filters[:] = filters  # type: ignore[index]


def _set_handler(number: signal.Signals, handler: Any) -> None:
    # Not over the default, which the first Ctrl-C brought back in between.
    if signal.getsignal(number) not in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(number, handler)
