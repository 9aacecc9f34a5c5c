"""One live model: merges a recipe into it and scores it. The same in this process and in a Ray actor."""

from __future__ import annotations

import json
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.config.machines import BackendConfig
from evolve.evaluation.engine_watch import EngineWatch
from evolve.evaluation.node_directory import NodeDirectory
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.unavailable import UnsoundEngineError
from evolve.plugins import load_plugins
from evolve.scoring import (
    ConstraintConfig,
    ScoredItems,
    ScoringError,
    TaskConfig,
    UnavailableError,
    first_line,
    runs_user_code,
)
from evolve.scoring.foreign_code import EscapeError, TookTooLongError, contained
from evolve.scoring.scorers.given_functions import GivenFunctions
from evolve.scoring.targets import HasTargets, Target, written_target
from evolve.trials.trial import Evaluation

if TYPE_CHECKING:
    from evolve.scoring import AnswerRecorder
    from evolve.scoring.backends.factory import Backend
    from evolve.scoring.backends.model_state import ModelState
    from evolve.scoring.language_model import LanguageModel
    from merge_core import LiveGradient, LiveMerge, MergePlan, ParameterSlot


# Keys of a config.json that say where a model is from and nothing of what it is.
_ORIGINS = frozenset({"_name_or_path", "transformers_version"})


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
    functions: GivenFunctions = field(default_factory=GivenFunctions)  # that tasks and constraints may name


class Worker:
    """Holds the checkpoints, the tasks and the live model, all loaded when first needed.

    Constructing it does nothing, so that in a Ray actor a failure to load is an answer and not a dead actor.

    Args:
        settings: everything it needs.
        on_read: is told of how many bytes of how many the first candidate was merged, which brings the models into
            memory; later ones find them there.
    """

    def __init__(self, settings: WorkerSettings, on_read: Callable[[int, int], None] | None = None) -> None:
        self._settings = settings
        self._on_read = on_read
        self._started = False
        self._backend: Any = None
        self._built: tuple[str, str] = ("", "")  # what the live model is but for its layers, and these
        self._recipe: Mapping[str, Any] = {}  # in the live model
        self._state: ModelState | None = None  # of the live model with that recipe, where it is watched
        self._restored: dict[str, str] = {}  # whose code changed the live model -> what
        self._engine_watch = EngineWatch(self._loaded, self.close)

    def start(self) -> None:
        """Open models and tasks, once.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded.
        """
        if self._started:
            return
        import torch

        from evolve.scoring import load_constraints, load_scorers
        from evolve.scoring.backends.factory import check_installed
        from merge_core import ModelReference, documents_of, open_checkpoints
        from merge_core.execute.merged_checkpoint import MergedCheckpoint
        from merge_core.recipe.documents import DOCUMENTS
        from merge_core.recipe.user_methods import find_method

        settings = self._settings
        check_installed(settings.backend.name, settings.backend.quantization)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        root = Path(settings.relative_to)
        load_plugins()
        settings.functions.provide()
        for name in settings.methods:
            find_method(name, root)
        known = {model: Path(directory) for model, directory in settings.stand_ins}
        runs = dict(settings.run_models)
        references = [ModelReference.parse(model) for model in settings.models if model not in runs]
        self._checkpoints = open_checkpoints(references, root, known)
        for name, documents in runs.items():
            merged = documents_of({DOCUMENTS: documents})
            self._checkpoints[name] = MergedCheckpoint.of_documents(merged, root, settings.seed, known)
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
        cache = settings.statistics_cache
        self._node_directory = None if cache is None else NodeDirectory(Path(cache))
        self._live_merge = self._new_live_merge()
        self._device = self._choose_device()
        self._plan: Any = None
        self._sound = False  # whether the engine has ever taken a candidate
        self._started = True

    def _new_live_merge(self) -> LiveMerge:
        from merge_core import LiveMerge

        directory = None if self._node_directory is None else self._node_directory.path
        return LiveMerge(self._checkpoints, self._settings.seed, statistics_cache=directory)

    def threads(self) -> int:
        """How many CPU threads torch uses in this worker."""
        import torch

        return int(torch.get_num_threads())

    def _choose_device(self) -> str:
        import torch

        if self._settings.backend.device != "auto":
            return self._settings.backend.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def evaluate(self, request: Request) -> Evaluation:
        """Merge and score one recipe. Whatever goes wrong with the candidate is in the result, not raised.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded, an engine that cannot be started.
            UnsoundEngineError: an engine that does not score candidates as it did.
        """
        self.start()
        started = time.perf_counter()
        merge_seconds = forward_seconds = 0.0
        self._restored, restart = {}, None
        try:
            restart = self._engine_watch.ensure_sound()
            merge_seconds = self._load(request.recipe)
            self._watch_model()
            forward_before = self._backend.forward_seconds
            with contained(request.time_limit):
                scored, constraints, recorders = self._score(request.items)
                for name, found in scored.items():
                    self._scorers[name].aggregate(found.values)  # raises when the items make no score
            forward_seconds = max(self._backend.forward_seconds - forward_before, 0.0)  # of a model that was kept
            self._engine_watch.scored(request.number, request.recipe, recorders.values(), self._backend)
        except UnsoundEngineError:
            raise
        except Exception as error:
            # A candidate that fails, for whatever reason, is a result; the search goes on with the next.
            self._forget_after(error)
            return Evaluation(
                request.number,
                failure=reason_of(error),
                unforeseen=not is_foreseen(error),
                restored=self._restored,
                restart=restart,
                merge_seconds=merge_seconds,
                total_seconds=time.perf_counter() - started,
            )
        return Evaluation(
            request.number,
            scores={name: found.values for name, found in scored.items()},
            signals={name: found.signals for name, found in scored.items() if found.signals},
            skipped={name: found.skipped for name, found in scored.items() if found.skipped},
            **(self._answers(request.items, recorders) if request.keeps_answers else {}),
            answer_counts={name: len(found.lengths) for name, found in recorders.items() if found.lengths},
            answer_tokens={name: sum(found.lengths) for name, found in recorders.items() if found.lengths},
            restored=self._restored,
            restart=restart,
            parameters=self._plan.parameter_count,
            layers=self._plan.layer_count,
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

    def differentiate(self, request: GradientRequest) -> Slopes:
        """Merge a recipe, and differentiate the loss of its right answers by its parameters.

        Raises:
            MergeError, TaskError: models or tasks that cannot be loaded, an engine that cannot be started.
        """
        self.start()
        started = time.perf_counter()
        try:
            self._load(request.recipe, shares=False)
            targets = self._targets(request)
            weights = [request.weights[name] / len(own) for name, own in targets.items() for _ in own]
            wanted = [target for of_task in targets.values() for target in of_task.values()]
            gradient, found = self._gradient(wanted, weights, request.exponent)
            _check_gradient(gradient.totals, wanted)
        except Exception as error:
            # As with a candidate: a point that cannot be differentiated is a result.
            self._forget_after(error)
            seconds = time.perf_counter() - started
            return Slopes(request.number, failure=reason_of(error), unforeseen=not is_foreseen(error), seconds=seconds)
        return Slopes(
            request.number,
            {(output, slot): value for output, slots in gradient.totals.items() for slot, value in slots.items()},
            {name: {item: next(found) for item in targets[name]} for name in targets},
            seconds=time.perf_counter() - started,
        )

    def _gradient(
        self, wanted: Sequence[Target], weights: Sequence[float], exponent: float
    ) -> tuple[LiveGradient, Iterator[float]]:
        """The gradient, and the probability of each target. On a card, sources that stay there give way to it."""
        from torch import OutOfMemoryError

        from merge_core import LiveGradient

        def attempt() -> tuple[LiveGradient, Iterator[float]]:
            with LiveGradient(self._live_merge, self._plan, self._backend.model) as gradient:
                return gradient, iter(self._backend.add_answer_gradient(wanted, weights, exponent))

        try:
            return attempt()
        except OutOfMemoryError:
            if not self._live_merge.give_way():
                raise
        return attempt()

    def _targets(self, request: GradientRequest) -> dict[str, dict[int, Target]]:
        """What the model should say, by task and item; tasks without any item that has a target are left out."""
        targets: dict[str, dict[int, Target]] = {}
        for name, items in request.items.items():
            known, written = self._known_targets(name, items), request.written.get(name, {})
            gold_counts = request.gold_counts.get(name, True)
            found = {item: one.with_written(written.get(item, ()), gold_counts) for item, one in known.items()}
            found |= {item: written_target(written[item]) for item in items if item in written and item not in known}
            if found:
                targets[name] = found
        return targets

    def load(self, recipe: Mapping[str, Any]) -> LanguageModel:
        """Write a recipe's weights into the live model, and return it.

        Raises:
            MergeError: the recipe cannot be merged.
        """
        self.start()
        return self._loaded(recipe)

    def _loaded(self, recipe: Mapping[str, Any]) -> Backend:
        self._load(recipe)
        return self._backend  # type: ignore[no-any-return]

    def _score(
        self, items: Mapping[str, tuple[int, ...]]
    ) -> tuple[dict[str, ScoredItems], dict[str, float], dict[str, AnswerRecorder]]:
        """What the tasks say of the live model, the numbers that constraints bound, and what it wrote, by task.

        Args:
            items: task name -> item ids.
        """
        from evolve.scoring import AnswerRecorder, KnownAnswers, TellsRequests, ask_together

        recorders: dict[str, AnswerRecorder] = {}
        scored: dict[str, ScoredItems] = {}
        asking = [
            (scorer, ids) for name, ids in items.items() if isinstance(scorer := self._scorers[name], TellsRequests)
        ]
        known = ask_together(
            self._backend, (request for scorer, ids in asking for request in scorer.requests(self._backend, ids))
        )
        for name, ids in items.items():
            restored = partial(self._restored_model, f"task {name!r}", runs_user_code(self._scorers[name]))
            recorders[name] = AnswerRecorder(KnownAnswers(self._backend, known), restored)
            try:
                scored[name] = self._scorers[name].score(recorders[name], ids)
            finally:
                restored()
        answers: dict[str | None, list[str]] = {None: []}
        answers |= {name: recorder.answers for name, recorder in recorders.items()}
        measured = {}
        for constraint in self._constraints:
            try:
                measured[constraint.label] = constraint.measure(self._backend, answers[constraint.answers_of])
            finally:
                self._restored_model(f"constraint {constraint.label!r}", constraint.runs_user_code)
        return scored, measured, recorders

    def _watch_model(self) -> None:
        """Remember the live model, where code of the user's is given it and it is in this process."""
        from torch import nn

        model = getattr(self._backend, "model", None)
        given = [*map(runs_user_code, self._scorers.values()), *(one.runs_user_code for one in self._constraints)]
        if isinstance(model, nn.Module) and any(given):
            from evolve.scoring.backends.model_state import ModelState

            self._state = ModelState(model, self._backend.tokenizer)

    def _restored_model(self, who: str, is_given_away: bool) -> LanguageModel:
        """The live model as it was merged, built again if code of the user's has changed it."""
        if is_given_away and self._state is not None and (changes := self._state.changes()):
            self._restored[who] = "; ".join(changes)
            self._state.restore_code()
            self.close()
            self._load(self._recipe)
            self._watch_model()
        return self._backend  # type: ignore[no-any-return]

    def _answers(self, items: Mapping[str, tuple[int, ...]], recorders: Mapping[str, AnswerRecorder]) -> dict[str, Any]:
        """The fields of an evaluation that tell what the model wrote, and what of it the tasks know to be right.

        Where a task does not, an answer belongs to an item if the model was asked once for each, in their order.
        """
        answers: dict[str, dict[int, list[list[int]]]] = {}
        target_counts: dict[str, int] = {}
        gold_shares: dict[str, float] = {}
        for name, recorder in recorders.items():
            written = recorder.written
            targets = self._known_targets(name, items[name])
            target_counts[name] = len(targets)
            first = dict(reversed(written))
            told = {
                item: first[target.prompt.tokens]
                for item, target in targets.items()
                if target.prompt is not None and target.prompt.tokens in first
            }
            if told:
                answers[name] = {item: [[], tokens] for item, tokens in told.items()}
                gold_shares[name] = sum(targets[item].calls_right(tokens) for item, tokens in told.items()) / len(told)
            elif written and not targets and len(written) == len(items[name]):
                pairs = zip(sorted(items[name]), written, strict=True)
                answers[name] = {item: [list(prompt), tokens] for item, (prompt, tokens) in pairs}
        return {"answers": answers, "target_counts": target_counts, "gold_shares": gold_shares}

    def _known_targets(self, name: str, items: Sequence[int]) -> dict[int, Target]:
        scorer = self._scorers[name]
        return scorer.targets(self._backend, items) if isinstance(scorer, HasTargets) else {}

    def _load(self, mapping: Mapping[str, Any], *, shares: bool = True) -> float:
        """Write a recipe's weights into the live model; return the seconds it took.

        Args:
            mapping: the recipe.
            shares: whether layers that hold the same are one. Where they are told apart, each has a gradient.
        """
        from merge_core import documents_of, live_parameters, plan_recipes

        started = time.perf_counter()
        plan = plan_recipes(documents_of(mapping), self._checkpoints, self._settings.seed)
        shape, layers = _structure(plan, shares=shares)
        if (shape, layers) != self._built:
            if shape != self._built[0] or not self._reshaped(plan, shares=shares):
                self._build(plan, shares=shares)
            self._built = (shape, layers)
        with contained():  # a merge method may be the user's own
            on_read = None if self._sound else self._on_read
            self._live_merge.write(plan, live_parameters(self._backend.model), on_read)
        self._backend.weights_written()
        self._engine_watch.reloaded()
        self._plan, self._recipe, self._state = plan, mapping, None
        self._sound = True
        return time.perf_counter() - started

    def _reshaped(self, plan: MergePlan, *, shares: bool) -> bool:
        """Whether the engine goes on with the layers of a plan; after an error it is started anew."""
        arrange = partial(self._live_merge.arrange, plan, shares=shares)
        try:
            return bool(self._backend.reshape(dict(plan.config), arrange))
        except BaseException:
            self.close()
            raise

    def _build(self, plan: MergePlan, *, shares: bool) -> None:
        """A live model of another shape, or with another tokenizer, replaces the present one."""
        from evolve.scoring.backends.factory import open_backend

        self.close()
        layout = [(job.output, job.dtype, job.shape) for job in plan.jobs if job.output not in plan.extra]
        options = self._settings.backend.options(plan.config, self._device)
        with tempfile.TemporaryDirectory() as merged_tokenizer:
            tokenizer = self._directories[self._settings.tokenizer_model]
            if plan.tokenizer.changed:
                tokenizer = Path(merged_tokenizer)
                plan.tokenizer.write(tokenizer)
            arrange = partial(self._live_merge.arrange, plan, shares=shares)
            self._backend = open_backend(
                options,
                dict(plan.config),
                tokenizer,
                layout,
                self._settings.seed,
                arrange,
                self._directories[plan.template],
            )

    def close(self) -> None:
        """End the engine, if there is one; the next candidate starts another."""
        backend, self._backend, self._built, self._state = self._backend, None, ("", ""), None
        if backend is not None:
            backend.close()
            self._engine_watch.forget()
            self._live_merge = self._new_live_merge()

    def _forget_after(self, error: Exception) -> None:
        """What is foreseen leaves the engine sound; after anything else, as out of memory, it is started anew.

        Raises:
            TaskError: The engine did not start for the first candidate, so it will not for the next.
        """
        from evolve.scoring import TaskError

        if isinstance(error, TaskError) and not self._sound:
            self.close()
            raise error
        if self._backend is not None and not is_foreseen(error):
            self.close()

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """The hash of the live model's tensors in the precision they are saved in."""
        from merge_core import live_fingerprint, live_parameters

        self.start()
        self._load(recipe)
        if self._settings.backend.quantization != "none":
            return self._live_merge.fingerprint(self._plan)
        return live_fingerprint(self._plan, live_parameters(self._backend.model))


def _structure(plan: MergePlan, *, shares: bool) -> tuple[str, str]:
    """What a live model of a plan is: all but its layers, and how many these are and which of them are one."""
    from merge_core import layer_settings, repeated_outputs

    # A tokenizer that is not made for the recipe is the search's own; where a config came from builds no model.
    config = {key: value for key, value in plan.config.items() if key not in _ORIGINS}
    whole, layers = layer_settings(config, plan.count_key)
    tokenizer = plan.tokenizer.key if plan.tokenizer.changed else ""
    repeated = repeated_outputs(plan) if shares else {}
    said = [json.dumps(part, sort_keys=True, default=str) for part in ([whole, tokenizer], [layers, repeated])]
    return said[0], said[1]


def _check_gradient(totals: Mapping[str, Mapping[ParameterSlot, float]], targets: Sequence[Target]) -> None:
    """Raise where there is nothing to follow.

    Raises:
        ScoringError: no item has a target, or a derivative is not finite.
    """
    if not targets:
        raise ScoringError("of no item of the step is anything known to be right")
    for output, slots in totals.items():
        if not all(map(math.isfinite, slots.values())):
            raise ScoringError(f"the gradient is not finite, at {output}")


def is_foreseen(error: Exception) -> bool:
    """Whether an error is one that says what is wrong with a candidate; any other may be the machine's."""
    if isinstance(error, UnavailableError):
        return False
    return isinstance(error, ValueError | ScoringError | EscapeError | TookTooLongError)


def reason_of(error: Exception) -> str:
    """One line: the error's own for what is foreseen, with the place for what is not."""
    text = first_line(error)
    if is_foreseen(error) or isinstance(error, UnavailableError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
