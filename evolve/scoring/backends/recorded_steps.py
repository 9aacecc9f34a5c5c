"""Decoding steps as CUDA graphs: a forward of hundreds of launches is recorded once, and replayed by one.

Attention over the whole of a cache's room, most of it masked, may round differently from attention over what it holds.
So the first batch is decoded both ways, and steps are only recorded where the tokens are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from evolve.scoring.backends.greedy_decoding import Record
from evolve.scoring.errors import ScoringError, first_line

_LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


def record_graph(step: Callable[[], None]) -> Callable[[], None]:
    """A `Record` on the current card."""
    before = torch.cuda.current_stream()
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(before)
    with torch.cuda.stream(beside):  # what libraries make at their first call must not be recorded
        step()
    before.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may copy meanwhile
        step()
    return graph.replay


class RecordedSteps:
    """Decodes with recorded steps as long as these write what plain ones do.

    Args:
        record: Records a step; None for a model that never does.
    """

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._compared = self._has_recorded = False

    @property
    def is_used(self) -> bool:
        """Whether steps were recorded, and wrote what plain ones do."""
        return self._record is not None and self._compared

    def decode(self, run: Callable[[Record | None], Result]) -> Result:
        """The answers of a batch.

        Args:
            run: Decodes it anew, with steps that are recorded or, with None, that are not.

        Raises:
            ScoringError: As `run`.
        """
        if self._record is None:
            return run(None)
        try:
            found = run(self._recorded)
        except (ScoringError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of a model, a driver or a card: all of them decode without it
            return self._give_up(f"{type(error).__name__}: {first_line(error)}", run)
        if self._compared or not self._has_recorded:
            return found
        if found != run(None):
            return self._give_up("they write other tokens", run)
        self._compared = True
        return found

    def _recorded(self, step: Callable[[], None]) -> Callable[[], None]:
        self._has_recorded = True
        return self._record(step) if self._record is not None else step

    def _give_up(self, reason: str, run: Callable[[Record | None], Result]) -> Result:
        _LOG.warning("decoding step by step, not by recorded steps: %s", reason)
        self._record = None
        return run(None)
