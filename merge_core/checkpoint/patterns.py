"""Regular expressions that come with a model: matched within a second or refused."""

from __future__ import annotations

import regex


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
