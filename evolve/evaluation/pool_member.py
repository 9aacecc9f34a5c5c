"""What a pool knows of each of its workers, and of a request on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

MOST_ENDS = 3  # of workers, at one candidate
MOST_LATE = 2  # of them, that took too long
START_SECONDS = 1800.0  # models may have to be downloaded first
PLACE_SECONDS = 600.0  # nodes may have to be started first
GRACE_SECONDS = 10.0  # for a worker to notice by itself that it takes too long, and say so

Asked = TypeVar("Asked")


@dataclass(eq=False)
class Assignment(Generic[Asked]):
    """A request on its way.

    Attributes:
        request: what is asked.
        ends: how each worker ended that was asked.
        late: how many of them took too long.
        failed_by: the worker that could not score it, where another is asked.
    """

    request: Asked
    ends: list[str] = field(default_factory=list)
    late: int = 0
    failed_by: int | None = None

    @property
    def is_to_blame(self) -> bool:
        """Whether the workers ended because of it."""
        return len(self.ends) >= MOST_ENDS or self.late >= MOST_LATE


@dataclass
class Member:
    """One of the workers.

    Attributes:
        order: what it is doing; None where it waits for something to do.
        ready: whether it has started.
        placed: whether its process exists.
        since: when it was given its order, or was placed.
        assignment: what it was asked.
        is_new: whether it was started after others ended, and nobody has answered since.
        failed_starts: in a row.
        faults: candidates in a row that it failed at, and others did not.
        replacements: for that.
        lost: why it will not be started again.
    """

    order: int | None = None
    ready: bool = False
    placed: bool = False
    since: float = 0.0
    assignment: Assignment[Any] | None = None
    is_new: bool = False
    failed_starts: int = 0
    faults: int = 0
    replacements: int = 0
    lost: Exception | None = None

    @property
    def is_free(self) -> bool:
        """Whether it waits for something to do."""
        return self.ready and self.order is None

    def patience(self, has_company: bool) -> tuple[float | None, str]:
        """How many seconds what it does may take, None for ever, and what it is that took longer.

        Args:
            has_company: whether another worker is placed: then there will be room for this one, or there will not.
        """
        if self.assignment is not None:
            limit = getattr(self.assignment.request, "time_limit", None)
            if limit is None:
                return None, ""
            return limit + GRACE_SECONDS, f"it gave no answer within {limit:g} seconds"
        if self.placed:
            return START_SECONDS, f"it did not load its models within {START_SECONDS / 60:g} minutes"
        if has_company:
            return None, ""
        why = f"no node had room for it within {PLACE_SECONDS / 60:g} minutes; see workers.cpus and workers.gpus"
        return PLACE_SECONDS, why
