"""`torch.compile` for the forwards that keep no state."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from evolve.scoring.errors import first_line

_LOG = logging.getLogger(__name__)


class CompiledForward:
    """Calls a model compiled where it can be, and as it is where it cannot.

    Forwards with a key-value cache run as they are: torch compiles no cache that lives in Python, and a forward that
    stops half-way may have written into it, while one without a cache can simply be run again.
    Weights may change between calls: to the compiled code they are inputs.

    Args:
        model: A transformers model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._compiled: Any = torch.compile(model, dynamic=True)

    def __call__(self, **inputs: Any) -> Any:
        """Run the model."""
        if self._compiled is not None and not inputs.get("use_cache"):
            try:
                return self._compiled(**inputs)
            except TorchDynamoException as error:
                _LOG.warning(
                    "compile: torch cannot compile this model here, so it runs as it is: %s", first_line(error)
                )
                self._compiled = None
        return self._model(**inputs)
