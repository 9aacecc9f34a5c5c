"""The live model that candidates are written into, one after the other."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError, nn

from evolve.config.machines import BackendConfig
from evolve.evaluation.engine_watch import EngineWatch
from evolve.scoring import ScoringError
from evolve.scoring.backends.factory import Backend, open_backend
from evolve.scoring.backends.model_state import ModelState
from evolve.scoring.foreign_code import contained
from evolve.scoring.targets import Target
from merge_core import (
    Checkpoint,
    LiveGradient,
    LiveMerge,
    MergePlan,
    ParameterSlot,
    documents_of,
    layer_settings,
    live_fingerprint,
    live_parameters,
    plan_recipes,
    repeated_outputs,
)

# Keys of a config.json that say where a model is from and nothing of what it is.
_ORIGINS = frozenset({"_name_or_path", "transformers_version"})

Totals = Mapping[str, Mapping[ParameterSlot, float]]
"""Output tensor -> slot of a parameter -> derivative."""


class LiveModel:
    """An engine with a merge in it.

    A candidate is written over the one before. The engine goes on with other layers where it can; for another shape or
    another tokenizer it is started anew.

    Args:
        checkpoints: model reference -> what it is read from.
        tokenizer_model: whose tokenizer it uses.
        backend: how it is run.
        seed: of randomised merge methods and sampled answers.
        statistics_cache: where workers of a machine share what they find out about the models.
        on_read: as of a `Worker`.

    Attributes:
        engine: None before the first candidate, and once it was closed.
        plan: of the candidate.
        is_proven: whether an engine has ever taken a candidate.
        watch: has the engine asked again about an early candidate.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        tokenizer_model: str,
        backend: BackendConfig,
        seed: int,
        statistics_cache: Path | None = None,
        on_read: Callable[[int, int], None] | None = None,
    ) -> None:
        self.engine: Any = None
        self.plan: Any = None
        self.is_proven = False
        self.watch = EngineWatch(self.loaded, self.close)
        self._checkpoints = checkpoints
        self._directories = {model: checkpoint.directory for model, checkpoint in checkpoints.items()}
        self._tokenizer_model = tokenizer_model
        self._backend = backend
        self._device = backend.device_here()
        self._seed = seed
        self._statistics_cache = statistics_cache
        self._on_read = on_read
        self._merge = self._new_merge()
        self._built: tuple[str, str] = ("", "")  # what the engine runs but for its layers, and these
        self._recipe: Mapping[str, Any] = {}
        self._state: ModelState | None = None  # of the model with that recipe, where it is guarded

    def _new_merge(self) -> LiveMerge:
        return LiveMerge(self._checkpoints, self._seed, statistics_cache=self._statistics_cache)

    def loaded(self, recipe: Mapping[str, Any]) -> Backend:
        """The engine with a recipe's weights in it.

        Raises:
            MergeError: the recipe cannot be merged.
            TaskError: the engine cannot be started.
        """
        self.write(recipe)
        return self.engine  # type: ignore[no-any-return]

    def write(self, recipe: Mapping[str, Any], *, shares: bool = True) -> float:
        """Write a recipe's weights over what is there; return the seconds it took.

        Args:
            recipe: what is merged.
            shares: whether layers that hold the same are one. Where they are told apart, each has a gradient.

        Raises:
            MergeError, TaskError: as of `loaded`.
        """
        started = time.perf_counter()
        plan = plan_recipes(documents_of(recipe), self._checkpoints, self._seed)
        shape, layers = _structure(plan, shares=shares)
        if (shape, layers) != self._built:
            if shape != self._built[0] or not self._reshaped(plan, shares=shares):
                self._start(plan, shares=shares)
            self._built = (shape, layers)
        with contained():  # a merge method may be the user's own
            on_read = None if self.is_proven else self._on_read
            self._merge.write(plan, live_parameters(self.engine.model), on_read)
        self.engine.weights_written()
        self.watch.reloaded()
        self.plan, self._recipe, self._state = plan, recipe, None
        self.is_proven = True
        return time.perf_counter() - started

    def _reshaped(self, plan: MergePlan, *, shares: bool) -> bool:
        """Whether the engine goes on with the layers of a plan; after an error it is started anew."""
        arrange = partial(self._merge.arrange, plan, shares=shares)
        try:
            return bool(self.engine.reshape(dict(plan.config), arrange))
        except BaseException:
            self.close()
            raise

    def _start(self, plan: MergePlan, *, shares: bool) -> None:
        """An engine for models of another shape, or with another tokenizer, replaces the present one."""
        self.close()
        layout = [(job.output, job.dtype, job.shape) for job in plan.jobs if job.output not in plan.extra]
        options = self._backend.options(plan.config, self._device)
        with tempfile.TemporaryDirectory() as merged_tokenizer:
            tokenizer = self._directories[self._tokenizer_model]
            if plan.tokenizer.changed:
                tokenizer = Path(merged_tokenizer)
                plan.tokenizer.write(tokenizer)
            arrange = partial(self._merge.arrange, plan, shares=shares)
            modelled_on = self._directories[plan.template]
            self.engine = open_backend(options, dict(plan.config), tokenizer, layout, self._seed, arrange, modelled_on)

    def close(self) -> None:
        """End the engine, if there is one; the next candidate starts another."""
        engine, self.engine, self._built, self._state = self.engine, None, ("", ""), None
        if engine is not None:
            engine.close()
            self.watch.forget()
            self._merge = self._new_merge()

    def guard(self) -> None:
        """Remember the model as it was merged, where it is in this process, before code of the user's is given it."""
        model = getattr(self.engine, "model", None)
        if isinstance(model, nn.Module):
            self._state = ModelState(model, self.engine.tokenizer)

    def changes(self) -> list[str]:
        """What of the model, if it is guarded, is no longer what was merged."""
        return [] if self._state is None else self._state.changes()

    def restore(self) -> None:
        """Build the model that is guarded again."""
        if self._state is not None:
            self._state.restore_code()
            self.close()
            self.write(self._recipe)
            self.guard()

    def gradient(
        self,
        targets: Sequence[Target],
        weights: Sequence[float],
        exponent: float,
        slots: Collection[ParameterSlot] | None = None,
    ) -> tuple[Totals, list[float]]:
        """The derivatives of the targets' loss by the recipe's parameters, and the probability of each target.

        On a card, sources that stay there give way to what a backward pass needs.

        Args:
            targets: what the model should say.
            weights: how much each counts.
            exponent: of the loss.
            slots: of the parameters that are asked for; None for all.

        Raises:
            ScoringError: there is no target, or a derivative is not finite.
        """
        if not targets:
            raise ScoringError("of no item of the step is anything known to be right")
        totals, probabilities = self._differentiate(targets, weights, exponent, slots)
        for output, slots in totals.items():
            if not all(map(math.isfinite, slots.values())):
                raise ScoringError(f"the gradient is not finite, at {output}")
        return totals, probabilities

    def _differentiate(
        self,
        targets: Sequence[Target],
        weights: Sequence[float],
        exponent: float,
        slots: Collection[ParameterSlot] | None,
    ) -> tuple[Totals, list[float]]:
        def attempt() -> tuple[Totals, list[float]]:
            with LiveGradient(self._merge, self.plan, self.engine.model, slots) as gradient:
                probabilities = self.engine.add_answer_gradient(targets, weights, exponent)
            return gradient.totals, probabilities

        try:
            return attempt()
        except OutOfMemoryError:
            if not self._merge.give_way():
                raise
        return attempt()  # not inside the handler, whose traceback holds what the first one took

    def fingerprint(self) -> str:
        """The hash of the candidate's tensors in the precision they are saved in."""
        if self._backend.quantization != "none":
            return self._merge.fingerprint(self.plan)
        return live_fingerprint(self.plan, live_parameters(self.engine.model))


def _structure(plan: MergePlan, *, shares: bool) -> tuple[str, str]:
    """What a live model of a plan is: all but its layers, and how many these are and which of them are one."""
    # A tokenizer that is not made for the recipe is the search's own; where a config came from builds no model.
    config = {key: value for key, value in plan.config.items() if key not in _ORIGINS}
    whole, layers = layer_settings(config, plan.count_key)
    tokenizer = plan.tokenizer.key if plan.tokenizer.changed else ""
    repeated = repeated_outputs(plan) if shares else {}
    said = [json.dumps(part, sort_keys=True, default=str) for part in ([whole, tokenizer], [layers, repeated])]
    return said[0], said[1]
