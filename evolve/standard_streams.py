"""Standard streams that are there and do no harm: missing ones at the start, gone readers at any time."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def open_missing() -> None:
    """Give a process that was started with closed standard streams (``>&-``) some that lead nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def flush_or_forget() -> None:
    """Flush what was printed; what a stream does not take is dropped, so that the interpreter's end says nothing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            lead_nowhere(stream)


def lead_nowhere(stream: TextIO) -> None:
    """Drop what a stream has not written yet and will be given: its reader went away, or its disk is full."""
    with contextlib.suppress(OSError, ValueError):  # a closed stream has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
