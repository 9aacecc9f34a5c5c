"""Foreign code comes back with an `Exception` at most, and leaves the process as it was."""

from __future__ import annotations

import asyncio
import contextlib
import locale
import os
import random
import signal
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
import torch
from warm_program import WarmPython

from evolve.scoring.foreign_code import EscapeError, TookTooLongError, contained, without_escape
from evolve.scoring.process_state import _umask


def raises(error):
    def code():
        raise error

    return code


@pytest.mark.parametrize(
    "error",
    [SystemExit(0), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException("x")],
    ids=repr,
)
@pytest.mark.parametrize("guard", [contained, without_escape])
def test_what_would_end_the_process_is_an_error_with_its_place(error, guard, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: "a handler of our own")  # as while a search runs
    with pytest.raises(EscapeError, match=rf"raised {type(error).__name__}\(.*\(test_foreign_code.py:\d+\)"), guard():
        raises(error)()


def test_an_ordinary_exception_is_itself():
    with pytest.raises(ZeroDivisionError), contained():
        raises(ZeroDivisionError())()


def test_a_real_interrupt_passes():
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt), contained():
        interrupted()


@pytest.mark.parametrize("swallow", [Exception, ArithmeticError])
def test_what_never_returns_is_interrupted_though_it_catches_every_exception(swallow):
    def endless():
        while True:
            with contextlib.suppress(swallow):
                time.sleep(0.01)

    with pytest.raises(TookTooLongError, match=r"not finished after 0\.2 seconds"), contained(0.2):
        endless()


def test_the_alarm_is_off_afterwards():
    with contained(30.0):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


CHANGES = {
    "working directory": (os.getcwd, lambda: os.chdir("/")),
    "environment": (lambda: dict(os.environ), lambda: (os.environ.update(PLANTED="1"), os.environ.pop("PATH", None))),
    "path": (lambda: list(sys.path), lambda: sys.path.insert(0, "/nowhere")),
    "recursion": (sys.getrecursionlimit, lambda: sys.setrecursionlimit(54321)),
    "locale": (lambda: locale.setlocale(locale.LC_ALL), lambda: locale.setlocale(locale.LC_ALL, "C")),
    "random": (random.getstate, random.random),
    "numpy": (lambda: np.random.get_state()[1].tolist(), np.random.random),
    "numpy errors": (np.geterr, lambda: np.seterr(all="ignore")),
    "torch": (lambda: torch.get_rng_state().tolist(), lambda: torch.rand(3)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "streams": (lambda: (sys.stdin, sys.stdout, sys.stderr), lambda: setattr(sys, "stdout", None)),
    "precision": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "precision of a kind of product": (
        lambda: torch.backends.mkldnn.matmul.fp32_precision,
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ),
    "determinism": (
        torch.is_deterministic_algorithms_warn_only_enabled,
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    ),
    "smallest numbers": (lambda: (torch.tensor([1e-40]) * 1).item(), lambda: torch.set_flush_denormal(True)),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda: torch.set_autocast_enabled("cpu", True)),
    "kernels of attention": (
        torch.backends.cuda.flash_sdp_enabled,
        lambda: torch.backends.cuda.enable_flash_sdp(False),
    ),
    "kernels of products": (
        lambda: (torch.backends.mkldnn.enabled, torch.get_float32_matmul_precision()),
        lambda: torch.backends.mkldnn.set_flags(False),
    ),
    "hooks of all modules": (
        lambda: torch.nn.Identity()(1),
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda module, given, answer: answer + 1),
    ),
    "permissions of new files": (_umask, lambda: os.umask(0o077)),
    "warnings": (lambda: list(warnings.filters), lambda: warnings.simplefilter("ignore")),
    "time zone": (lambda: time.localtime(0).tm_hour, lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset())),
    "handler": (lambda: signal.getsignal(signal.SIGTERM), lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("raising", [False, True])
def test_what_it_changed_is_as_before(change, raising):
    read, write = CHANGES[change]
    before = read()
    with pytest.raises(ValueError, match="on purpose") if raising else contained(), contained():
        write()
        if raising:
            raise ValueError("on purpose")
    assert read() == before


def run(code):
    """The code in a process of its own: what it prints, and how it ends."""
    head = "import os, sys\nfrom evolve.scoring.foreign_code import contained\n"
    return WarmPython(head + textwrap.dedent(code)).ended()


@pytest.mark.parametrize("close", ["os.close(1)", "os.closerange(0, 100)", "sys.stdout.close()", "os.dup2(0, 1)"])
def test_a_closed_standard_stream_is_open_again(close):
    done = run(f"""
        print("before", flush=True)
        with contained():
            {close}
        print("after")
    """)
    assert (done.stdout, done.returncode) == ("before\nafter\n", 0)


def test_where_all_copies_were_closed_too_printing_is_lost_and_nothing_else():
    done = run("""
        with contained():
            os.closerange(0, 20000)
        print("lost", flush=True)
    """)
    assert done.returncode == 0


def test_a_kept_descriptor_holds_its_lock_through_closing(tmp_path):
    done = run(f"""
        import fcntl
        from evolve.scoring.process_state import kept_open
        with open({str(tmp_path / "lock")!r}, "w") as held, kept_open(held.fileno()):
            fcntl.flock(held, fcntl.LOCK_EX)
            with contained():
                os.closerange(3, 200)
            with open({str(tmp_path / "lock")!r}) as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    print("held")
    """)
    assert (done.stdout, done.stderr) == ("held\n", "")


@pytest.mark.parametrize("after", ["pass", "raise ValueError", "sys.exit(0)"])
def test_a_forked_child_ends_where_the_code_does(after):
    done = run(f"""
        try:
            with contained():
                child = os.fork()
                if child == 0:
                    {after}
        finally:
            print("once", flush=True)
        os.waitpid(child, 0)
    """)
    assert (done.stdout, done.returncode) == ("once\n", 0)
