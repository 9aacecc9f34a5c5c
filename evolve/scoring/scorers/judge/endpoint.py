"""Asking an OpenAI-compatible endpoint, as often as it takes and no longer."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeAlias

import httpx2

from evolve.scoring.errors import Problem, ScoringError, TaskError, UnavailableError

Ask: TypeAlias = Callable[[Mapping[str, Any]], str]
"""A request -> the text of its answer."""

_AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
_OF_THE_REQUEST = frozenset({400, 413, 422})  # which another candidate's may not have
_LONGEST_PAUSE_SECONDS = 120.0
_LARGEST_REPLY_BYTES = 8 << 20


class EndpointError(ScoringError):
    """The endpoint gave no answer."""


class EndpointUnavailableError(EndpointError, UnavailableError):
    """It is away, overloaded, or lets nobody in: what was to be scored has nothing to do with it."""


class _TryAgainError(Exception):
    """A request that may succeed when it is made again."""

    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


class Endpoint:
    """Chat completions over HTTP, with retries.

    Pauses between tries grow exponentially and are drawn at random up to that ("full jitter"), so that many workers
    do not come back at once; the endpoint's own Retry-After is obeyed.

    Args:
        base_url: Without `/chat/completions`.
        api_key_env: The environment variable with the key; it is read for each request and kept nowhere.
        timeout_seconds: For one whole request, however slowly it trickles in.
        retries: After a request that failed.
        backoff_seconds: The longest first pause.
        sleep: Waits; for tests.

    Raises:
        TaskError: The environment variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None,
        timeout_seconds: float,
        retries: int,
        backoff_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = f"{base_url}/chat/completions"
        self._api_key_env = api_key_env
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._backoff_seconds = backoff_seconds
        self._sleep = sleep
        self._random = random.Random()  # pauses only: nothing that is scored depends on it
        self._key()

    @contextmanager
    def connected(self, retries: int | None = None) -> Iterator[Ask]:
        """Open connections, and give what asks over them: a request -> the text of the first choice.

        What is given raises `EndpointError` when the endpoint refuses a request, or does not answer in all tries. It
        may be called by several threads.

        Args:
            retries: Instead of the usual number.
        """
        tries = 1 + (self._retries if retries is None else retries)
        limits = httpx2.Limits(max_connections=None)
        with httpx2.Client(timeout=self._timeout_seconds, follow_redirects=False, limits=limits) as client:
            yield partial(self._ask, client, tries)

    def _ask(self, client: httpx2.Client, tries: int, body: Mapping[str, Any]) -> str:
        reason = ""
        for number in range(tries):
            try:
                return self._request(client, body)
            except _TryAgainError as error:
                reason = str(error)
                if number + 1 < tries:
                    pause = self._random.uniform(0, self._backoff_seconds * 2 ** min(number, 20))
                    self._sleep(min(max(pause, error.pause_seconds or 0.0), _LONGEST_PAUSE_SECONDS))
        often = f"{tries} {'try' if tries == 1 else 'tries'}"
        raise EndpointUnavailableError(f"judge: {self.url}: no answer in {often}: {reason}")

    def _request(self, client: httpx2.Client, body: Mapping[str, Any]) -> str:
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        deadline = time.monotonic() + self._timeout_seconds
        received = bytearray()
        try:
            with client.stream("POST", self.url, json=body, headers=headers) as response:
                for part in response.iter_bytes():
                    received += part
                    if time.monotonic() > deadline:
                        raise _TryAgainError(f"no complete answer within {self._timeout_seconds:g} s")
                    if len(received) > _LARGEST_REPLY_BYTES:
                        raise _TryAgainError(f"an answer of more than {_LARGEST_REPLY_BYTES >> 20} MiB")
                status, reply_headers = response.status_code, response.headers
        except httpx2.TimeoutException:
            raise _TryAgainError(f"no answer within {self._timeout_seconds:g} s") from None
        except httpx2.InvalidURL as error:
            raise EndpointError(f"judge: {self.url}: {error}. Check base_url") from None
        except httpx2.HTTPError as error:
            raise _TryAgainError(_without(key, f"{type(error).__name__}: {error}")) from None
        text = received.decode("utf-8", errors="replace")
        if status in _AGAIN or status >= 500:
            raise _TryAgainError(f"HTTP {status}{_said(text, key)}", _retry_after(reply_headers))
        if status != 200:
            kind = EndpointError if status in _OF_THE_REQUEST else EndpointUnavailableError
            raise kind(f"judge: {self.url}: HTTP {status}{_said(text, key)}{self._hint(status)}")
        return _content(text, key)

    def _key(self) -> str | None:
        if self._api_key_env is None:
            return None
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            message = f"environment variable {self._api_key_env} is not set. Put the key into it."
            raise TaskError(Problem(("judge", "api_key_env"), message))
        if not key.isascii() or not key.isprintable():
            message = f"environment variable {self._api_key_env} holds no key: it is not plain ASCII"
            raise TaskError(Problem(("judge", "api_key_env"), message))
        return key

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            variable = self._api_key_env
            return f". Check the key in {variable}" if variable else ". Name the key's variable in api_key_env"
        if status == 404:
            return ". Check base_url and model"
        return ""


def _content(text: str, key: str | None) -> str:
    """The answer in a reply; what is no reply may be a proxy's, and gone the next time."""
    try:
        content = json.loads(text)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _TryAgainError(f"not a chat completion{_said(text, key)}") from None
    if not isinstance(content, str):
        raise _TryAgainError(f"a chat completion without text{_said(text, key)}")
    return content.encode("utf-8", "replace").decode()  # halves of surrogate pairs, which no file takes


def _said(text: str, key: str | None) -> str:
    """The beginning of what an endpoint said, on one line and without the key."""
    try:
        content = json.loads(text)
        error = content.get("error", text) if isinstance(content, dict) else text
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    line = " ".join(_without(key, text).split())
    return f": {line[:200]}" if line else ""


def _without(key: str | None, text: str) -> str:
    return text.replace(key, "***") if key else text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an endpoint asks to wait: a number, or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
        return max((date - datetime.now(UTC if date.tzinfo else None)).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
