"""One live model: merges a recipe into it and scores it. The same in this process and in a Ray actor."""

from __future__ import annotations

import json
import os
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.config import BackendConfig
from evolve.trial import Evaluation
from tasks import ConstraintConfig, ScoredItems, TaskConfig

if TYPE_CHECKING:
    from merge_core import MergePlan
    from tasks.language_model import LanguageModel


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
    stand_ins: tuple[tuple[str, str], ...] = ()  # reference -> directory, for models not found by their name
    constraints: tuple[ConstraintConfig, ...] = ()


class Worker:
    """Holds the checkpoints, the tasks and the live model, all loaded when first needed.

    Constructing it does nothing, so that in a Ray actor a failure to load is an answer and not a dead actor.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._started = False

    def start(self) -> None:
        """Opens models and tasks, once.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded.
        """
        if self._started:
            return
        import torch

        from merge_core import ModelReference, ResidentMerge, open_checkpoints
        from tasks import load_constraints, load_scorers

        settings = self._settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        root = Path(settings.relative_to)
        known = {model: Path(directory) for model, directory in settings.stand_ins}
        self._checkpoints = open_checkpoints([ModelReference.parse(model) for model in settings.models], root, known)
        self._directories = {model: checkpoint.directory for model, checkpoint in self._checkpoints.items()}
        self._scorers = {
            scorer.name: scorer
            for scorer in load_scorers(
                settings.tasks, [Path(path) for path in settings.task_search_path], settings.seed, root
            )
        }
        self._constraints = load_constraints(
            settings.constraints, [Path(path) for path in settings.task_search_path], root
        )
        self._resident = ResidentMerge(self._checkpoints, settings.seed)
        self._device = self._choose_device()
        self._structure = ""
        self._plan: Any = None
        self._backend: Any = None
        self._started = True

    def threads(self) -> int:
        """How many CPU threads torch uses in this worker."""
        import torch

        return int(torch.get_num_threads())

    def process_id(self) -> int:
        """Of the process that this worker lives in."""
        return os.getpid()

    def _choose_device(self) -> str:
        import torch

        if self._settings.backend.device != "auto":
            return self._settings.backend.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def evaluate(self, number: int, recipe: Mapping[str, Any], items: Mapping[str, tuple[int, ...]]) -> Evaluation:
        """Merges and scores one recipe. Whatever goes wrong with the candidate is in the result, not raised."""
        self.start()
        started = time.perf_counter()
        merge_seconds = forward_seconds = 0.0
        try:
            merge_seconds = self._load(recipe)
            forward_before = self._backend.forward_seconds
            scored, constraints = self._score(items)
            forward_seconds = self._backend.forward_seconds - forward_before
            for name, found in scored.items():
                self._scorers[name].aggregate(found.values)  # raises when the items make no score
        except Exception as error:
            # A candidate that fails, for whatever reason, is a result; the search goes on with the next.
            self._forget_after(error)
            return Evaluation(
                number,
                failure=reason_of(error),
                merge_seconds=merge_seconds,
                total_seconds=time.perf_counter() - started,
            )
        return Evaluation(
            number,
            scores={name: found.values for name, found in scored.items()},
            signals={name: found.signals for name, found in scored.items() if found.signals},
            skipped={name: found.skipped for name, found in scored.items() if found.skipped},
            constraints=constraints,
            violations={
                constraint.label: outside
                for constraint in self._constraints
                if (outside := constraint.violation(constraints[constraint.label]))
            },
            merge_seconds=merge_seconds,
            forward_seconds=forward_seconds,
            total_seconds=time.perf_counter() - started,
        )

    def load(self, recipe: Mapping[str, Any]) -> LanguageModel:
        """Writes a recipe's weights into the live model, and returns it.

        Raises:
            MergeError: the recipe cannot be merged.
        """
        self.start()
        self._load(recipe)
        return self._backend  # type: ignore[no-any-return]

    def _score(self, items: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, ScoredItems], dict[str, float]]:
        """What the tasks say of the live model, and the numbers that constraints bound."""
        from tasks import AnswerRecorder

        scored: dict[str, ScoredItems] = {}
        answers: dict[str | None, list[str]] = {None: []}
        for name, ids in items.items():
            recorder = AnswerRecorder(self._backend)
            scored[name] = self._scorers[name].score(recorder, ids)
            answers[name] = recorder.answers
        measured = {
            constraint.label: constraint.measure(self._backend, answers[constraint.answers_of])
            for constraint in self._constraints
        }
        return scored, measured

    def _load(self, mapping: Mapping[str, Any]) -> float:
        """Writes a recipe's weights into the live model; returns the seconds it took."""
        from merge_core import Recipe, build_plan, live_parameters

        started = time.perf_counter()
        recipe = Recipe.from_mapping(dict(mapping))
        plan = build_plan(recipe, self._checkpoints, self._settings.seed)
        structure = json.dumps([plan.config, plan.tokenizer.key], sort_keys=True, default=str)
        if structure != self._structure:
            self._build(plan)
            self._structure = structure
        self._resident.write(plan, live_parameters(self._backend.model))
        self._plan = plan
        return time.perf_counter() - started

    def _build(self, plan: MergePlan) -> None:
        """A live model of another shape, or with another tokenizer, replaces the present one."""
        import torch

        from merge_core import ResidentMerge
        from tasks.hf_backend import HFBackend

        self._backend = None
        backend = self._settings.backend
        config = plan.config
        dtype = backend.dtype
        if dtype == "auto":
            saved = str(config.get("dtype") or config.get("torch_dtype") or "float32")
            dtype = "float32" if self._device == "cpu" else saved  # type: ignore[assignment]
        with tempfile.TemporaryDirectory() as merged_tokenizer:
            tokenizer = self._directories[self._settings.tokenizer_model]
            if plan.tokenizer.changed:
                tokenizer = Path(merged_tokenizer)
                plan.tokenizer.write(tokenizer)
            self._backend = HFBackend.from_config(
                dict(config),
                tokenizer,
                dtype=getattr(torch, dtype),
                device=self._device,
                attn_implementation=backend.attention,
                seed=self._settings.seed,
                max_batch_tokens=backend.max_batch_tokens,
            )
        self._resident = ResidentMerge(self._checkpoints, self._settings.seed)

    def _forget_after(self, error: Exception) -> None:
        """A half-written model must not be taken for a written one; out of memory wants a fresh start."""
        import torch

        self._structure = ""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            self._backend = None
            torch.cuda.empty_cache()

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """The hash of the live model's tensors in the precision they are saved in."""
        from merge_core import live_fingerprint, live_parameters

        self.start()
        self._load(recipe)
        return live_fingerprint(self._plan, live_parameters(self._backend.model))


def reason_of(error: Exception) -> str:
    """One line: the error's own for what is foreseen, with the place for what is not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, ValueError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
