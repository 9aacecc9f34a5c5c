"""What parents wrote and was right: targets of the gradient where gold answers are no good ones, or none are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from evolve.scoring import Scorer, oriented
from evolve.scoring.targets import WrittenAnswers
from evolve.trials.trial import Evaluation

GOLD_LIKE = 0.5  # of parents' right answers are the gold ones, or these are not how models answer
SURE = 0.05  # so improbable must it be that as many are, before the parents' answers are taken in place of gold


@dataclass(frozen=True)
class AnswerTargets:
    """Which answers count as right.

    Attributes:
        written: task name -> item id -> parents' answers.
        gold_counts: task name -> whether the task's own answers are targets too.
        known: names of the tasks that know what is right, of some items at least.
    """

    written: Mapping[str, Mapping[int, WrittenAnswers]] = field(default_factory=dict)
    gold_counts: Mapping[str, bool] = field(default_factory=dict)
    known: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, parents: Sequence[Evaluation], scorers: Sequence[Scorer], kind: Literal["auto", "gold", "parents"]
    ) -> Self:
        """Read them from what the parents wrote when they were scored.

        A model that reasons before it answers never writes the gold answer alone; there the parents' own right answers
        are the target, and gold only of items that no parent solved. Where scores are not simply right or wrong, and
        where nothing is known to be right, the answers of the parent that is best at the task are.

        Args:
            parents: what was measured of each; those that failed are passed over.
            scorers: the tasks.
            kind: of search.yml.
        """
        sound = [parent for parent in parents if parent.failure is None]
        known = frozenset(name for parent in sound for name, count in parent.target_counts.items() if count)
        written: dict[str, dict[int, WrittenAnswers]] = {}
        gold_counts: dict[str, bool] = {}
        for scorer in scorers:
            name = scorer.name
            able = [parent for parent in sound if parent.answers.get(name)]
            if not able or (kind == "gold" and name in known):
                continue
            written[name] = _right_answers(scorer, able, has_gold=name in known)
            gold_counts[name] = kind != "parents" and _writes_gold(scorer, able)
        return cls(written, gold_counts, known)

    @property
    def rests_on_parents(self) -> bool:
        """Whether there is a task whose targets are the parents' answers, which are needed on all items then."""
        return any(name not in self.known or not self.gold_counts[name] for name in self.written)

    def items(self, task: str, items: Sequence[int]) -> list[int]:
        """Those of a task's items that may have a target."""
        return [item for item in items if task in self.known or item in self.written.get(task, {})]


def _right_answers(scorer: Scorer, parents: Sequence[Evaluation], has_gold: bool) -> dict[int, WrittenAnswers]:
    """What parents wrote and was scored right; all that the best parent wrote where nothing says what is right.

    Where no parent was right in anything, none of them has anything to teach.
    """
    name = scorer.name
    right_alone = has_gold or _is_binary(scorer, parents)
    found: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for parent in parents if right_alone else [_best(scorer, parents)]:
        values = parent.scores[name]
        for item, (prompt, tokens) in parent.answers[name].items():
            if not right_alone or values.get(item) == 1:
                found.setdefault(item, []).append((tuple(prompt), tuple(tokens)))
    return {item: tuple(dict.fromkeys(answers)) for item, answers in found.items()}


def _is_binary(scorer: Scorer, parents: Sequence[Evaluation]) -> bool:
    """Whether items are right or wrong, as far as the parents' scores tell: all wrong is no sign of anything else."""
    values = [value for parent in parents for value in parent.scores[scorer.name].values()]
    right_or_wrong = all(isinstance(value, int | float) and value in (0, 1) for value in values)
    return scorer.direction == "maximize" and right_or_wrong


def _best(scorer: Scorer, parents: Sequence[Evaluation]) -> Evaluation:
    def score(parent: Evaluation) -> float:
        return oriented(scorer.aggregate(parent.scores[scorer.name]).value, scorer.direction)

    return max(parents, key=score)


def _writes_gold(scorer: Scorer, parents: Sequence[Evaluation]) -> bool:
    """Whether models that are right may well write what the task calls right; a few answers do not tell otherwise."""
    name = scorer.name
    right = gold = 0
    for parent in parents:
        values, answered = parent.scores[name], parent.answers[name]
        right += sum(values.get(item) == 1 for item in answered)
        gold += round(parent.gold_shares.get(name, 0.0) * len(answered))
    if gold >= GOLD_LIKE * right:
        return True
    as_few = sum(
        math.comb(right, count) * GOLD_LIKE**count * (1 - GOLD_LIKE) ** (right - count) for count in range(gold + 1)
    )
    return as_few > SURE
