"""Looks and steps are answered by the journal, to whoever asks the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.search_loop.replay import Replay
from evolve.trials.journal import Journal
from evolve.trials.journal_lines import JournalError
from evolve.trials.trial import Evaluation

ITEMS = {"sums": (1, 2)}
RECIPES: dict[str, dict[str, Any]] = {"base": {"weight": 0.0}, "half": {"weight": 0.5}}


class Answers:
    """Scores a recipe by its weight; with a limit, as a process that is killed after so many answers."""

    threads = 1

    def __init__(self, limit: int = 99) -> None:
        self.limit = limit

    def evaluate(self, requests: Iterable[Request]) -> Iterator[Evaluation]:
        for request in requests:
            if self.limit == 0:
                raise KeyboardInterrupt
            self.limit -= 1
            yield Evaluation(request.number, scores={"sums": dict.fromkeys(ITEMS["sums"], request.recipe["weight"])})

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        for request in requests:
            yield Slopes(request.number, probabilities={"sums": {1: 0.5}})


def replay(file: Path, evaluator: Answers) -> Replay:
    journal = Journal.open(str(file), create=True)
    return Replay(journal, evaluator, interrupted=lambda: None, affords=lambda items: True)  # type: ignore[arg-type]


def step(weight: float) -> GradientRequest:
    return GradientRequest(0, {"weight": weight}, ITEMS, {"sums": 1.0}, 0.25)


def test_the_same_questions_are_answered_by_the_journal_and_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    first = replay(file, Answers())
    looked = first.look(RECIPES, ITEMS, keeps_answers=False)
    made = first.differentiate([step(0.1)], lambda place, slopes: (1.0,))
    again = replay(file, Answers(limit=0))
    assert again.look(RECIPES, ITEMS, keeps_answers=False) == looked
    assert again.differentiate([step(0.1)], lambda place, slopes: (2.0,)) == made
    for other in ({**RECIPES, "half": {"weight": 0.4}}, {"half": RECIPES["half"]}):
        with pytest.raises(JournalError, match="look 0 of the gradient start was asked for by another version"):
            replay(file, Answers(limit=0)).look(other, ITEMS, keeps_answers=False)
    with pytest.raises(JournalError, match="look 0 of"):
        replay(file, Answers(limit=0)).look(RECIPES, {"sums": (1,)}, keeps_answers=False)
    with pytest.raises(JournalError, match="step 0 of"):
        replay(file, Answers(limit=0)).differentiate([step(0.2)], lambda place, slopes: (1.0,))


def test_looks_that_were_cut_off_are_completed(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    first = replay(file, Answers(limit=1))
    with pytest.raises(KeyboardInterrupt):
        first.look(RECIPES, ITEMS, keeps_answers=False)
    found = replay(file, Answers(limit=1)).look(RECIPES, ITEMS, keeps_answers=False)
    assert isinstance(found, list)
    assert [evaluation.scores["sums"][1] for evaluation in found] == [0.0, 0.5]


def test_answers_of_a_version_that_did_not_keep_what_it_asked_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    first = replay(file, Answers())
    first.look(RECIPES, ITEMS, keeps_answers=False)
    first.journal.note("asked:look:0", None)
    with pytest.raises(JournalError, match="look 0 of"):
        replay(file, Answers(limit=0)).look(RECIPES, ITEMS, keeps_answers=False)
