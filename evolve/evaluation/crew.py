"""The interface between a pool and what runs its workers: orders go out, reports come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from evolve.evaluation.worker import WorkerSettings


@dataclass(frozen=True)
class CrewOptions:
    """Which workers, and where.

    Attributes:
        settings: of every worker.
        count: workers.
        cpus: threads of each.
        gpus: of each.
        resources: further Ray resources of each, by which nodes are chosen.
        address: of a running cluster; None: a local Ray of our own.
        session: directory of its own, where what Ray writes goes.
    """

    settings: WorkerSettings
    count: int
    cpus: int
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    address: str | None = None
    session: str = ""


@dataclass(frozen=True)
class Report:
    """What became of an order; of a start first that the worker was placed, and later that it is ready.

    Attributes:
        worker: whose.
        order: as `Crew.start` or `Crew.ask` numbered it.
        answer: of the worker.
        error: what the worker raised.
        death: how the worker's process ended, in one line.
        by_its_machine: whether it ended with its machine, whatever it was doing.
        placed: where the worker was placed: nothing else is known yet.
    """

    worker: int
    order: int
    answer: Any = None
    error: Exception | None = None
    death: str | None = None
    by_its_machine: bool = False
    placed: str | None = None


class Crew(Protocol):
    """Runs workers in processes of their own."""

    def start(self, worker: int) -> int:
        """Begin a new process for a worker, in place of the one that it had; returns the number of the order."""

    def ask(self, worker: int, method: str, *arguments: Any) -> int:
        """Call a method of a worker; returns the number of the order."""

    def end(self, worker: int) -> None:
        """Kill a worker's process, whatever it is doing, stopped or not."""

    def wait(self, seconds: float) -> list[Report]:
        """What was reported meanwhile, at once where there is something.

        Raises:
            WorkersUnavailableError: nothing will be reported any more.
        """

    def close(self) -> None:
        """End everything that was begun."""
