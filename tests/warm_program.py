"""Python, and the program, in processes of their own that have all libraries: forked from one that has imported them.

A process can be killed, interrupted and given an environment; importing takes it three times as long as a small search.
"""

from __future__ import annotations

import contextlib
import gc
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

ROOT = Path(__file__).resolve().parents[1]

WARM = multiprocessing.get_context("forkserver")
"""Whose processes have all libraries."""

WARM.set_forkserver_preload(
    [
        "torch",
        "transformers.models.llama.modeling_llama",
        "lm_eval.tasks",
        "cma",
        "optuna",
        "matplotlib.figure",
        "plotly.graph_objects",
        "sklearn.ensemble",
        "evolve.actions.run",
        "evolve.actions.simplify",
        "evolve.actions.sweep",
        "evolve.scoring.scorers.lm_eval.scorer",
    ]
)


WITHOUT_THE_HUB = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
    del sys.modules[name]
"""
"""Code: the hub's client is imported anew, which reads its part of the environment once."""


class WarmPython:
    """Python, running a text. Its streams are files.

    Args:
        code: The text.
        arguments: `sys.argv`.
        directory: Where; modules there can be imported.
        environment: All of it; default: this process's own, without the hub.
    """

    def __init__(
        self,
        code: str,
        *arguments: object,
        directory: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        given = environment if environment is not None else {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._streams = tempfile.TemporaryDirectory()
        self._process = WARM.Process(
            target=_run, args=(code, list(map(str, arguments)), str(directory), dict(given), self._streams.name)
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
            raise TimeoutExpired("python", timeout)
        texts = {name: Path(self._streams.name, name).read_text() for name in ("stdout", "stderr")}
        self._streams.cleanup()
        return SimpleNamespace(returncode=self._process.exitcode, **texts)


class Program(WarmPython):
    """`evolve ARGUMENTS…`, running.

    Args:
        arguments: What is typed after `evolve`.
        first: Python that runs in the process before.
        settings: As of `WarmPython`.
    """

    def __init__(self, *arguments: object, first: str = "", **settings: Any) -> None:
        code = f"{first}\nfrom evolve.commands.cli import program\nprogram()"
        super().__init__(code, "evolve", *arguments, **settings)


def run_program(*arguments: object, **settings: Any) -> SimpleNamespace:
    """A program, to its end."""
    return Program(*arguments, **settings).ended()


def _run(code: str, arguments: list[str], directory: str, environment: dict[str, str], streams: str) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with Path(streams, name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    gc.freeze()  # nothing is collected of the libraries, and their pages stay those of all processes
    os.fsync = lambda descriptor: None  # as in the tests' own process
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path.insert(0, directory)
    exec(code, {"__name__": "__main__"})
