"""Text without end that says nothing: hay to hide needles in, made from a small grammar of our own."""

from __future__ import annotations

import random

_PEOPLE = (
    "the miller", "the old ferryman", "a travelling tailor", "the schoolmaster", "my aunt", "the baker's daughter",
    "a quiet surveyor", "the night watchman", "an apprentice clockmaker", "the gardener", "two cousins", "the postman",
)  # fmt: skip
_VERBS = (
    "walked past", "remembered", "never spoke of", "painted", "drew a map of", "argued about", "kept returning to",
    "waited beside", "described", "had once repaired", "was afraid of", "dreamt about",
)  # fmt: skip
_THINGS = (
    "the stone bridge", "the empty orchard", "a row of poplars", "the market hall", "the broken weather vane",
    "a cellar full of apples", "the river in flood", "the narrow staircase", "a barrel organ", "the lighthouse lamp",
    "the long hedge", "a letter without an address",
)  # fmt: skip
_TIMES = (
    "In the first days of autumn", "Before the bells had stopped", "While the rain lasted", "Years afterwards",
    "On the evening of the fair", "As soon as the ice was gone", "Towards the end of the harvest", "That same winter",
    "When the shops were closed", "Long before anyone was awake",
)  # fmt: skip
_REASONS = (
    "because nobody else would", "though it was none of their business", "as people do in small towns",
    "and thought no more about it", "without saying why", "for the sake of an old promise",
    "since the road was closed again", "until the lamps were lit", "and went home by another way",
    "as if it had always been so",
)  # fmt: skip


def sentences(count: int, seed: int) -> list[str]:
    """Different sentences in an order that makes no story.

    Args:
        count: How many, at most 172,800.
        seed: Of their choice and order.
    """
    generator = random.Random(f"prose {seed}")
    parts = (_TIMES, _PEOPLE, _VERBS, _THINGS, _REASONS)
    total = 1
    for choices in parts:
        total *= len(choices)
    made = []
    for number in generator.sample(range(total), count):
        words = []
        for choices in parts:
            number, place = divmod(number, len(choices))
            words.append(choices[place])
        time, person, verb, thing, reason = words
        made.append(f"{time}, {person} {verb} {thing} {reason}.")
    return made
