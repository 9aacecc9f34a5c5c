"""Whether a worker's engine is sound: an early candidate is scored again now and then, and must be what it was.

Engines that are given weights anew while they run have left parts of them as they were, or garbled, in some versions
and for some architectures, without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evolve.evaluation.unavailable import UnsoundEngineError
from evolve.scoring import AnswerRecorder
from evolve.scoring.backends.engine_check import EngineCheck
from evolve.scoring.backends.factory import Backend

REQUESTS_PER_TASK = 8


class EngineWatch:
    """Has the early candidate asked again on schedule, and the engine started anew once where its answers changed.

    Args:
        load: writes a recipe into the engine, which it starts if there is none, and gives it.
        end: ends the engine.
    """

    def __init__(self, load: Callable[[Mapping[str, Any]], Backend], end: Callable[[], None]) -> None:
        self._load = load
        self._end = end
        self._check: EngineCheck | None = None
        self._restarted = False
        self._since: list[int] = []  # trials scored after it was last found sound

    def reloaded(self) -> None:
        """The engine was given a candidate."""
        if self._check is not None:
            self._check.reloaded()

    def scored(
        self, number: int, recipe: Mapping[str, Any], recorders: Iterable[AnswerRecorder], engine: Backend
    ) -> None:
        """A candidate was scored; the first of an engine is the one that it is asked about again.

        Args:
            number: of the trial.
            recipe: of the candidate, which is in the engine.
            recorders: what the tasks asked.
            engine: which was asked.
        """
        if self._check is not None:
            self._since.append(number)
        elif engine.repeat_tolerance is not None:
            requests = [one for recorder in recorders for one in recorder.continuations(REQUESTS_PER_TASK)]
            self._check = EngineCheck(recipe, requests, engine, engine.repeat_tolerance)

    def forget(self) -> None:
        """The engine has ended."""
        self._check, self._since = None, []

    def ensure_sound(self) -> str | None:
        """Ask again about the early candidate, if that is due.

        Returns:
            What was found, where the engine had to be started anew; it was sound then.

        Raises:
            UnsoundEngineError: it is not sound, and was started anew before.
        """
        check = self._check
        if check is None or not check.is_due:
            return None
        apart = check.difference(self._load(check.recipe))
        if apart is None:
            self._since = []
            return None
        found = f"asked again about an early candidate, vLLM answers otherwise ({apart:.3g} nats a token apart)"
        doubt = f"what this worker scored since it was last found sound may be wrong: trials {_listed(self._since)}"
        was_restarted, self._restarted = self._restarted, True
        if not was_restarted:
            self._end()
            sound = check.difference(self._load(check.recipe)) is None
            self._check = check
            if sound:
                return f"{found}. Its engine was started anew; {doubt}"
        raise UnsoundEngineError(
            f"{found}, also after its engine was started anew: this version does not reload this architecture rightly; "
            f"{doubt}. Set backend: {{name: hf}}, or install another version of vLLM"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers)))) or "none"
