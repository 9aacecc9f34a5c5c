"""Reading a mark off a judge's answer. What cannot be read is an error, never a mark."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any


class UnreadableMarkError(ValueError):
    """A judge's answer has no mark by the rule, or one outside the range."""


class MarkReader:
    """Reads marks and scales them to [0, 1].

    Args:
        regex: With one group; the last match counts.
        json_key: Instead of it: the key of the mark in the JSON object of the answer.
        values: Words that are marks, by their lower case.
        low: The worst mark.
        high: The best mark.
    """

    def __init__(
        self, regex: str | None, json_key: str | None, values: Mapping[str, float], low: float, high: float
    ) -> None:
        self._regex = None if regex is None else re.compile(regex)
        self._json_key = json_key
        self._values = {word.casefold(): value for word, value in values.items()}
        self._low = low
        self._high = high

    def read(self, answer: str) -> float:
        """The mark of an answer, 0 for the worst and 1 for the best.

        Raises:
            UnreadableMarkError: There is none.
        """
        found = self._by_regex(answer) if self._regex is not None else self._by_key(answer)
        mark = self._number(found)
        if not self._low <= mark <= self._high:
            raise UnreadableMarkError(f"the judge's mark {mark:g} is not in {self._low:g} to {self._high:g}")
        return (mark - self._low) / (self._high - self._low)

    def _by_regex(self, answer: str) -> Any:
        matches = [] if self._regex is None else self._regex.findall(answer)
        if not matches:
            raise UnreadableMarkError(f"the judge's answer has no mark: {_beginning(answer)}")
        return matches[-1]

    def _by_key(self, answer: str) -> Any:
        # The whole answer, or what stands between its first and its last brace: judges like to wrap their JSON.
        start, end = answer.find("{"), answer.rfind("}")
        try:
            content = json.loads(answer[start : end + 1])
        except (ValueError, RecursionError):  # also of a number of thousands of digits
            raise UnreadableMarkError(f"the judge's answer has no JSON object: {_beginning(answer)}") from None
        if not isinstance(content, dict) or self._json_key not in content:
            raise UnreadableMarkError(f"the judge's answer has no key {self._json_key!r}: {_beginning(answer)}")
        return content[self._json_key]

    def _number(self, found: Any) -> float:
        if isinstance(found, str) and found.strip().casefold() in self._values:
            return self._values[found.strip().casefold()]
        try:
            number = math.nan if isinstance(found, bool) else float(found)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UnreadableMarkError(f"the judge's mark {_beginning(found)} is not a number")
        return number


def _beginning(answer: Any) -> str:
    if not isinstance(answer, str):
        text = repr(answer)
        return text if len(text) <= 60 else text[:57] + "..."
    return repr(answer if len(answer) <= 60 else answer[:57] + "...")
