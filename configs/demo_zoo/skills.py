"""The four skills of the demo zoo: how an item is drawn, what its answer is, and which side of the split it is on.

All skills share one prompt form, `skill:payload=`, and one alphabet, so that models trained on one of them
interfere on the others.

An item belongs to training or to evaluation by a hash of its prompt alone, so the two are disjoint whatever is
drawn, in whatever order, with whatever seed.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLIT_KEY = b"demo-zoo"
EVALUATION_SHARE = 0.12
WORD_LENGTH = 6  # even, so that swapping leaves no letter over


@dataclass(frozen=True)
class Item:
    """One question: `prompt` is what the model reads, `answer` what it must write, exactly."""

    prompt: str
    answer: str


def _shift(payload: str) -> str:
    """Replace every letter by the next one of the alphabet; z becomes a."""
    alphabet = string.ascii_lowercase
    return "".join(alphabet[(alphabet.index(letter) + 1) % len(alphabet)] for letter in payload)


def _swap(payload: str) -> str:
    """Swap every letter with its neighbour: first with second, third with fourth, and so on."""
    return "".join(payload[start + 1] + payload[start] for start in range(0, len(payload), 2))


def _word(random_numbers: random.Random) -> str:
    return "".join(random_numbers.choices(string.ascii_lowercase, k=WORD_LENGTH))


@dataclass(frozen=True)
class Skill:
    """A kind of question: `draw_payload` makes what stands after the colon, `solve` answers it."""

    name: str
    draw_payload: Callable[[random.Random], str]
    solve: Callable[[str], str]

    def item(self, payload: str) -> Item:
        return Item(prompt=f"{self.name}:{payload}=", answer=self.solve(payload))

    def items(self, *, for_evaluation: bool, seed: int) -> Iterator[Item]:
        """Draw items of one side of the split without end; repeats are possible, items of the other side are not."""
        random_numbers = random.Random(f"{self.name}/{for_evaluation}/{seed}")
        while True:
            item = self.item(self.draw_payload(random_numbers))
            if is_evaluation(item.prompt) == for_evaluation:
                yield item


SKILLS = {
    skill.name: skill
    for skill in (
        Skill("sorting", _word, lambda payload: "".join(sorted(payload))),
        Skill("reversal", _word, lambda payload: payload[::-1]),
        Skill("shift", _word, _shift),
        Skill("swapping", _word, _swap),
    )
}


def is_evaluation(prompt: str) -> bool:
    """Whether an item is kept from training: its keyed hash, read as a fraction, is below `EVALUATION_SHARE`."""
    digest = hashlib.blake2s(prompt.encode(), key=SPLIT_KEY, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < EVALUATION_SHARE


def evaluation_items(skill: Skill, count: int, seed: int = 0) -> list[Item]:
    """Draw `count` distinct evaluation items.

    Args:
        skill: What to draw.
        count: How many; the skill must have at least that many evaluation items.
        seed: Seed of the draw.

    Returns:
        Items in the order in which they were first drawn.
    """
    distinct: dict[str, Item] = {}
    for item in skill.items(for_evaluation=True, seed=seed):
        distinct.setdefault(item.prompt, item)
        if len(distinct) == count:
            break
    return list(distinct.values())
