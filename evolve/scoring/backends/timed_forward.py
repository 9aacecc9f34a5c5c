"""How a live model is run: with the arguments that its class takes, and the time it takes counted."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from evolve.scoring.backends.compiled_forward import CompiledForward


class Stopwatch:
    """Adds up times.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done inside, unless it fails."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


class TimedForward:
    """The logits of the last positions.

    Args:
        model: A transformers model.
        stopwatch: Counts forwards.
        compile: Whether forwards without a cache go through `torch.compile`.
    """

    def __init__(self, model: Any, stopwatch: Stopwatch, *, compile: bool) -> None:
        self._model = model
        self._call: Any = CompiledForward(model) if compile else model
        self._stopwatch = stopwatch
        accepted = inspect.signature(model.forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._takes_position_ids = "position_ids" in accepted

    def __call__(self, positions: int, *, differentiable: bool = False, **inputs: Any) -> torch.Tensor:
        """Run the model and wait for it.

        Args:
            positions: So many logits at the end are needed; there may be more.
            differentiable: Whether a backward pass follows, which compiled code is not made for.
            **inputs: Keyword arguments of the model.

        Returns:
            Shape (batch, positions or more, vocabulary).
        """
        with self._stopwatch.running():
            logits = self._logits(self._model if differentiable else self._call, positions, inputs)
            if logits.is_cuda:
                torch.cuda.synchronize(logits.device)
        return logits

    def launch(self, positions: int, **inputs: Any) -> torch.Tensor:
        """As a call, without waiting for a card to be done, and not counted."""
        return self._logits(self._call, positions, inputs)

    def _logits(self, call: Any, positions: int, inputs: dict[str, Any]) -> torch.Tensor:
        if self._takes_logits_to_keep:
            inputs["logits_to_keep"] = positions
        if not self._takes_position_ids:
            inputs.pop("position_ids", None)
        logits: torch.Tensor = call(**inputs).logits
        return logits
