"""Two workers on a real Ray: they give what one process gives, whatever happens to them, and leave nothing behind."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address

import psutil
import pytest
from zoo_requests import REQUESTS, ROOT, recipe, settings

from evolve.evaluation import ray_crew
from evolve.evaluation.crew import CrewOptions
from evolve.evaluation.evaluator import InProcessEvaluator
from evolve.evaluation.ray_crew import RayCrew
from evolve.evaluation.ray_session import MARK, processes_of
from evolve.evaluation.request import GradientRequest
from evolve.evaluation.unavailable import WorkersUnavailableError
from evolve.evaluation.worker_pool import WorkerPool

pytestmark = pytest.mark.slow


class RealPool(WorkerPool):
    """A pool that can be looked into."""

    def __init__(self, **changes):
        values = {"settings": settings(threads=2), "count": 2, "cpus": 2, "gpus": 0.0, **changes}
        self.crew = RayCrew(CrewOptions(**values))
        self.directory = self.crew._session.directory
        self.notices = []
        super().__init__(self.crew, values["count"], self.notices.append)

    def processes(self, name=""):
        return [process for process in processes_of(self.directory) if name in process.name()]

    def threads_of_worker(self, worker):
        order = self.crew.ask(worker, "threads")
        while True:
            for report in self.crew.wait(10):
                if report.order == order:
                    return report.answer


@pytest.fixture(scope="module")
def in_process():
    evaluator = InProcessEvaluator(settings())
    return {result.number: result for result in evaluator.evaluate(REQUESTS)}


@pytest.fixture(scope="module")
def pool():
    made = RealPool()
    yield made
    made.close()


def test_the_first_sign_of_life_may_take_longer_than_the_next(monkeypatch):
    """Ray and torch are imported before it, on a busy machine or from a network's disk."""
    monkeypatch.setattr(ray_crew, "FIRST_SECONDS", 3)
    monkeypatch.setattr(ray_crew, "QUIET_SECONDS", 1)
    silent = functools.partial(subprocess.Popen, ["sleep", "100"])
    monkeypatch.setattr(ray_crew.subprocess, "Popen", lambda command, pass_fds, **_: silent(pass_fds=pass_fds))
    crew = RayCrew(CrewOptions(settings=settings(threads=1), count=1, cpus=1, gpus=0.0))
    try:
        assert crew.wait(2) == []
        crew._messages.put(None)
        assert crew.wait(1) == []
        with pytest.raises(WorkersUnavailableError, match="not answered for 1 seconds"):
            crew.wait(1)
    finally:
        crew.close()


def assert_same(results, in_process):
    results = list(results)
    assert {result.number: result.scores for result in results} == {
        number: result.scores for number, result in in_process.items()
    }
    assert {result.number: result.failure for result in results} == {
        number: result.failure for number, result in in_process.items()
    }


def test_ray_gives_what_one_process_gives(in_process, pool):
    assert_same(pool.evaluate(REQUESTS), in_process)


def test_ray_differentiates_as_one_process_does(pool):
    steps = [
        GradientRequest(number, recipe(weight), {"demo_sorting": (0, 1, 2)}, {"demo_sorting": 1.0}, exponent=0.25)
        for number, weight in enumerate((0.3, 0.5, float("nan")))
    ]
    here = {found.number: found for found in InProcessEvaluator(settings(threads=2)).differentiate(steps)}
    there = {found.number: found for found in pool.differentiate(steps)}
    assert [here[number].failure is None for number in range(3)] == [True, True, False]
    for number, found in there.items():
        assert replace(found, seconds=0.0) == replace(here[number], seconds=0.0)


def test_workers_use_the_threads_they_were_given(pool):
    assert [pool.threads_of_worker(worker) for worker in range(2)] == [2, 2]


def test_the_fingerprint_is_that_of_the_merged_files(pool, tmp_path, monkeypatch):
    from merge_core import Recipe, merge

    monkeypatch.chdir(ROOT)
    saved = merge(Recipe.from_mapping(recipe(0.2)), tmp_path / "model", seed=0)
    assert pool.fingerprint(recipe(0.2)) == saved.fingerprint


def test_a_local_ray_listens_on_the_loopback_interface_alone(pool):
    processes = pool.processes()
    listening = {
        (process.name(), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    names = {name for name, _ in listening}
    assert {"gcs_server", "raylet", "ray::Worker"} <= names
    for name, address in listening:
        found = ip_address(address)
        assert (getattr(found, "ipv4_mapped", None) or found).is_loopback, name


def test_a_local_ray_asks_for_a_token(pool):
    port = next(
        connection.laddr.port
        for connection in pool.processes("gcs_server")[0].net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    )
    stranger = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", MARK))}
    stranger |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    code = f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False)"
    done = subprocess.run([sys.executable, "-c", code], env=stranger, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "auth" in done.stderr.lower()


def test_a_killed_worker_is_replaced_and_its_candidate_tried_again(in_process, pool, capfd):
    pool.notices.clear()
    results = []
    for result in pool.evaluate(REQUESTS):
        if not results:
            pool.processes("ray::Worker")[0].kill()
        results.append(result)
    assert_same(results, in_process)
    assert len(pool.notices) <= 1  # it may have died with nothing to do
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""  # none of Ray's own lines


@pytest.mark.faults  # waits for a minute
def test_a_worker_that_is_stopped_is_killed_after_its_time(in_process, pool):
    victims = pool.processes("ray::Worker")
    victims[0].suspend()
    assert_same(pool.evaluate([replace(request, time_limit=60.0) for request in REQUESTS]), in_process)
    _, alive = psutil.wait_procs(victims[:1], timeout=60)
    assert not alive


def test_nothing_is_left_of_a_pool_that_is_closed(pool):
    processes = pool.processes()
    assert processes
    pool.close()
    assert not pool.directory.exists()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


def test_gpus_that_the_machine_has_not_are_said_and_not_waited_for():
    with pytest.raises(WorkersUnavailableError, match=r"2 with 999 GPUs each want 1998, and this machine has"):
        RealPool(gpus=999.0)
