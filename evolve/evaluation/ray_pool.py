"""The home of `ray`: a pool of actors, each with a live model of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.trials.trial import Evaluation

START_SECONDS = 1800  # models may have to be downloaded first
CLOSE_SECONDS = 5  # for an engine to give its memory back
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

MAX_ATTEMPTS = 3  # of one candidate; an actor that dies takes its candidate with it


class RayUnavailableError(RuntimeError):
    """Ray could not be started, the cluster not reached, or the actors not placed."""


class RayPool:
    """Scores recipes on Ray actors.

    Each actor is told how many threads to use: Ray would otherwise set OMP_NUM_THREADS to 1. An actor that dies is
    replaced, and its candidate tried again, up to `MAX_ATTEMPTS` times; then the candidate is recorded as failed.
    """

    def __init__(
        self, settings: WorkerSettings, count: int, cpus: int, gpus: float, address: str | None = None
    ) -> None:
        # Children of this process print what Ray's own metrics agent cannot reach; none of it concerns the user.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        self.workers = count
        self._owns_ray = not ray.is_initialized()
        self._actors: list[Any] = []
        if self._owns_ray:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if address is None:
                # A local cluster listens on loopback only and has as many slots as were asked for, whatever the cores.
                options |= {
                    "include_dashboard": False,
                    "num_cpus": max(count * cpus, 1),
                    "_node_ip_address": "127.0.0.1",
                }
            else:
                options["address"] = address
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                where = f"the cluster at {address}" if address else "a local Ray"
                raise RayUnavailableError(
                    f"ray: {where} could not be started or reached: {_one_line(error)}. "
                    "Check ray.address, or set workers.engine: in_process"
                ) from None
        there = float(ray.cluster_resources().get("GPU", 0.0))
        if address is None and count * gpus > there:  # Ray would wait for them for ever
            self.close()
            raise RayUnavailableError(
                f"workers: {count} with {gpus:g} GPUs each want {count * gpus:g}, and this machine has {there:g}. "
                "Set workers.gpus: 0, or less than 1 to share a GPU"
            )
        environment = {"OMP_NUM_THREADS": str(cpus), "MKL_NUM_THREADS": str(cpus)}
        environment |= {
            name: os.environ[name]
            for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME")
            if name in os.environ
        }
        self._actor_class = ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": environment}
        )
        self._settings = settings
        self._actors = [self._actor_class.remote(settings) for _ in range(count)]
        self._start(self._actors)

    def _start(self, actors: list[Any]) -> None:
        """Wait until actors have loaded models and tasks.

        Raises:
            MergeError, TaskError: what the worker raised.
            RayUnavailableError: an actor was not placed in time, or died.
        """
        ray = self._ray
        try:
            ray.get([actor.start.remote() for actor in actors], timeout=START_SECONDS)
        except ray.exceptions.GetTimeoutError:
            self.close()
            raise RayUnavailableError(
                f"ray: the workers did not start within {START_SECONDS // 60} minutes; the cluster may lack the CPUs "
                "or GPUs that workers asks for, or the models are still being downloaded: run again"
            ) from None
        except ray.exceptions.RayError as error:
            self.close()
            cause = getattr(error, "cause", None)
            if isinstance(cause, ValueError):
                raise cause from None
            raise RayUnavailableError(f"ray: a worker could not start: {_one_line(error)}") from None

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """Yield in the order of completion; each worker holds one request at a time."""
        return self._answers(
            requests,
            lambda actor, request: actor.evaluate.remote(request),
            lambda request, failure: Evaluation(request.number, failure=failure),
        )

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As `evaluate`."""
        return self._answers(
            requests,
            lambda actor, request: actor.differentiate.remote(request),
            lambda request, failure: Slopes(request.number, failure=failure),
        )

    def _answers(
        self,
        requests: Iterable[Asked | None],
        ask: Callable[[Any, Asked], Any],
        failed: Callable[[Asked, str], Answered],
    ) -> Iterator[Answered]:
        """Spread requests over the workers.

        Args:
            requests: what is asked.
            ask: begins one on an actor, and gives its future.
            failed: what stands for the answer of one at which every worker died.
        """
        ray = self._ray
        waiting = iter(requests)
        free = list(range(len(self._actors)))
        running: dict[Any, tuple[int, Asked, int]] = {}  # future -> (worker, request, attempt)
        retry: list[tuple[Asked, int]] = []

        def submit(worker: int, request: Asked, attempt: int) -> None:
            running[ask(self._actors[worker], request)] = (worker, request, attempt)

        while True:
            while free:
                if retry:
                    submit(free.pop(0), *retry.pop(0))
                    continue
                request = next(waiting, None)
                if request is None:  # none any more, or none until another is finished
                    break
                submit(free.pop(0), request, 1)
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for future in done:
                worker, request, attempt = running.pop(future)
                try:
                    answer = ray.get(future)
                except ray.exceptions.RayError as error:
                    if isinstance(cause := getattr(error, "cause", None), ValueError):
                        raise cause from None  # the user's to mend: an engine that does not start, for one
                    self._replace(worker)
                    if attempt < MAX_ATTEMPTS:
                        retry.append((request, attempt + 1))
                    else:
                        yield failed(request, f"the worker died {attempt} times: {_one_line(error)}")
                else:
                    yield answer
                free.append(worker)

    def _replace(self, worker: int) -> None:
        """A new actor. If it cannot start, the search stops, and its candidates stay to be scored."""
        self._ray.kill(self._actors[worker], no_restart=True)
        self._actors[worker] = self._actor_class.remote(self._settings)
        self._start([self._actors[worker]])

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """Of the model in the first worker, or in its replacement."""
        try:
            return str(self._ray.get(self._actors[0].fingerprint.remote(recipe)))
        except self._ray.exceptions.ActorError:
            self._replace(0)
            return str(self._ray.get(self._actors[0].fingerprint.remote(recipe)))

    def close(self) -> None:
        """End the engines, the actors and, if this pool started it, Ray."""
        ray = self._ray
        ended = [actor.close.remote() for actor in self._actors]
        if ended:
            ray.wait(ended, num_returns=len(ended), timeout=CLOSE_SECONDS)  # a busy one is killed as it is
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._actors = []
        if self._owns_ray:
            ray.shutdown()


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
