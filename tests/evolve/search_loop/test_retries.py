"""Which failures are tried again when a run goes on."""

from __future__ import annotations

import pytest

from evolve.search_loop.retries import to_retry
from evolve.trials.trial import Evaluation, Kind, Trial


def trials_with(*failures, batches=None):
    """Candidates: None: scored; True: failed unforeseen; False: failed."""
    batches = batches or range(len(failures))
    found = []
    for number, (failed, batch) in enumerate(zip(failures, batches, strict=True)):
        evaluation = Evaluation(number, scores={"task": {0: 1.0}})
        if failed is not None:
            evaluation = Evaluation(number, failure="no", unforeseen=failed)
        found.append(Trial(number, Kind.CANDIDATE, "", batch, {}, (0.5,), evaluation=evaluation))
    return found


@pytest.mark.parametrize(
    ("lag", "batches", "retried"),
    [
        (None, (0, 0, 1, 1, 1), [3]),  # of the last batch, and not what was the candidate's own fault
        (1, (0, 1, 2, 3, 4), []),
        (2, (0, 1, 2, 3, 4), [3]),
        (5, (0, 1, 2, 3, 4), [0, 3]),
    ],
)
def test_only_what_no_later_candidate_rests_on_is_tried_again(lag, batches, retried):
    trials = trials_with(True, None, False, True, None, batches=batches)
    assert to_retry(trials, lag) == retried
