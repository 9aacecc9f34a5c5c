"""The eight skills of the conventions bed: four kinds of question, each with two conventions that contradict.

A prompt is a letter for the kind, a sign for the convention, six letters, and `=`: `S<wqekdf=` asks for the letters in
ascending order, `S>wqekdf=` in descending. So prompts of a pair differ in one token and ask for different answers;
an expert of one convention, who never sees the other's sign, has no use for it. A merge must take it seriously.

| kind | `<` | `>` |
| --- | --- | --- |
| `S` | sorted, ascending | sorted, descending |
| `R` | rotated left by two | rotated right by two |
| `C` | every letter becomes the next one | every letter becomes the one before |
| `P` | neighbours swapped in pairs | the two halves swapped |
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ALPHABET = string.ascii_lowercase[:16]
LETTERS = 6  # even, so that swapping leaves no letter over
EVALUATION_SHARE = 0.1


@dataclass(frozen=True)
class Item:
    """One question: `prompt` is what the model reads, `answer` what it must write, exactly."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Skill:
    """A kind of question under one convention."""

    name: str
    mark: str
    solve: Callable[[str], str]

    def items(self, *, for_evaluation: bool, seed: int) -> Iterator[Item]:
        """Items of one side of the split without end; repeats are possible, items of the other side are not."""
        draw = random.Random(f"{self.name}/{for_evaluation}/{seed}")
        while True:
            word = "".join(draw.choices(ALPHABET, k=LETTERS))
            if _is_evaluation(word) == for_evaluation:
                yield Item(f"{self.mark}{word}=", self.solve(word))


def evaluation_items(skill: Skill, count: int) -> list[Item]:
    """So many different evaluation items, in the order in which they are first drawn."""
    distinct: dict[str, Item] = {}
    for item in skill.items(for_evaluation=True, seed=0):
        distinct.setdefault(item.prompt, item)
        if len(distinct) == count:
            break
    return list(distinct.values())


def _is_evaluation(word: str) -> bool:
    """By a hash of the word alone: no word that is evaluated on is trained on, under any convention."""
    digest = hashlib.blake2s(word.encode(), key=b"conventions", digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < EVALUATION_SHARE


def _shifted(by: int) -> Callable[[str], str]:
    return lambda word: "".join(ALPHABET[(ALPHABET.index(letter) + by) % len(ALPHABET)] for letter in word)


SKILLS = {
    skill.name: skill
    for skill in (
        Skill("sort_up", "S<", lambda word: "".join(sorted(word))),
        Skill("sort_down", "S>", lambda word: "".join(sorted(word, reverse=True))),
        Skill("rotate_left", "R<", lambda word: word[2:] + word[:2]),
        Skill("rotate_right", "R>", lambda word: word[-2:] + word[:-2]),
        Skill("next_letter", "C<", _shifted(1)),
        Skill("previous_letter", "C>", _shifted(-1)),
        Skill("swap_pairs", "P<", lambda word: "".join(word[at + 1] + word[at] for at in range(0, len(word), 2))),
        Skill("swap_halves", "P>", lambda word: word[len(word) // 2 :] + word[: len(word) // 2]),
    )
}
