"""The home of `ray`: a process that does nothing but drive Ray, and does for a pool what that orders over a pipe.

Ray ends the process that drives it when it loses its cluster, prints what it likes, and may hang for ever. All of that
happens here, where nothing is lost by it: the search is in the process on the other end of the pipe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evolve.evaluation.crew import CrewOptions, Report
from evolve.evaluation.ray_session import end_session
from evolve.evaluation.worker import Worker
from evolve.waiting_threads import WAITING_VARIABLES

BEAT_SECONDS = 2.0
CONNECT_SECONDS = 40.0  # to a cluster
START_SECONDS = 180.0  # of a Ray of our own, on a busy machine
STARTS = 4  # of it: Ray gives up after 30 seconds
CLOSE_SECONDS = 5.0  # for engines to give their memory back
SHUTDOWN_SECONDS = 10.0
OBJECT_STORE_BYTES = 200 * 2**20  # recipes and scores go through it, no models
PASSED_ON = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", *WAITING_VARIABLES)
OWN_PROCESSES = ("gcs_server", "raylet")
STOPPED_BEATS = 5  # in a row, after which one that is stopped counts as dead
NODE_SECONDS = 3.0  # for a node to answer
HEAD_BEATS = 10  # in a row without a cluster's head, which may be started again meanwhile


class RayHost:
    """Carries out orders, each in a thread of its own, since each waits for one worker.

    Args:
        connection: to the pool. What is sent: `Report`s, None as a sign of life, or a text: why there will be no more.
        options: which workers.
    """

    def __init__(self, connection: Connection, options: CrewOptions) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._options = options
        self._actors: dict[int, Any] = {}
        self._processes: dict[int, tuple[str, int]] = {}  # worker -> node and process id
        self._connected = False
        self._stopped = 0  # beats in a row that found one of Ray's own processes stopped
        threading.Thread(target=self._beat, daemon=True).start()

    def connect(self) -> None:
        """Start a local Ray, or connect to a cluster."""
        options = self._options
        arguments: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if options.address is None:
            # As many slots as were asked for, whatever the cores.
            arguments |= {
                "address": "local",
                "include_dashboard": False,
                "num_cpus": max(options.count * options.cpus, 1),
                "resources": {name: amount * options.count for name, amount in options.resources.items()} or None,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": f"{options.session}/ray",  # which Ray opens to everybody
            }
        else:
            arguments["address"] = options.address
        try:
            _begin(arguments, STARTS if options.address is None else 1)
        except Exception as error:  # Ray raises what it likes here, and nobody else would hear of it
            where = f"the cluster at {options.address}" if options.address else "a local Ray"
            self._send(
                f"ray: {where} could not be started or reached: {_last_line(error)}. "
                "Check ray.address, or set workers.engine: in_process"
            )
            return
        there = float(ray.cluster_resources().get("GPU", 0.0))
        if options.address is None and options.count * options.gpus > there:  # Ray would wait for them for ever
            self._send(
                f"workers: {options.count} with {options.gpus:g} GPUs each want {options.count * options.gpus:g}, and "
                f"this machine has {there:g}. Set workers.gpus: 0, or less than 1 to share a GPU"
            )
            return
        # Ray would otherwise set OMP_NUM_THREADS to 1.
        environment = {"OMP_NUM_THREADS": str(options.cpus), "MKL_NUM_THREADS": str(options.cpus)}
        environment |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._actor_class = ray.remote(Worker).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            resources=dict(options.resources),
            runtime_env={"env_vars": environment},
        )
        self._node = ray.get_runtime_context().get_node_id()
        self._connected = True
        if options.address is not None and not options.address.startswith("ray://"):  # behind which nothing is seen
            head = ray.get_runtime_context().gcs_address
            threading.Thread(target=self._watch_head, args=(head,), daemon=True).start()

    def serve(self) -> bool:
        """Carry out orders until the pool closes; False where the pool is gone without a word."""
        orders: dict[str, Callable[..., None]] = {"start": self._start, "ask": self._ask, "end": self._end}
        while True:
            try:
                name, *arguments = self._connection.recv()
            except (EOFError, OSError):
                return False
            if name == "close":
                return True
            if not self._connected:
                continue
            try:
                orders[name](*arguments)
            except Exception as error:
                traceback.print_exc()
                if name != "end":
                    worker, order = arguments[:2]
                    self._send(Report(worker, order, death=death_of(error)))

    def close(self, gently: bool) -> None:
        """End the workers, and Ray where it is ours. What hangs is left behind; the session's end kills it."""
        closing = threading.Thread(target=self._close, args=(gently,), daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS + SHUTDOWN_SECONDS)

    def _close(self, gently: bool) -> None:
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError, ValueError):
            if gently and self._actors:
                ended = [actor.close.remote() for actor in self._actors.values()]
                ray.wait(ended, num_returns=len(ended), timeout=CLOSE_SECONDS)  # a busy one is killed as it is
            for worker in list(self._actors):
                self._end(worker)
            ray.shutdown()

    def _start(self, worker: int, order: int) -> None:
        actor = self._actors[worker] = self._actor_class.remote(self._options.settings)

        def start() -> None:
            self._processes[worker] = found = ray.get(actor.__ray_call__.remote(_settle, os.getcwd()))
            self._send(Report(worker, order, placed=found[0]))
            ray.get(actor.start.remote())

        self._carry_out(worker, order, start)

    def _ask(self, worker: int, order: int, method: str, *arguments: Any) -> None:
        actor = self._actors[worker]
        self._carry_out(worker, order, lambda: ray.get(getattr(actor, method).remote(*arguments)))

    def _end(self, worker: int) -> None:
        actor, process = self._actors.pop(worker, None), self._processes.pop(worker, None)
        if actor is None:
            return
        if process is not None and process[0] == self._node:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process[1], signal.SIGKILL)
        elif process is not None:  # one that is stopped does not hear Ray
            on_its_node = NodeAffinitySchedulingStrategy(process[0], soft=False)
            ray.remote(_kill).options(num_cpus=0, scheduling_strategy=on_its_node).remote(process[1])
        ray.kill(actor, no_restart=True)

    def _carry_out(self, worker: int, order: int, call: Callable[[], Any]) -> None:
        def report() -> None:
            try:
                found = Report(worker, order, answer=call())
            except ray.exceptions.RayTaskError as error:  # the worker lives, and raised this
                found = Report(worker, order, error=_ours(error.cause) or RuntimeError(_last_line(error)))
            except Exception as error:  # every order is answered, or the pool would wait for ever
                gone = self._node_is_gone(worker)
                found = Report(
                    worker, order, death="its node is gone" if gone else death_of(error), by_its_machine=gone
                )
            self._send(found)

        threading.Thread(target=report, daemon=True).start()

    def _node_is_gone(self, worker: int) -> bool:
        """Whether a worker ended with its node, of which Ray learns later than of the worker."""
        node_id = self._processes.get(worker, (self._node, 0))[0]
        time.sleep(1.0)  # they may be killed one after the other
        with contextlib.suppress(RuntimeError):
            for node in ray.nodes():
                if node["NodeID"] == node_id and node["Alive"]:
                    address = node["NodeManagerAddress"], node["NodeManagerPort"]
                    with contextlib.suppress(OSError), socket.create_connection(address, timeout=NODE_SECONDS):
                        return False
        return True

    def _beat(self) -> None:
        """A sign of life every other second, as long as Ray answers."""
        began = time.monotonic()
        while True:
            time.sleep(BEAT_SECONDS)
            reason = self._lost(time.monotonic() - began)
            self._send(reason)
            if reason is not None:
                return

    def _watch_head(self, address: str) -> None:
        """Tell that a cluster's head is gone, for which Ray waits a minute: nodes go on, and `ray.nodes` hangs.

        Args:
            address: of the head, with its port.
        """
        host, _, port = address.rpartition(":")
        away = 0  # beats, which are counted: a machine that slept has missed none
        while away < HEAD_BEATS:
            time.sleep(BEAT_SECONDS)
            away += 1
            with contextlib.suppress(OSError):
                socket.create_connection((host.strip("[]"), int(port)), timeout=NODE_SECONDS).close()
                away = 0
        self._send(f"ray: the head of the cluster at {self._options.address} is gone")

    def _lost(self, seconds: float) -> str | None:
        """Why nothing more can be expected of Ray, so many seconds after the beginning."""
        if not self._connected:
            address = self._options.address
            limit, what = (START_SECONDS, "a local Ray") if address is None else (CONNECT_SECONDS, address)
            return f"ray: {what} did not answer within {limit:.0f} seconds" if seconds > limit else None
        if self._options.address is None:
            found = {child.name(): child.status() for child in psutil.Process().children()}
            alive = [name for name in OWN_PROCESSES if found.get(name, psutil.STATUS_ZOMBIE) != psutil.STATUS_ZOMBIE]
            running = [name for name in alive if found[name] != psutil.STATUS_STOPPED]
            self._stopped = self._stopped + 1 if len(running) < len(alive) else 0
            if len(alive) < len(OWN_PROCESSES):
                return f"ray: {_first_without(alive)}, a process of Ray's own, was killed"
            if self._stopped >= STOPPED_BEATS:
                return f"ray: {_first_without(running)}, a process of Ray's own, is stopped"
        if not any(node["NodeID"] == self._node and node["Alive"] for node in ray.nodes()):
            return "ray: this machine's node of the cluster is gone"
        return None

    def _send(self, message: Report | str | None) -> None:
        with self._sending, contextlib.suppress(OSError):  # nobody listens any more
            self._connection.send(message)


def _begin(arguments: dict[str, Any], starts: int) -> None:
    """`ray.init`; again where that fails, as on a busy machine, as often as there are starts."""
    try:
        ray.init(**arguments)
    except Exception:
        ray.shutdown()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if starts <= 1:
            raise
        _begin(arguments, starts - 1)


def _first_without(names: list[str]) -> str:
    return next(name for name in OWN_PROCESSES if name not in names)


def _settle(_: Worker, directory: str) -> tuple[str, int]:
    """In a worker's process: go where the run was started, if this node has that, and tell node and process id."""
    with contextlib.suppress(OSError):
        os.chdir(directory)  # relative paths of models mean the same as there
    # Ray would raise SystemExit in whatever is at work, and the candidate be blamed for it. So the worker is replaced.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return ray.get_runtime_context().get_node_id(), os.getpid()


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _ours(error: object) -> Exception | None:
    """An error of our own packages, which the pool's process knows, too."""
    ours = type(error).__module__.split(".")[0] in ("evolve", "merge_core")
    return error if isinstance(error, Exception) and ours else None


def death_of(error: BaseException) -> str:
    """How a worker's process ended, in one line, of what Ray says at length."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray ended it, since the machine was almost out of memory"
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    if "killed by `ray.kill`" in text:
        return "it was ended"
    if found := re.search(r"exit code (\d+)", text):
        return f"its process ended with exit code {found[1]}"
    if "connection error code 2" in text:
        return "its process ended without a word: killed, out of memory, a crash, or a call of os._exit"
    return text.split("Worker exit detail: ")[-1].split(". ")[0]


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def main(descriptor: int) -> None:
    """Serve the pool at the other end of an inherited pipe until it is closed or gone."""
    with Connection(descriptor) as connection:
        options: CrewOptions = connection.recv()
        host = RayHost(connection, options)
        host.connect()
        in_order = host.serve()
        host.close(gently=in_order)
    if not in_order:  # the pool's process was killed, and nobody else will tidy up
        end_session(Path(options.session))
    os._exit(0)  # whatever threads still wait for


if __name__ == "__main__":
    main(int(sys.argv[1]))
