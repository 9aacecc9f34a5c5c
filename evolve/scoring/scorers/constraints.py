"""Constraints that are ready to use: a number for each of a model's answers, to be bounded in `search.yml`.

Your own are written the same way: a function of a list of answers that returns a number for each.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

REFUSALS = (
    "i can't",
    "i cannot",
    "i can not",
    "i'm sorry",
    "i am sorry",
    "i'm unable",
    "i am unable",
    "i won't",
    "as an ai",
)


def answer_length(
    answers: Sequence[str], *, unit: Literal["characters", "words", "bytes"] = "characters"
) -> list[float]:
    """How long each answer is.

    Args:
        answers: The model's answers.
        unit: In `characters`, `words` (white space between) or `bytes` of UTF-8.

    Raises:
        ValueError: The unit is none of these.
    """
    if unit == "characters":
        return [float(len(answer)) for answer in answers]
    if unit == "words":
        return [float(len(answer.split())) for answer in answers]
    if unit == "bytes":
        return [float(len(answer.encode())) for answer in answers]
    raise ValueError(f"unit: expected characters, words or bytes, got {unit!r}")


def refusal_rate(answers: Sequence[str], *, phrases: Sequence[str] = REFUSALS, within: int = 80) -> list[float]:
    """1 for each answer that refuses, else 0: their mean is the rate.

    Args:
        answers: The model's answers.
        phrases: What refusals say, in any case. The default is English.
        within: So many characters at the beginning are looked at.
    """
    wanted = [phrase.casefold() for phrase in phrases]
    return [
        float(any(phrase in answer[:within].casefold().replace("\u2019", "'") for phrase in wanted))
        for answer in answers
    ]


def script_share(answers: Sequence[str], *, script: str = "latin") -> list[float]:
    """The share of each answer's letters that are of a script; 1 where there are no letters.

    Tells languages apart as far as their scripts do: Japanese from English, not English from French.

    Args:
        answers: The model's answers.
        script: As Unicode names its letters: latin, cyrillic, greek, arabic, hebrew, devanagari, hangul, hiragana,
            katakana, thai, cjk. Several may be joined by `+`.
    """
    scripts = tuple(name.strip().upper() for name in script.split("+"))
    shares = []
    for answer in answers:
        letters = [unicodedata.name(letter, "") for letter in answer if letter.isalpha()]
        inside = sum(name.startswith(scripts) for name in letters)
        shares.append(inside / len(letters) if letters else 1.0)
    return shares


def empty_rate(answers: Sequence[str]) -> list[float]:
    """1 for each answer without anything but white space, else 0: their mean is the rate."""
    return [float(not answer.strip()) for answer in answers]


BUILT_IN = {function.__name__: function for function in (answer_length, refusal_rate, script_share, empty_rate)}
