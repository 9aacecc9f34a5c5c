"""One live model: merges a recipe into it and scores it. The same in this process and in a Ray actor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from evolve.config.machines import BackendConfig
from evolve.evaluation.failures import is_foreseen, reason_of
from evolve.evaluation.live_model import LiveModel
from evolve.evaluation.node_directory import NodeDirectory
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.scored_content import ScoredContent
from evolve.evaluation.task_runner import TaskRunner
from evolve.evaluation.unavailable import UnsoundEngineError
from evolve.plugins import load_plugins
from evolve.scoring import ConstraintConfig, TaskConfig, TaskError, load_constraints, load_scorers
from evolve.scoring.backends.factory import check_installed
from evolve.scoring.foreign_code import contained
from evolve.scoring.language_model import LanguageModel
from evolve.scoring.scorers.given_functions import GivenFunctions
from evolve.trials.trial import Evaluation
from merge_core import Checkpoint, ModelReference, documents_of, open_checkpoints
from merge_core.errors import CutShortError
from merge_core.execute.merged_checkpoint import MergedCheckpoint
from merge_core.recipe.documents import DOCUMENTS
from merge_core.recipe.user_methods import find_method


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker needs, as plain values that travel to another machine."""

    models: tuple[str, ...]  # references as the user wrote them
    relative_to: str
    tokenizer_model: str  # whose tokenizer the live model uses
    tasks: tuple[TaskConfig, ...]
    task_search_path: tuple[str, ...]
    seed: int
    backend: BackendConfig
    threads: int | None
    run_models: tuple[tuple[str, Sequence[Mapping[str, Any]]], ...] = ()  # name -> documents that are merged in memory
    stand_ins: tuple[tuple[str, str], ...] = ()  # reference -> directory, for models not found by their name
    constraints: tuple[ConstraintConfig, ...] = ()
    statistics_cache: str | None = None  # where workers of a machine share what they find out about the models
    methods: tuple[str, ...] = ()  # that recipes may name; the user's own lie beside the search
    content: ScoredContent | None = None  # of tasks and constraints, which a worker must find as they were
    functions: GivenFunctions = field(default_factory=GivenFunctions)  # that tasks and constraints may name


class Worker:
    """Holds the checkpoints, the tasks and the live model, all loaded when first needed.

    Constructing it does nothing, so that in a Ray actor a failure to load is an answer and not a dead actor.

    Args:
        settings: everything it needs.
        on_read: is told of how many bytes of how many the first candidate was merged, which brings the models into
            memory; later ones find them there.

    Attributes:
        live: the model that candidates are written into, once started.
        tasks: what they are scored on, once started.
    """

    def __init__(self, settings: WorkerSettings, on_read: Callable[[int, int], None] | None = None) -> None:
        self._settings = settings
        self._on_read = on_read
        self._started = False

    def start(self) -> None:
        """Open models and tasks, once.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded.
        """
        if self._started:
            return
        settings = self._settings
        check_installed(settings.backend.name, settings.backend.quantization)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        root = Path(settings.relative_to)
        load_plugins()
        settings.functions.provide()
        for name in settings.methods:
            find_method(name, root)
        cache = settings.statistics_cache
        self.live = LiveModel(
            _open_models(settings, root),
            settings.tokenizer_model,
            settings.backend,
            settings.seed,
            None if cache is None else NodeDirectory(Path(cache)).path,
            self._on_read,
        )
        search_path = [Path(path) for path in settings.task_search_path]
        scorers = load_scorers(settings.tasks, search_path, settings.seed, root)
        constraints = load_constraints(settings.constraints, search_path, root)
        if settings.content is not None:
            settings.content.check(scorers, constraints)
        self.tasks = TaskRunner(scorers, constraints, self.live)
        self._started = True

    def threads(self) -> int:
        """How many CPU threads torch uses in this worker."""
        return int(torch.get_num_threads())

    def evaluate(self, request: Request) -> Evaluation:
        """Merge and score one recipe. Whatever goes wrong with the candidate is in the result, not raised.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded, an engine that cannot be started.
            CutShortError: a file of weights lost its end, so that every candidate would fail.
            UnsoundEngineError: an engine that does not score candidates as it did.
        """
        self.start()
        started = time.perf_counter()
        merge_seconds = forward_seconds = 0.0
        restored: dict[str, str] = {}
        restart = None
        try:
            restart = self.live.watch.ensure_sound()
            merge_seconds = self.live.write(request.recipe)
            if self.tasks.gives_model_away:
                self.live.guard()
            forward_before = self.live.engine.forward_seconds
            with contained(request.time_limit):
                scored = self.tasks.score(request.items, restored)
            forward_seconds = max(self.live.engine.forward_seconds - forward_before, 0.0)  # of a model that was kept
            self.live.watch.scored(request.number, request.recipe, scored.recorders.values(), self.live.engine)
        except (UnsoundEngineError, CutShortError):
            raise
        except Exception as error:
            # A candidate that fails, for whatever reason, is a result; the search goes on with the next.
            self._forget_after(error)
            return Evaluation(
                request.number,
                failure=reason_of(error),
                unforeseen=not is_foreseen(error),
                restored=restored,
                restart=restart,
                merge_seconds=merge_seconds,
                total_seconds=time.perf_counter() - started,
            )
        return Evaluation(
            request.number,
            scores={name: found.values for name, found in scored.tasks.items()},
            signals={name: found.signals for name, found in scored.tasks.items() if found.signals},
            skipped={name: found.skipped for name, found in scored.tasks.items() if found.skipped},
            **(self.tasks.answers(request.items, scored.recorders) if request.keeps_answers else {}),
            answer_counts={name: len(found.lengths) for name, found in scored.recorders.items() if found.lengths},
            answer_tokens={name: sum(found.lengths) for name, found in scored.recorders.items() if found.lengths},
            restored=restored,
            restart=restart,
            parameters=self.live.plan.parameter_count,
            layers=self.live.plan.layer_count,
            constraints=scored.constraints,
            violations=self.tasks.violations(scored.constraints),
            merge_seconds=merge_seconds,
            forward_seconds=forward_seconds,
            total_seconds=time.perf_counter() - started,
        )

    def differentiate(self, request: GradientRequest) -> Slopes:
        """Merge a recipe, and differentiate the loss of its right answers by its parameters.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded, an engine that cannot be started.
            CutShortError: as of `evaluate`.
        """
        self.start()
        started = time.perf_counter()
        try:
            self.live.write(request.recipe, shares=False)
            targets = self.tasks.targets(request)
            weights = [request.weights[name] / len(own) for name, own in targets.items() for _ in own]
            wanted = [target for of_task in targets.values() for target in of_task.values()]
            slopes, probabilities = self.live.gradient(wanted, weights, request.exponent, request.slots)
        except CutShortError:
            raise
        except Exception as error:
            # As with a candidate: a point that cannot be differentiated is a result.
            self._forget_after(error)
            seconds = time.perf_counter() - started
            return Slopes(request.number, failure=reason_of(error), unforeseen=not is_foreseen(error), seconds=seconds)
        found = iter(probabilities)
        return Slopes(
            request.number,
            {(output, slot): value for output, slots in slopes.items() for slot, value in slots.items()},
            {name: {item: next(found) for item in targets[name]} for name in targets},
            seconds=time.perf_counter() - started,
        )

    def load(self, recipe: Mapping[str, Any]) -> LanguageModel:
        """Write a recipe's weights into the live model, and return it.

        Raises:
            MergeError: the recipe cannot be merged.
        """
        self.start()
        return self.live.loaded(recipe)

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """The hash of the live model's tensors in the precision they are saved in."""
        self.load(recipe)
        return self.live.fingerprint()

    def close(self) -> None:
        """End the engine, if there is one; the next candidate starts another."""
        if self._started:
            self.live.close()

    def _forget_after(self, error: Exception) -> None:
        """What is foreseen leaves the engine sound; after anything else, as out of memory, it is started anew.

        Raises:
            TaskError: The engine did not start for the first candidate, so it will not for the next.
        """
        if isinstance(error, TaskError) and not self.live.is_proven:
            self.live.close()
            raise error
        if not is_foreseen(error):
            self.live.close()


def _open_models(settings: WorkerSettings, root: Path) -> dict[str, Checkpoint]:
    """Model -> what it is read from; those that earlier runs found are merged in memory."""
    known = {model: Path(directory) for model, directory in settings.stand_ins}
    runs = dict(settings.run_models)
    references = [ModelReference.parse(model) for model in settings.models if model not in runs]
    opened = open_checkpoints(references, root, known)
    for name, documents in runs.items():
        merged = documents_of({DOCUMENTS: documents})
        opened[name] = MergedCheckpoint.of_documents(merged, root, settings.seed, known)
    return opened
