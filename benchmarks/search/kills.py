"""A search whose process is killed at random moments, again and again: it must end as one that nothing happened to.

    python benchmarks/search/kills.py --kills 30
    python benchmarks/search/kills.py --kills 30 --workers 2   # with a local Ray, of which nothing may be left

The demo zoo's models as they are on disk, scored by what they say. Each run is a child of this process
that is ended by SIGKILL: while it opens the models, merges, scores, or writes the journal. At the end rows, best recipe
and the merged model are compared with those of an undisturbed run; the exit code is 1 where they differ.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from soak import write_search
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401  # once, in the parent of all runs

import evolve.actions.run  # noqa: F401
from evolve.commands import cli
from evolve.config.reader import read_search
from evolve.evaluation.ray_session import MARK, processes_of
from evolve.preflight.prepare import prepare

SCORER = """
def score(model, items):
    texts = ["sort: cab > abc", "shift: abc > bcd", "reverse: abc > cba", "abc"]
    return [value / 100 for value in model.text_loglikelihood([texts[item] for item in items])]
"""
# What does not depend on how long things took.
TIMES = {"merge_seconds", "forward_seconds", "total_seconds"}


@dataclass
class Run:
    """`evolve run` in a child of this process."""

    search: Path
    output: Path
    workers: int
    sessions: set[Path] = field(default_factory=set)  # of Rays that it was killed with

    def begin(self) -> int:
        """Start it, or go on with it. Returns the child's id."""
        child = os.fork()
        if child == 0:
            quiet = os.open(self.output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = 1
            try:
                cli.main(["run", str(self.search), "--output", str(self.output), "--workers", str(self.workers)])
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        return child

    def finished(self) -> dict[str, object]:
        """Go on to its end. Returns what a person takes away."""
        _, status = os.waitpid(self.begin(), 0)
        if status:
            sys.exit(f"the run ended with {status}: {self.output.with_suffix('.log').read_text()}")
        with (self.output / "trials.csv").open(newline="") as file:
            rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
        summary = json.loads((self.output / "run.json").read_text())
        recipe = (self.output / "best_recipe.yml").read_text()
        return {"rows": rows, "recipe": recipe, "model": summary["fingerprint"], "best": summary["best"]}

    def killed(self, more: int, seconds: float) -> bool:
        """Kill it some time after it has written so many results. Returns whether it still ran."""
        before, child = self.results, self.begin()
        while self.results < before + more and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        time.sleep(seconds)
        self.sessions |= sessions_of(child)
        try:
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        except (ProcessLookupError, ChildProcessError):  # it has come to its end
            return False

    @property
    def results(self) -> int:
        """How many are in its journal."""
        journal = self.output / "journal.log"
        return journal.read_bytes().count(b'"result"') if journal.is_file() else 0


def sessions_of(driver: int) -> set[Path]:
    """The directories of the Rays that a process and its children have started."""
    names: set[str] = set()
    with contextlib.suppress(psutil.Error):  # it has ended
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                names.add(process.environ().get(MARK, ""))
    return {Path(name) for name in names if name}


def left_of(sessions: set[Path], seconds: float = 60.0) -> list[str]:
    """What is left of Rays after a while: directories, and processes."""
    end = time.monotonic() + seconds
    while True:
        found = [str(directory) for directory in sessions if directory.exists()]
        found += [process.name() for directory in sessions for process in processes_of(directory)]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def main() -> None:
    """An undisturbed run, one that is killed, and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as text:
        search = write_search(Path(text), SCORER, options.candidates)
        prepare(read_search(search))  # what that imports need no run import again
        began = time.monotonic()
        whole = Run(search, Path(text) / "whole", 1).finished()
        seconds = time.monotonic() - began
        print(f"undisturbed: {len(whole['rows'])} rows in {seconds:.1f} s", flush=True)  # type: ignore[arg-type]
        run, kills, lost = Run(search, Path(text) / "killed", options.workers), 0, list[int]()
        for _ in range(options.kills):
            # A third of the runs dies before it scores anything, or thereabouts; the last finds a search to kill.
            more = max(0, round(moments.uniform(-0.5, 1.0) * options.candidates / options.kills))
            kills += run.killed(more, moments.uniform(0.0, (0.02 if more else 0.5) * seconds))
            lost.append(run.results)
        print(f"killed: {kills} times; results after each: {' '.join(map(str, lost))}", flush=True)
        found = run.finished()
        left = left_of(run.sessions)
        print(f"left of {len(run.sessions)} Rays: {', '.join(left) or 'nothing'}")
    different = [name for name, value in whole.items() if found[name] != value]
    print(f"equal: {', '.join(name for name in whole if name not in different)}")
    # On a fast machine a search may end between two kills; that all of them come is for long ones.
    if different or left or not kills or lost != sorted(lost):
        sys.exit(f"different: {', '.join(different) or 'nothing'}; killed {kills} of {options.kills} times")


if __name__ == "__main__":
    main()
