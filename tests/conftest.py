"""What concerns all tests: their order, and the command line in this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from evolve.commands import cli

# Read when triton is imported, which whatever test imports torch's compiler may do first.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]

# By default an example may take 0.2 s of the wall clock, which the first one does on a machine that is at work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take long come first: with several processes, none works on one at the end while the others wait.

    Those that take minutes are left out, unless they are asked for.
    """
    if "faults" not in config.getoption("-m"):
        left_out = [item for item in items if item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Whoever collects garbage, as every backend does that is closed, goes through what tests make and no more.

    Before that it is the millions of objects of all libraries and tests, which takes half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _disk_is_not_waited_for() -> Iterator[None]:
    """What is written is there for every process that is killed; that a disk has it is for when power fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def evolve(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """``evolve("run", ...)`` in the repository, with its exit code and everything that reaches the streams.

    A process of its own would spend most of its time on importing torch.
    """
    monkeypatch.chdir(ROOT)
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=stopped.value.code, stdout=printed.out, stderr=printed.err)

    return run
