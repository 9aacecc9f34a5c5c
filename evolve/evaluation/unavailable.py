"""The errors that end a run for want of workers; the same command resumes it."""

from __future__ import annotations


class WorkersUnavailableError(RuntimeError):
    """No worker can be had, or none any more: Ray does not start or has died, no room for workers, all of them die.

    What was scored before stays; the same command goes on once that is mended.
    """


class UnsoundEngineError(WorkersUnavailableError):
    """An engine says of a candidate something else than it said before, and was started anew already."""
