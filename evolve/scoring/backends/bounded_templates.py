"""Templates rendered under a bound of time and memory: in Jinja's sandbox, in a process that is ended if it must be."""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.scoring.errors import TaskError

RENDER_SECONDS = 10.0
"""For one text; a prompt takes under a millisecond."""
START_SECONDS = 120.0
"""Until the process has imported what it needs: a second, but machines are busy."""

_SCRIPT = Path(__file__).with_name("template_process.py")


class TemplateOwnError(TaskError):
    """The template raised an error of its own."""


class BoundedTemplates:
    """Renders in one child process, which is started with the first template and again after one that it ended for.

    Args:
        render_seconds: for one text.
    """

    def __init__(self, render_seconds: float = RENDER_SECONDS) -> None:
        self._seconds = render_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        atexit.register(self.close)

    def conversation(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
        """A conversation as transformers' `render_jinja_template` renders it.

        Args:
            messages: with `role` and `content`.
            arguments: the others of that function, the template among them.

        Raises:
            TemplateOwnError: the template raised an error of its own.
            TaskError: it is not done in time, or needs too much memory; or a variable is none of JSON's.
        """
        return self._render({"conversation": list(messages), "arguments": dict(arguments)})

    def text(self, template: str, fields: Mapping[str, Any]) -> str:
        """A template of fields, in which none may be missing.

        Raises:
            TemplateOwnError, TaskError: as `conversation`.
        """
        return self._render({"template": template, "fields": dict(fields)})

    def close(self) -> None:
        """End the process; the next text starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _render(self, request: Mapping[str, Any]) -> str:
        try:
            line = json.dumps(request, default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise TaskError(f"a variable of the template is no JSON: {error}") from error
        with self._lock:
            found = json.loads(self._ask(line))
        if "text" in found:
            return str(found["text"])
        raise (TemplateOwnError if found["kind"] == "template" else TaskError)(found["error"])

    def _ask(self, line: str) -> str:
        try:
            if self._process is None or self._process.poll() is not None:
                self._start()
            found = self._answered(line)
        except BaseException:  # whoever is interrupted here leaves an answer that the next would take for its own
            self.close()
            raise
        if not found:
            ended = self._process is not None and self._process.poll() is not None
            self.close()
            bound = "needs too much memory" if ended else f"does not end within {self._seconds:g} seconds"
            raise TaskError(f"it {bound}")
        return found

    def _answered(self, line: str) -> str:
        """What the process answers; nothing where it does not within its time."""
        try:
            self._write(line)
            return self._answers.get(timeout=self._seconds)
        except (queue.Empty, OSError):
            return ""

    def _start(self) -> None:
        self.close()
        # -P: modules beside the script are not those of their names.
        command = [sys.executable, "-P", str(_SCRIPT), str(self._seconds)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process, which finishes what it is at
        )
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_hand_on, args=(self._process, self._answers), daemon=True).start()
        try:
            self._answers.get(timeout=START_SECONDS)  # the line that says that it is ready
        except queue.Empty:
            raise TaskError("the process that renders templates does not start") from None

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def _hand_on(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Every line of a process, and an empty one when it has ended."""
    try:
        for line in process.stdout or ():
            answers.put(line)
    except ValueError:  # closed while it was read
        pass
    answers.put("")


def _plain(value: Any) -> Any:
    """What JSON has no form for: a token is its text, a function is its description as a tool."""
    if callable(value):
        from transformers.utils import get_json_schema

        return get_json_schema(value)
    return str(value)


templates = BoundedTemplates()
"""That of this process."""
