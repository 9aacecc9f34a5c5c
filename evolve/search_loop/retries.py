"""Which failed trials are tried again on resume: what failed them may have been mended."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.trials.trial import State, Trial


def to_retry(trials: Sequence[Trial], lag: int | None) -> list[int]:
    """Numbers of failed trials that nothing which came after them rests on.

    Where candidates were proposed by what failed, it stays so: a resumed search must propose the same.

    Args:
        trials: of the run, by number; in outline.
        lag: how many candidates an optimizer in steady state is behind; None in generations.

    Returns:
        All that failed where no candidate has a score yet: whatever the reason is, it is everyone's. Else those whose
        failure nobody foresaw, which may have been the machine's.
    """
    candidates = [trial for trial in trials if not trial.is_reference]
    asked = [trial for trial in candidates if trial.is_asked]
    hopeless = not any(trial.measured.scores for trial in candidates)
    if not candidates:
        free = list(trials)
    elif not asked:
        free = candidates
    elif lag is None:
        free = [trial for trial in asked if trial.batch == asked[-1].batch]
    else:
        free = asked[-lag:]
    return [trial.number for trial in free if trial.state is State.FAILED and (hopeless or trial.measured.unforeseen)]
