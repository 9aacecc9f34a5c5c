"""The first signal asks, the second ends at once, whichever they are."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from evolve.scoring.foreign_code import contained
from evolve.stopping import StoppedAtOnceError, soft_stop, starting_undisturbed, stopping_interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_sets_the_flag_and_the_second_is_raised(first: signal.Signals, second: signal.Signals):
    before = [signal.getsignal(number) for number in SIGNALS]
    stop, asked = threading.Event(), []

    def ask_twice() -> None:
        with soft_stop(stop, lambda: asked.append(stop.is_set())):
            os.kill(os.getpid(), first)
            assert asked == [True]
            os.kill(os.getpid(), second)
            pytest.fail("went on")

    with pytest.raises(StoppedAtOnceError):
        ask_twice()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_passes_through_code_that_is_contained(second: signal.Signals):
    stop, scored = threading.Event(), []

    def ask_twice() -> None:
        with soft_stop(stop, lambda: None):
            with contained():  # a scorer, during which the first comes
                os.kill(os.getpid(), signal.SIGINT)
            scored.append(stop.is_set())
            with contained():
                os.kill(os.getpid(), second)

    with pytest.raises(StoppedAtOnceError):
        ask_twice()
    assert scored == [True]


@pytest.fixture
def in_the_background():
    """A shell has commands that it starts with `&` ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def stop_softly():
    return soft_stop(threading.Event(), lambda: None)


@pytest.mark.parametrize(("heard", "times"), [(stop_softly, 2), (stopping_interrupts, 1)])
@pytest.mark.usefixtures("in_the_background")
def test_what_ends_a_program_in_the_background_is_no_failure_of_code_that_is_contained(heard, times):
    def asked_to_end() -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), heard(), contained():
        asked_to_end()


def test_a_second_that_comes_while_an_object_is_finalized_is_not_lost():
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            finalized.append(True)  # the handler runs before this

    stop, finalized = threading.Event(), list[bool]()

    def ask_twice() -> None:
        with soft_stop(stop, lambda: None):
            os.kill(os.getpid(), signal.SIGINT)
            held = Finalized()
            del held
            threading.Event().wait(60)  # work that goes on

    hook = sys.unraisablehook
    with pytest.raises(StoppedAtOnceError):
        ask_twice()
    assert not finalized
    assert sys.unraisablehook is hook


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = threading.Event()
        with soft_stop(stop, lambda: pytest.fail("asked")):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_message_that_cannot_be_written_at_that_moment_does_not_undo_the_stop():
    def reentrant() -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    stop = threading.Event()
    with soft_stop(stop, reentrant):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.is_set()


@pytest.mark.parametrize("number", SIGNALS)
def test_whoever_asks_a_program_to_end_interrupts_it(number: signal.Signals):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stopping_interrupts():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_what_nohup_ignores_does_not_interrupt():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("threads", [0, 1])
def test_a_process_is_started_before_a_signal_is_heard(threads):
    """Another thread, which hears it at once, is no reason either."""
    started, over = [], threading.Event()
    for _ in range(threads):
        threading.Thread(target=over.wait).start()

    def start() -> None:
        with starting_undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # until that thread has heard it
            started.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    over.set()
    assert started == [True]
