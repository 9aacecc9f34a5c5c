"""Ray, its workers, its nodes and its driver killed while a search runs: the search ends as one that nobody disturbed.

Every test starts Rays and takes minutes: `pytest -m faults`.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from finished_runs import trials

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "items.search=20",
    "items.held_out=30",
    "budget={evaluations: 40}",
    "start=references",
    "optimizer={name: cma, population_size: 10, sigma: 0.15}",
    "workers.cpus=1",
    "validation.finalists=2",
    "simplify=off",
]
HOST = "evolve.evaluation.ray_host"

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


class Run:
    """`evolve run` with two workers, in a process of its own."""

    def __init__(self, output, *settings, workers=2, file="configs/demo.yml", environment=()):
        sets = [text for setting in [*SETTINGS, *settings] for text in ("--set", setting)]
        command = ["-m", "evolve.commands.cli", "run", str(file), "--output", str(output), "--workers", str(workers)]
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, *command, *sets],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **dict(environment)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_results(self, count):
        """Until so many trials are in the journal."""
        journal = self.output / "journal.log"
        while not (journal.exists() and journal.read_text(errors="replace").count('"result"') >= count):
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.05)

    def processes(self, name):
        """Of its Ray: by name, or by what stands in the command line."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in found if name in one.name() or name in " ".join(one.cmdline())]

    def session(self):
        return Path(self.processes(HOST)[0].environ()["EVOLVE_RAY_SESSION"])

    def end(self, seconds=600):
        """Its exit code, and what it said."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


def assert_equal(output, undisturbed):
    assert trials(output) == trials(undisturbed)
    assert (output / "best_recipe.yml").read_bytes() == (undisturbed / "best_recipe.yml").read_bytes()


def shared_memory():
    """What Ray and we have there, by name; other programs may use it, too."""
    return {path.name for path in Path("/dev/shm").glob("*") if path.name.startswith(("plasma", "ray", "evolve"))}


def assert_gone(processes, directory, seconds):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive
    deadline = time.monotonic() + seconds
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not directory.exists()
    assert not shared_memory()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, said = Run(output, workers=1).end()
    assert code == 0, said
    return output


@pytest.mark.parametrize("victim", ["raylet", "gcs_server", HOST])
def test_a_killed_part_of_ray_ends_the_run_with_one_error_and_it_goes_on(victim, undisturbed, tmp_path):
    run = Run(tmp_path / "run")
    run.wait_for_results(15)
    processes, session = run.processes(""), run.session()
    run.processes(victim)[0].kill()
    killed = time.monotonic()
    code, said = run.end(60)
    assert time.monotonic() - killed < 60
    assert code == 1
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "ray: " in lines[0]
    assert "Go on with: evolve run" in said
    for foreign in ("\x1b", "Traceback", "(raylet)", "Raylet is terminated"):
        assert foreign not in said
    assert_gone(processes, session, 5)
    code, said = Run(tmp_path / "run").end()
    assert code == 0, said
    assert_equal(tmp_path / "run", undisturbed)


def test_nothing_of_ray_outlives_a_killed_driver(undisturbed, tmp_path):
    moments = random.Random(3)
    for kill in range(2):
        run = Run(tmp_path / "run")
        run.wait_for_results(12 * (kill + 1))
        time.sleep(moments.uniform(0, 0.5))
        processes, session = run.processes(""), run.session()
        run.process.kill()
        run.end()
        assert_gone(processes, session, 60)
    code, said = Run(tmp_path / "run").end()
    assert code == 0, said
    assert_equal(tmp_path / "run", undisturbed)


def test_killed_and_stopped_workers_are_replaced(undisturbed, tmp_path):
    run = Run(tmp_path / "run")
    for count in (3, 12, 25):
        run.wait_for_results(count)
        run.processes("ray::Worker")[0].kill()
    code, said = run.end()
    assert code == 0, said
    assert "is replaced" in said
    assert_equal(tmp_path / "run", undisturbed)


class LocalCluster:
    """Nodes that are processes of this machine."""

    def __init__(self, directory, *cpus):
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": directory,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_raylet_start_wait_time_s": "120",  # on a busy machine
        }
        self._log = Path(directory) / "cluster.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "local_cluster.py"), *map(str, cpus)],
                env={**os.environ, **self.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.address = self._next("address")

    def do(self, *words):
        print(*words, file=self._process.stdin, flush=True)
        self._next("done")

    def _next(self, word):
        """What it says after a word at the beginning of a line."""
        for line in self._process.stdout:
            if line.split()[:1] == [word]:
                return line.removeprefix(word).strip()
        pytest.fail(f"the cluster has ended: {self._log.read_text()[-2000:]}")

    def close(self):
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.communicate(timeout=60)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


@pytest.fixture
def cluster():
    with tempfile.TemporaryDirectory(prefix="evolve-cluster-", ignore_cleanup_errors=True) as directory:
        made = LocalCluster(directory, 0, 1, 1)  # a head without room for workers, and two nodes with one each
        try:
            yield made
        finally:
            made.close()


def test_a_node_leaves_and_another_joins(cluster, undisturbed, tmp_path):
    run = Run(tmp_path / "run", f"ray.address={cluster.address}", environment=cluster.environment)
    run.wait_for_results(8)
    cluster.do("kill", 2)
    run.wait_for_results(20)
    cluster.do("add", 1)
    cluster.do("kill", 1)
    code, said = run.end()
    assert code == 0, said
    assert "its node is gone" in said
    assert_equal(tmp_path / "run", undisturbed)


def test_a_cluster_whose_head_dies_ends_the_run_with_one_error(cluster, tmp_path):
    endless = "budget={evaluations: 100000}"  # Ray's nodes do without their head for a while, and may end a short one
    run = Run(tmp_path / "run", f"ray.address={cluster.address}", endless, environment=cluster.environment)
    run.wait_for_results(3)
    cluster.do("kill", 0)
    killed = time.monotonic()
    code, said = run.end(120)
    assert time.monotonic() - killed < 60  # Ray itself waits that long for the head, while the nodes go on scoring
    assert "the head of the cluster" in said
    assert code == 1
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert "Go on with: evolve run" in said


SEARCH = """
recipe:
  merge_method: linear
  models:
    - {model: {zoo}/sorting, parameters: {weight: {low: 0.0, high: 1.0}}}
    - {model: {zoo}/reversal, parameters: {weight: {low: 0.0, high: 1.0}}}
  dtype: float32
tasks: [{python: "own:score", items: 60}]
"""
FAULTS = {
    "ends": "os._exit(3)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_scorer_that_ends_every_worker_stops_the_run_which_goes_on_once_it_is_mended(fault, tmp_path):
    broken = tmp_path / "broken"
    (tmp_path / "search.yml").write_text(SEARCH.replace("{zoo}", str(ROOT / "configs/demo_zoo")))
    (tmp_path / "own.py").write_text(
        "import os, signal\n\n\ndef score(model, items):\n"
        f"    if os.path.exists({str(broken)!r}):\n        {fault}\n    return [item % 2 for item in items]\n"
    )
    broken.touch()
    code, said = Run(tmp_path / "run", file=tmp_path / "search.yml").end()
    assert code == 1
    assert "error: 3 workers in a row ended at what they were asked" in said
    assert said.count("is replaced") <= 2
    assert "\x1b" not in said
    broken.unlink()
    code, said = Run(tmp_path / "run", file=tmp_path / "search.yml").end()
    assert code == 0, said
    assert all(row["state"] == "complete" for row in trials(tmp_path / "run"))


OWN = """
import os, signal, time
from pathlib import Path

from torch import Tensor

TEXTS = ["sort: cab > abc", "shift: abc > bcd", "reverse: abc > cba", "abc"]


def happen(place):
    \"\"\"What this place is told to do, once.\"\"\"
    mine = Path(__file__).with_name(f"{place}.{os.getpid()}")
    try:
        Path(__file__).with_name(place).rename(mine)
    except FileNotFoundError:
        return
    match mine.read_text():
        case "be killed": os.kill(os.getpid(), signal.SIGKILL)
        case "end": os._exit(3)
        case "be asked to end": os.kill(os.getpid(), signal.SIGTERM)
        case "hang": time.sleep(100_000)


def merged(tensors: list[Tensor], *, weight: list[float]) -> Tensor:
    happen("merge")
    return sum(share * tensor for share, tensor in zip(weight, tensors))


def score(model, items):
    found = [value / 100 for value in model.text_loglikelihood([TEXTS[item % len(TEXTS)] for item in items])]
    happen("score")
    return found
"""


def write_own(directory):
    directory.mkdir()
    search = SEARCH.replace("{zoo}", str(ROOT / "configs/demo_zoo")).replace("linear", "own:merged")
    (directory / "search.yml").write_text(search)
    (directory / "own.py").write_text(OWN)
    return directory / "search.yml"


@pytest.mark.parametrize(
    ("place", "faults"),
    # A score that takes too long is broken off in its worker, which lives: it is the candidate's.
    [("merge", ["be killed", "end", "hang"]), ("score", ["be killed", "end", "be asked to end"])],
)
def test_workers_that_end_and_hang_in_the_middle_of_a_candidate_are_replaced(place, faults, tmp_path):
    whole = Run(tmp_path / "whole", workers=1, file=write_own(tmp_path / "undisturbed"))
    code, said = whole.end()
    assert code == 0, said
    file = write_own(tmp_path / "disturbed")
    run = Run(tmp_path / "run", "workers.time_limit=20", file=file)
    for number, fault in enumerate(faults, start=1):
        run.wait_for_results(8 * number)
        (file.parent / "order").write_text(fault)
        (file.parent / "order").rename(file.parent / place)  # whole when it is seen
    code, said = run.end()
    assert code == 0, said
    assert said.count("is replaced") == len(faults), said
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_interrupt_reaches_the_run_alone(undisturbed, tmp_path):
    run = Run(tmp_path / "run")
    run.wait_for_results(10)
    processes, session = run.processes(""), run.session()
    run.process.send_signal(signal.SIGINT)
    code, said = run.end(120)
    assert code == 130, said
    assert_gone(processes, session, 5)
    code, said = Run(tmp_path / "run").end()
    assert code == 0, said
    assert_equal(tmp_path / "run", undisturbed)
