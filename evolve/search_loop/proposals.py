"""The candidates that an optimizer proposes, as trials; on resume they must be those of the journal."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.search_loop.ledger import Ledger
from evolve.space.space import Space, gene_values
from evolve.trials.journal_lines import JournalError
from evolve.trials.trial import Kind, Trial


def new_candidate(
    space: Space, ledger: Ledger, vector: tuple[float, ...], *, batch: int, before: int, offset: int = 0
) -> Trial:
    """A trial that is not begun.

    Args:
        space: decodes the vector.
        ledger: says which number is next.
        vector: a point of the unit cube.
        batch: that it is part of.
        before: candidates before this one and those that it is offset by.
        offset: others that are to be begun before it.
    """
    return Trial(
        number=len(ledger.trials) + offset,
        kind=Kind.CANDIDATE,
        label=f"candidate {before + offset + 1}",
        batch=batch,
        recipe=space.decode(vector),
        vector=vector,
        genes=gene_values(space, vector),
    )


def refuse_other_points(batch: int, recorded: Sequence[Trial], vectors: Sequence[tuple[float, ...]]) -> None:
    """Resume is replay.

    Raises:
        JournalError: what is recorded is not what is proposed now.
    """
    if any(trial.vector != vector for trial, vector in zip(recorded, vectors, strict=False)):
        raise JournalError(
            f"batch {batch} of the journal was proposed by another version of the optimizer; "
            "go on with the versions in run.json, or start anew with another output"
        )
