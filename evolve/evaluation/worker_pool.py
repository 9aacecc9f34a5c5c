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
from typing import Any

from evolve.evaluation.crew import Crew, Report
from evolve.evaluation.pool_member import Assignment, Member
from evolve.evaluation.request import Answered, Asked, GradientRequest, Request, Slopes
from evolve.evaluation.unavailable import UnsoundEngineError, WorkersUnavailableError
from evolve.trials.trial import Evaluation

ENDS_IN_A_ROW = 3  # of workers, at different candidates, without an answer between: it is none of the candidates
MOST_FAULTS = 2  # in a row, of a worker: candidates that it failed at and another worker scored
MOST_REPLACEMENTS = 2  # of a worker for such faults: its machine is at fault
MOST_STARTS = 3  # in a row that fail, of one worker
LOOK_SECONDS = 1.0  # between looks at the clock


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
        self._members = [Member() for _ in range(count)]
        self._answered_before = False
        self._streak: list[tuple[Assignment[Any], str]] = []  # ends since the last answer
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
        assignment: Assignment[Mapping[str, Any]] = Assignment(recipe)
        for answer in self._work("fingerprint", iter([assignment])):
            if isinstance(answer, str):
                return answer
        raise WorkersUnavailableError(
            f"a worker ended {len(assignment.ends)} times at the model's fingerprint: {assignment.ends[0]}"
        )

    def close(self) -> None:
        """End the workers, and everything that was started for them."""
        self._crew.close()

    def _answers(
        self, method: str, requests: Iterable[Asked | None], failed: Callable[[Asked, str], Answered]
    ) -> Iterator[Answered]:
        assignments = (None if request is None else Assignment(request) for request in requests)
        for found in self._work(method, assignments):
            if isinstance(found, Assignment):
                times = f"{len(found.ends)} workers ended at it"
                yield failed(found.request, f"{times}: {found.ends[0]}")
            else:
                yield found

    def _work(self, method: str, assignments: Iterator[Assignment[Any] | None]) -> Iterator[Any]:
        """Spread assignments over the workers; yields answers, and the assignments at which workers kept ending."""
        again: deque[Assignment[Any]] = deque()
        mine: set[Assignment[Any]] = set()  # an earlier caller may have left before its answers came
        while True:
            dry = False  # nothing more is asked, or nothing until there is another answer
            for worker in [worker for worker, member in enumerate(self._members) if member.is_free]:
                # After an end, another candidate is tried first: it tells whether it was the candidate.
                assignment = self._second_try(worker, again) if not self._streak or dry else None
                if assignment is None and not dry:
                    assignment = next(assignments, None)
                    dry = assignment is None
                assignment = assignment or self._second_try(worker, again)
                if assignment is not None:
                    mine.add(assignment)
                    self._ask(worker, method, assignment)
            if dry and not mine:
                return
            for assignment, found in self._handle_reports():
                if assignment not in mine:
                    continue
                if found is None and not assignment.is_to_blame:
                    again.append(assignment)
                    continue
                mine.discard(assignment)
                yield assignment if found is None else found

    def _second_try(self, worker: int, again: deque[Assignment[Any]]) -> Assignment[Any] | None:
        """The first that this worker may do: not what it failed at itself, as long as there is another."""
        assignment = next(
            (assignment for assignment in again if assignment.failed_by != worker or not self._has_others(worker)), None
        )
        if assignment is not None:
            again.remove(assignment)
        return assignment

    def _has_others(self, worker: int) -> bool:
        return any(member.ready for other, member in enumerate(self._members) if other != worker)

    def _ask(self, worker: int, method: str, assignment: Assignment[Any]) -> None:
        member = self._members[worker]
        member.order, member.assignment, member.since = (
            self._crew.ask(worker, method, assignment.request),
            assignment,
            time.monotonic(),
        )

    def _start(self, worker: int) -> None:
        member = self._members[worker]
        member.ready = member.placed = False
        member.is_new = bool(self._streak)
        member.order, member.assignment, member.since = self._crew.start(worker), None, time.monotonic()

    def _handle_reports(self) -> list[tuple[Assignment[Any], Any]]:
        """Wait for reports, and replace who ended; returns assignments with their answers, None for those without.

        Raises:
            WorkersUnavailableError: there is no worker any more.
            ValueError: what every worker raised, for the user to mend.
        """
        reports = [*self._crew.wait(LOOK_SECONDS), *self._overdue()]
        handled = [(assignment, found) for report in reports for assignment, found in self._handle(report)]
        self._replace_faulty()
        return handled

    def _handle(self, report: Report) -> list[tuple[Assignment[Any], Any]]:
        member = self._members[report.worker]
        if report.order != member.order:  # of a process that was replaced meanwhile
            return []
        if report.placed is not None:
            member.placed, member.since = True, time.monotonic()
            return []
        member.order, assignment, member.assignment = None, member.assignment, None
        if report.error is None and report.death is None:
            if assignment is None:
                member.ready, member.failed_starts = True, 0
                return []
            if self._streak:
                self._streak.clear()
                for other in self._members:
                    other.is_new = False
            self._answered_before = True
            return [(assignment, self._judged(report.worker, assignment, report.answer))]
        if isinstance(report.error, UnsoundEngineError):  # every worker has the same engine
            raise report.error
        if isinstance(report.error, ValueError):  # the user's to mend, here or on its node: an engine that cannot start
            self._give_up(report.worker, report.error)
        elif report.by_its_machine:
            self._notice(f"a worker ended and is replaced: {_reason(report)}")
            self._start(report.worker)
        elif assignment is None:
            self._failed_start(report.worker, _reason(report))
        else:
            self._ended_at(report.worker, assignment, _reason(report))
        return [] if assignment is None else [(assignment, None)]

    def _judged(self, worker: int, assignment: Assignment[Any], answer: Any) -> Any:
        """The answer; None where another worker is to be asked."""
        failed = getattr(answer, "failure", None) is not None
        if failed and answer.unforeseen and assignment.failed_by is None and self._has_others(worker):
            assignment.failed_by = worker
            return None
        if not failed:
            self._members[worker].faults = 0
            if assignment.failed_by not in (None, worker):
                self._members[assignment.failed_by].faults += 1
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

    def _ended_at(self, worker: int, assignment: Assignment[Any], why: str) -> None:
        """Replace a worker that ended at what it was asked, unless they all do.

        Raises:
            WorkersUnavailableError: they do.
        """
        assignment.ends.append(why)
        self._streak.append((assignment, why))
        candidates = len({ended for ended, _ in self._streak})
        at_all = len(self._streak) >= ENDS_IN_A_ROW and candidates >= (ENDS_IN_A_ROW if self._answered_before else 2)
        if at_all and self._members[worker].is_new:  # old ones may have ended together, of one cause that is over
            raise WorkersUnavailableError(
                f"{len(self._streak)} workers in a row ended at what they were asked, at {candidates} different "
                f"candidates: {self._streak[0][1]}"
            )
        self._notice(f"a worker ended at {_name(assignment.request)} and is replaced: {why}")
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
        has_company = any(other.placed and other.lost is None for other in self._members)
        for worker, member in enumerate(self._members):
            limit, why = member.patience(has_company)
            if member.order is None or limit is None or time.monotonic() - member.since <= limit:
                continue
            if member.assignment is not None:
                member.assignment.late += 1
            self._crew.end(worker)
            found.append(Report(worker, member.order, death=why))
        return found


def _reason(report: Report) -> str:
    return report.death if report.death is not None else f"{type(report.error).__name__}: {_line(report.error)}"


def _line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _name(request: Any) -> str:
    return f"trial {request.number}" if isinstance(request, Request) else "a step of the gradient"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
