"""Workers on Ray, whose host is a process of its own: whatever becomes of Ray, this process lives."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from evolve.evaluation.crew import CrewOptions, Report
from evolve.evaluation.ray_session import RaySession
from evolve.evaluation.unavailable import WorkersUnavailableError

QUIET_SECONDS = 30  # without a sign of life of a host that gives one every other second
FIRST_SECONDS = 300  # until the first: it imports Ray and torch, on a busy machine or from a network's disk
CLOSE_SECONDS = 20.0
LOG = "host.log"
LAST_WORDS = 200  # characters


class RayCrew:
    """The `Crew` of a Ray, local or a cluster.

    Args:
        options: which workers; the session is made here.
    """

    def __init__(self, options: CrewOptions) -> None:
        self._session = RaySession()
        ours, theirs = socket.socketpair()
        environment = self._session.environment(local=options.address is None)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # finds what this process finds
        with theirs, (self._session.directory / LOG).open("wb") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-P", "-m", "evolve.evaluation.ray_host", str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,  # Ray's own lines never reach the terminal
                pass_fds=(theirs.fileno(), self._session.lock),
                start_new_session=True,  # Ctrl-C is for this process alone
            )
        self._connection = Connection(ours.detach())
        self._messages: queue.SimpleQueue[Report | str | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._orders = 0
        self._quiet = 0
        self._patience = FIRST_SECONDS
        self._lost = False
        for work in (self._listen, self._speak):  # a host that is stopped must not stop us
            threading.Thread(target=work, daemon=True).start()
        self._send(replace(options, session=str(self._session.directory)))

    def start(self, worker: int) -> int:
        """As `Crew.start`; the process that it had is killed."""
        self.end(worker)
        return self._order("start", worker)

    def ask(self, worker: int, method: str, *arguments: Any) -> int:
        """As `Crew.ask`."""
        return self._order("ask", worker, method, *arguments)

    def end(self, worker: int) -> None:
        """As `Crew.end`."""
        self._send(("end", worker))

    def wait(self, seconds: float) -> list[Report]:
        """As `Crew.wait`. Quiet seconds are counted, not measured: a process that was stopped has not heard any."""
        found: list[Report] = []
        while not found and seconds > 0:
            step = min(seconds, 1.0)
            with contextlib.suppress(queue.Empty):
                found += self._heard(self._messages.get(timeout=step))
                while True:
                    found += self._heard(self._messages.get_nowait())
            seconds -= step
            self._quiet += 1
            if self._quiet > self._patience:
                self._lose(f"ray: it has not answered for {self._patience} seconds")
        return found

    def close(self) -> None:
        """Engines, workers, Ray where it is ours, and every trace of it on this machine."""
        self._send(("close",))
        self._send(None)
        try:
            self._host.wait(0 if self._lost else CLOSE_SECONDS)  # with Ray lost it would wait for that in vain
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
        self._session.close()
        self._connection.close()

    def _lose(self, reason: str) -> NoReturn:
        self._lost = True
        raise WorkersUnavailableError(reason)

    def _heard(self, message: Report | str | None) -> list[Report]:
        self._quiet, self._patience = 0, QUIET_SECONDS
        if isinstance(message, str):
            self._lose(message)
        return [] if message is None else [message]

    def _order(self, name: str, worker: int, *arguments: Any) -> int:
        self._orders += 1
        self._send((name, worker, self._orders, *arguments))
        return self._orders

    def _send(self, message: Any) -> None:
        self._outgoing.put(message)

    def _speak(self) -> None:
        with contextlib.suppress(OSError):  # a host that is gone is noticed by whoever listens
            while (message := self._outgoing.get()) is not None:
                self._connection.send(message)

    def _listen(self) -> None:
        try:
            while True:
                self._messages.put(self._connection.recv())
        except Exception as error:  # whatever it is, nothing is heard any more
            ended = isinstance(error, EOFError | OSError)
            what = f"has ended: {self._last_words()}" if ended else f"said what cannot be read: {error}"
            self._messages.put(f"ray: the process that drives it {what}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._session.directory / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            said = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in lines]
            return next((line[:LAST_WORDS] for line in reversed(said) if line), "it said nothing")
        return "it said nothing"
