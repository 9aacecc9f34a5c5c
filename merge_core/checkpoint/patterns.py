"""Regular expressions that come with a model: matched within a second or refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import regex

TRY_SECONDS = 10.0
"""For all patterns of an adapter on all modules of a model; sound ones need thousandths."""

_PLAIN = re.compile(r"[\w./@ -]*")
_TRY = r"""
import itertools, json, re, sys
patterns, names = json.load(sys.stdin)
for pattern, form in itertools.product(patterns, ("{}", r"(.*\.)?({})$", r"(^|.*?\.){}($|\.)")):
    try:
        tried = re.compile(form.replace("{}", pattern))
    except (re.error, OverflowError, RecursionError):
        continue  # whoever uses it says so
    for name in names:
        tried.match(name), tried.fullmatch(name), tried.search(name)
"""


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern that a model brings matches a text from its beginning; one that would search for ever fails.

    Raises:
        ValueError: it is no regular expression, or needs more than a second.
    """
    try:
        return regex.match(pattern, text, timeout=1.0) is not None
    except regex.error as error:
        raise ValueError(f"the pattern {pattern[:60]!r} is no regular expression: {error}") from error
    except TimeoutError as error:
        raise ValueError(f"the pattern {pattern[:60]!r} needs too long for {text!r}") from error


def check_patterns(settings: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse settings whose texts, taken for patterns by a library, would be matched for ever.

    Nothing interrupts Python's own matching in a process, so they are tried in another.

    Args:
        settings: what a model brings, patterns anywhere in it.
        names: what they are going to be matched against.

    Raises:
        ValueError: they need longer than `TRY_SECONDS`.
    """
    patterns = sorted({text for text in _texts(settings) if not _PLAIN.fullmatch(text)})
    if not patterns:
        return
    try:
        subprocess.run(
            [sys.executable, "-I", "-c", _TRY],
            input=json.dumps([patterns, list(names)]).encode(),
            capture_output=True,
            timeout=TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        shown = ", ".join(repr(pattern[:60]) for pattern in patterns[:3])
        raise ValueError(f"a pattern needs too long: {shown}") from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
