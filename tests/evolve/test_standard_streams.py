"""Standard streams that are missing or that nobody reads end nothing. In processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def python(code: str, *, redirection: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CODE": code, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = f'exec {sys.executable} -c "$CODE" {redirection}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-"])
def test_a_process_without_streams_gets_some(redirection: str):
    code = """
from evolve.standard_streams import open_missing
open_missing()
file = open("/dev/null")
assert file.fileno() > 2
print("said to nobody", flush=True)
"""
    assert python(code, redirection=redirection).returncode == 0


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| true"])
def test_an_end_whose_output_nobody_takes_is_silent(redirection: str):
    code = """
from contextlib import suppress
from evolve.standard_streams import flush_or_forget, open_missing
open_missing()
with suppress(OSError):  # at once where streams are not buffered
    print("x" * 100)
flush_or_forget()
"""
    done = python(code, redirection=redirection)
    assert (done.returncode, done.stderr) == (0, "")
