"""Decoding steps as CUDA graphs: a forward of hundreds of launches is recorded once, and replayed by one.

Attention over the whole of a cache's room, most of it masked, may round differently from attention over what it holds.
So the first batch is decoded both ways, and steps are only recorded where the tokens are the same.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable

import torch

from evolve.scoring.backends.greedy_decoding import FEWEST_RECORDED, Record
from evolve.scoring.errors import ScoringError, first_line

_LOG = logging.getLogger(__name__)

Answers = list[list[int]]
Run = Callable[[Record | None, bool], Answers]
"""Decodes a batch anew: with what records steps or None, and whether from the first token on."""


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
        self._long: set[str] = set()

    @property
    def is_used(self) -> bool:
        """Whether steps were recorded, and wrote what plain ones do."""
        return self._record is not None and self._compared

    def decode(self, run: Run, kind: str = "") -> Answers:
        """The answers of a batch.

        Args:
            run: Decodes it.
            kind: Of answers. Where most of a batch were long, those of the next one are recorded from the first token
                on; elsewhere it is seen first whether they last.

        Raises:
            ScoringError: As `run`.
        """
        if self._record is None:
            return run(None, False)
        try:
            found = run(self._recorded, kind in self._long)
        except (ScoringError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of a model, a driver or a card: all of them decode without it
            return self._give_up(f"{type(error).__name__}: {first_line(error)}", run)
        lasts = bool(found) and statistics.median(map(len, found)) >= 2 * FEWEST_RECORDED
        (self._long.add if lasts else self._long.discard)(kind)
        if self._compared or not self._has_recorded:
            return found
        if found != run(None, False):
            return self._give_up("they write other tokens", run)
        self._compared = True
        return found

    def _recorded(self, step: Callable[[], None]) -> Callable[[], None]:
        self._has_recorded = True
        return self._record(step) if self._record is not None else step

    def _give_up(self, reason: str, run: Run) -> Answers:
        _LOG.warning("decoding step by step, not by recorded steps: %s", reason)
        self._record = None
        return run(None, False)
