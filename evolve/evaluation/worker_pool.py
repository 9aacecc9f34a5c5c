"""Many workers as one evaluator: who is asked what, and who is to blame when a worker ends instead of answering.

A worker that ends is replaced. A candidate at which workers end again and again is the candidate's own failure; when
they end at whatever they are asked, or none can be started, the pool gives up and says the first cause. An error that
nobody foresaw may be the worker's or the candidate's: another worker is asked too. One that fails where others do not
is replaced, and in the end left out.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from evolve.evaluation.crew import Crew, Report
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.unavailable import UnsoundEngineError, WorkersUnavailableError
from evolve.trials.trial import Evaluation

MOST_ENDS = 3  # of workers, at one candidate
MOST_LATE = 2  # of them, that took too long
ENDS_IN_A_ROW = 3  # of workers, at different candidates, without an answer between: it is none of the candidates
MOST_FAULTS = 2  # in a row, of a worker: candidates that it failed at and another worker scored
MOST_REPLACEMENTS = 2  # of a worker for such faults: its machine is at fault
MOST_STARTS = 3  # in a row that fail, of one worker
START_SECONDS = 1800.0  # models may have to be downloaded first
PLACE_SECONDS = 600.0  # nodes may have to be started first
GRACE_SECONDS = 10.0  # for a worker to notice by itself that it takes too long, and say so
LOOK_SECONDS = 1.0  # between looks at the clock

Asked = TypeVar("Asked", Request, GradientRequest)
Answered = TypeVar("Answered", Evaluation, Slopes)
Asking = TypeVar("Asking")


@dataclass(eq=False)
class _Task(Generic[Asking]):
    """A request on its way.

    Attributes:
        request: what is asked.
        ends: how each worker ended that was asked.
        late: how many of them took too long.
        failed_by: the worker that could not score it, where another is asked.
    """

    request: Asking
    ends: list[str] = field(default_factory=list)
    late: int = 0
    failed_by: int | None = None

    @property
    def is_to_blame(self) -> bool:
        return len(self.ends) >= MOST_ENDS or self.late >= MOST_LATE


@dataclass
class _Member:
    """One of the workers.

    Attributes:
        order: what it is doing; None where it waits for something to do.
        ready: whether it has started.
        placed: whether its process exists.
        since: when it was given its order, or was placed.
        task: what it was asked.
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
    task: _Task[Any] | None = None
    is_new: bool = False
    failed_starts: int = 0
    faults: int = 0
    replacements: int = 0
    lost: Exception | None = None

    @property
    def is_free(self) -> bool:
        return self.ready and self.order is None


class WorkerPool:
    """The `Evaluator` of a crew.

    Args:
        crew: runs the workers.
        count: how many.
        notice: is told, a line each, what becomes of workers.
    """

    def __init__(self, crew: Crew, count: int, notice: Callable[[str], None] | None = None) -> None:
        self.workers = count
        self._crew = crew
        self._notice = notice or _warn
        self._members = [_Member() for _ in range(count)]
        self._answered_before = False
        self._streak: list[tuple[_Task[Any], str]] = []  # ends since the last answer
        self._first_loss: Exception | None = None
        try:
            for worker in range(count):
                self._start(worker)
            while not any(member.ready for member in self._members):
                self._handle_reports()
        except BaseException:
            self.close()
            raise

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """Yield in the order of completion; each worker holds one request at a time."""
        return self._answers("evaluate", requests, lambda request, why: Evaluation(request.number, failure=why))

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As `evaluate`."""
        return self._answers("differentiate", requests, lambda request, why: Slopes(request.number, failure=why))

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """Of the model in any worker; all of them make the same.

        Raises:
            WorkersUnavailableError: every worker that was asked ended.
        """
        task: _Task[Mapping[str, Any]] = _Task(recipe)
        for answer in self._work("fingerprint", iter([task])):
            if isinstance(answer, str):
                return answer
        raise WorkersUnavailableError(
            f"a worker ended {len(task.ends)} times at the model's fingerprint: {task.ends[0]}"
        )

    def close(self) -> None:
        """End the workers, and everything that was started for them."""
        self._crew.close()

    def _answers(
        self, method: str, requests: Iterable[Asked | None], failed: Callable[[Asked, str], Answered]
    ) -> Iterator[Answered]:
        tasks = (None if request is None else _Task(request) for request in requests)
        for found in self._work(method, tasks):
            if isinstance(found, _Task):
                times = f"{len(found.ends)} workers ended at it"
                yield failed(found.request, f"{times}: {found.ends[0]}")
            else:
                yield found

    def _work(self, method: str, tasks: Iterator[_Task[Any] | None]) -> Iterator[Any]:
        """Spread tasks over the workers; yields answers, and the tasks at which workers kept ending."""
        again: deque[_Task[Any]] = deque()
        mine: set[_Task[Any]] = set()  # an earlier caller may have left before its answers came
        while True:
            dry = False  # nothing more is asked, or nothing until there is another answer
            for worker in [worker for worker, member in enumerate(self._members) if member.is_free]:
                # After an end, another candidate is tried first: it tells whether it was the candidate.
                task = self._second_try(worker, again) if not self._streak or dry else None
                if task is None and not dry:
                    task = next(tasks, None)
                    dry = task is None
                task = task or self._second_try(worker, again)
                if task is not None:
                    mine.add(task)
                    self._ask(worker, method, task)
            if dry and not mine:
                return
            for task, found in self._handle_reports():
                if task not in mine:
                    continue
                if found is None and not task.is_to_blame:
                    again.append(task)
                    continue
                mine.discard(task)
                yield task if found is None else found

    def _second_try(self, worker: int, again: deque[_Task[Any]]) -> _Task[Any] | None:
        """The first that this worker may do: not what it failed at itself, as long as there is another."""
        task = next((task for task in again if task.failed_by != worker or not self._has_others(worker)), None)
        if task is not None:
            again.remove(task)
        return task

    def _has_others(self, worker: int) -> bool:
        return any(member.ready for other, member in enumerate(self._members) if other != worker)

    def _ask(self, worker: int, method: str, task: _Task[Any]) -> None:
        member = self._members[worker]
        member.order, member.task, member.since = self._crew.ask(worker, method, task.request), task, time.monotonic()

    def _start(self, worker: int) -> None:
        member = self._members[worker]
        member.ready = member.placed = False
        member.is_new = bool(self._streak)
        member.order, member.task, member.since = self._crew.start(worker), None, time.monotonic()

    def _handle_reports(self) -> list[tuple[_Task[Any], Any]]:
        """Wait for reports, and replace who ended; returns tasks with their answers, None for those without.

        Raises:
            WorkersUnavailableError: there is no worker any more.
            ValueError: what every worker raised, for the user to mend.
        """
        reports = [*self._crew.wait(LOOK_SECONDS), *self._overdue()]
        handled = [(task, found) for report in reports for task, found in self._handle(report)]
        self._replace_faulty()
        return handled

    def _handle(self, report: Report) -> list[tuple[_Task[Any], Any]]:
        member = self._members[report.worker]
        if report.order != member.order:  # of a process that was replaced meanwhile
            return []
        if report.placed is not None:
            member.placed, member.since = True, time.monotonic()
            return []
        member.order, task, member.task = None, member.task, None
        if report.error is None and report.death is None:
            if task is None:
                member.ready, member.failed_starts = True, 0
                return []
            if self._streak:
                self._streak.clear()
                for other in self._members:
                    other.is_new = False
            self._answered_before = True
            return [(task, self._judged(report.worker, task, report.answer))]
        if isinstance(report.error, UnsoundEngineError):  # every worker has the same engine
            raise report.error
        if isinstance(report.error, ValueError):  # the user's to mend, here or on its node: an engine that cannot start
            self._give_up(report.worker, report.error)
        elif report.by_its_machine:
            self._notice(f"a worker ended and is replaced: {_reason(report)}")
            self._start(report.worker)
        elif task is None:
            self._failed_start(report.worker, _reason(report))
        else:
            self._ended_at(report.worker, task, _reason(report))
        return [] if task is None else [(task, None)]

    def _judged(self, worker: int, task: _Task[Any], answer: Any) -> Any:
        """The answer; None where another worker is to be asked."""
        failed = getattr(answer, "failure", None) is not None
        if failed and answer.unforeseen and task.failed_by is None and self._has_others(worker):
            task.failed_by = worker
            return None
        if not failed:
            self._members[worker].faults = 0
            if task.failed_by not in (None, worker):
                self._members[task.failed_by].faults += 1
        return answer

    def _replace_faulty(self) -> None:
        for worker, member in enumerate(self._members):
            if member.is_free and member.faults >= MOST_FAULTS:
                member.faults, member.replacements = 0, member.replacements + 1
                member.ready = False
                if member.replacements > MOST_REPLACEMENTS:
                    self._crew.end(worker)
                    self._give_up(worker, WorkersUnavailableError("it fails at what others can score"))
                else:
                    self._notice(f"worker {worker + 1} fails at what others can score, and is replaced")
                    self._start(worker)

    def _failed_start(self, worker: int, why: str) -> None:
        member = self._members[worker]
        member.failed_starts += 1
        if member.failed_starts >= MOST_STARTS:
            self._give_up(worker, WorkersUnavailableError(f"ray: a worker could not start: {why}"))
        else:
            self._start(worker)

    def _ended_at(self, worker: int, task: _Task[Any], why: str) -> None:
        """Replace a worker that ended at what it was asked, unless they all do.

        Raises:
            WorkersUnavailableError: they do.
        """
        task.ends.append(why)
        self._streak.append((task, why))
        candidates = len({ended for ended, _ in self._streak})
        at_all = len(self._streak) >= ENDS_IN_A_ROW and candidates >= (ENDS_IN_A_ROW if self._answered_before else 2)
        if at_all and self._members[worker].is_new:  # old ones may have ended together, of one cause that is over
            raise WorkersUnavailableError(
                f"{len(self._streak)} workers in a row ended at what they were asked, at {candidates} different "
                f"candidates: {self._streak[0][1]}"
            )
        self._notice(f"a worker ended at {_name(task.request)} and is replaced: {why}")
        self._start(worker)

    def _give_up(self, worker: int, error: Exception) -> None:
        """Go on without a worker.

        Raises:
            ValueError, WorkersUnavailableError: none is left; the first cause.
        """
        self._members[worker].lost, self._members[worker].ready = error, False
        self._first_loss = self._first_loss or error
        left = sum(member.lost is None for member in self._members)
        if not left:
            raise self._first_loss
        self._notice(f"worker {worker + 1} cannot work, {left} of {self.workers} go on: {_line(error)}")

    def _overdue(self) -> list[Report]:
        """Who takes too long: such a worker is killed, and reported as ended."""
        found = []
        for worker, member in enumerate(self._members):
            limit, why = self._patience(member)
            if member.order is None or limit is None or time.monotonic() - member.since <= limit:
                continue
            if member.task is not None:
                member.task.late += 1
            self._crew.end(worker)
            found.append(Report(worker, member.order, death=why))
        return found

    def _patience(self, member: _Member) -> tuple[float | None, str]:
        """How many seconds what a worker does may take, None for ever, and what it is that took longer."""
        if member.task is not None:
            limit = getattr(member.task.request, "time_limit", None)
            if limit is None:
                return None, ""
            return limit + GRACE_SECONDS, f"it gave no answer within {limit:g} seconds"
        if member.placed:
            return START_SECONDS, f"it did not load its models within {START_SECONDS / 60:g} minutes"
        if any(other.placed and other.lost is None for other in self._members):
            return None, ""  # there will be room for it, or there will not
        why = f"no node had room for it within {PLACE_SECONDS / 60:g} minutes; see workers.cpus and workers.gpus"
        return PLACE_SECONDS, why


def _reason(report: Report) -> str:
    return report.death if report.death is not None else f"{type(report.error).__name__}: {_line(report.error)}"


def _line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _name(request: Any) -> str:
    return f"trial {request.number}" if isinstance(request, Request) else "a step of the gradient"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
