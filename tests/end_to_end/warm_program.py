"""The program in processes of its own that have its libraries already: forked from one that has imported them.

A process can be killed, interrupted and given an environment; importing takes it three times as long as a small search.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import TimeoutExpired
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "torch",
        "transformers.models.llama.modeling_llama",
        "lm_eval.tasks",
        "cma",
        "optuna",
        "matplotlib.figure",
        "evolve.actions.run",
        "evolve.actions.simplify",
        "evolve.actions.sweep",
        "evolve.scoring.scorers.lm_eval.scorer",
    ]
)


class Program:
    """`evolve ARGUMENTS…`, running. Its streams are files.

    Args:
        arguments: What is typed after `evolve`.
        directory: Where.
        environment: All of it; default: this process's own, without the hub.
        first: Python that runs in the process before the program does.
    """

    def __init__(
        self,
        *arguments: object,
        directory: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        first: str = "",
    ) -> None:
        given = environment if environment is not None else {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._streams = tempfile.TemporaryDirectory()
        self._process = _SERVER.Process(
            target=_run, args=(list(map(str, arguments)), str(directory), dict(given), first, self._streams.name)
        )
        self._process.start()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self._process.join()
        self._streams.cleanup()

    def wait_for(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Until something holds, or it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.poll() is None and not condition():
            time.sleep(0.01)

    def ended(self, timeout: float = 240) -> SimpleNamespace:
        """Wait for its end: `returncode`, and the texts `stdout` and `stderr`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutExpired("evolve", timeout)
        texts = {name: Path(self._streams.name, name).read_text() for name in ("stdout", "stderr")}
        self._streams.cleanup()
        return SimpleNamespace(returncode=self._process.exitcode, **texts)


def run_program(*arguments: object, **settings: Any) -> SimpleNamespace:
    """A program, to its end."""
    return Program(*arguments, **settings).ended()


def _run(arguments: list[str], directory: str, environment: dict[str, str], first: str, streams: str) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with Path(streams, name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["evolve", *arguments]
    sys.path.insert(0, directory)
    exec(first, {})
    from evolve.commands.cli import program

    program()
