"""Several objectives: which trials no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.trials.trial import Trial


@dataclass(frozen=True)
class Front:
    """The trials that no other beats.

    Attributes:
        names: of the objectives.
        trials: by the first objective, the highest first.
        held_out: trial number -> objectives on held-out items, of those that were validated.
        chosen: number of the trial that is saved as the best.
    """

    names: tuple[str, ...]
    trials: tuple[Trial, ...]
    held_out: Mapping[int, tuple[float, ...]]
    chosen: int

    def files(self) -> dict[str, Trial]:
        """File name -> trial, numbered in the order of the table."""
        named = [(f"{place:02d}", *_words(trial.label)) for place, trial in enumerate(self.trials, start=1)]
        return {"-".join(words) + ".yml": trial for words, trial in zip(named, self.trials, strict=True)}

    def facts(self) -> list[dict[str, Any]]:
        """The front as data."""
        return [
            {
                "number": trial.number,
                "label": trial.label,
                "recipe": f"pareto/{file}",
                "objectives": dict(zip(self.names, trial.objective_values, strict=True)),
                "held_out": dict(zip(self.names, self.held_out[trial.number], strict=True))
                if trial.number in self.held_out
                else None,
            }
            for file, trial in self.files().items()
        ]


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The complete trials that no other beats: none is as good in every objective and better in one.

    Of several with the same objectives only the first is kept. References compete, too.
    """
    scored = [trial for trial in trials if trial.objective_values]
    distinct = list({trial.objective_values: trial for trial in reversed(scored)}.values())
    front = [trial for trial in distinct if not any(dominates(other, trial) for other in distinct)]
    return tuple(sorted(front, key=lambda trial: ([-value for value in trial.objective_values], trial.number)))


def dominates(first: Trial, second: Trial) -> bool:
    """Whether the first trial is at least as good in every objective, and better in one."""
    pairs = list(zip(first.objective_values, second.objective_values, strict=True))
    return all(ours >= theirs for ours, theirs in pairs) and any(ours > theirs for ours, theirs in pairs)


def _words(label: str) -> list[str]:
    """The letters and digits of a label, for a file's name."""
    return "".join(char if char.isalnum() else " " for char in label).split()[-4:]
