"""What tasks and constraints were where a search was opened, by which every worker knows that it scores the same.

A worker loads them itself: on another machine, or hours later in the place of one that died. Meanwhile a file may have
been edited; and a function that makes its items at random makes others each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evolve.scoring import Scorer, TaskError, scoring_keys
from evolve.scoring.scorers.feasibility import Constraint


@dataclass(frozen=True, slots=True)
class ScoredContent:
    """Keys of what scores depend on beside the model.

    Attributes:
        items: task -> ids of the items that are scored.
        keys: what it is -> its key.
    """

    items: tuple[tuple[str, tuple[int, ...]], ...]
    keys: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls, scorers: Sequence[Scorer], constraints: Iterable[Constraint], items: Mapping[str, tuple[int, ...]]
    ) -> ScoredContent:
        """Of what is loaded here.

        Args:
            scorers: the tasks.
            constraints: of the search.
            items: task -> ids of the items that are scored.
        """
        return cls(tuple(items.items()), tuple(scoring_keys(scorers, constraints, items).items()))

    def check(self, scorers: Sequence[Scorer], constraints: Iterable[Constraint]) -> None:
        """Refuse to score by others.

        Args:
            scorers: the tasks, as a worker loaded them.
            constraints: likewise.

        Raises:
            TaskError: with each thing that differs.
        """
        now, before = scoring_keys(scorers, constraints, dict(self.items)), dict(self.keys)
        changed = [what for what in dict.fromkeys([*before, *now]) if before.get(what) != now.get(what)]
        if changed:
            raise TaskError(
                *(f"{what} is not what it was when the search was opened" for what in changed),
                "Scores by both cannot be compared. Put files back as they were while a search goes on; a function of "
                "items must return the same list every time",
            )
