"""What a user may say about a judge, and about a task that it marks."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.scorers.item_failures import ON_ITEM_ERROR, OnItemError
from evolve.scoring.scorers.item_source import ItemSource
from evolve.scoring.task_config import TaskConfig

# Names under which people pass keys. Options are part of the recorded search.
_KEY_NAMES = frozenset({"api_key", "apikey", "api-key", "authorization", "headers", "extra_headers"})


class JudgeSettings(BaseModel):
    """The judge: any OpenAI-compatible chat completions endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(description="Such as `http://127.0.0.1:8000/v1`; `/chat/completions` is added.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable with the API key. The key itself is never written anywhere.",
    )
    temperature: float | None = Field(
        default=0.0, ge=0, description="Sampling temperature of the judge; null: the endpoint's default."
    )
    max_tokens: int | None = Field(
        default=512, ge=1, description="Maximum tokens of the judge's reply; null: the endpoint's default."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further keys of the request, such as `{seed: 1}`; they override the above."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, le=86_400, description="Time limit of one request.")
    concurrency: int = Field(default=4, ge=1, le=256, description="Parallel requests per worker.")
    retries: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="Retries of a failed request: rate limits, server errors, timeouts, no connection.",
    )
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        le=86_400,
        description="Longest delay before the first retry, doubled for each further one; actual delays are random up "
        "to that. The endpoint's Retry-After is obeyed.",
    )

    @field_validator("base_url")
    @classmethod
    def _plain(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            parts.port  # noqa: B018
        except ValueError as error:
            raise ValueError(f"{value}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected a URL such as http://127.0.0.1:8000/v1, got {value!r}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("holds more than an address. A key goes into the environment variable of api_key_env")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII):
            # What was found is not said: it may be the key itself.
            raise ValueError("expected the name of an environment variable, such as JUDGE_KEY; the key goes into it")
        return value

    @field_validator("options")
    @classmethod
    def _sendable(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = sorted({"messages", "model", "stream", "n"} & set(value))
        if ours:
            raise ValueError(f"{', '.join(ours)} is set by the task; remove it")
        keys = [name for name in value if name.casefold() in _KEY_NAMES]
        if keys:
            raise ValueError(
                f"{keys[0]}: a key goes into the environment variable of api_key_env, never into this file"
            )
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be sent as JSON: {error}") from None
        return value


class ParseRule(BaseModel):
    """How a mark is read from the judge's reply. A reply that does not match is a failure, never a mark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regex: str | None = Field(
        default=None,
        description=r"A pattern whose one group is the mark, such as `Score: (\d+)`; the last match counts.",
    )
    json_key: str | None = Field(
        default=None, min_length=1, description="Instead of regex: the mark's key in a JSON object in the reply."
    )
    values: dict[str, float] = Field(
        default_factory=dict, description="Words that stand for marks, such as `{yes: 1, no: 0}`; case does not matter."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ParseRule:
        if (self.regex is None) == (self.json_key is None):
            found = "neither" if self.regex is None else "both"
            raise ValueError(f"exactly one of regex and json_key is needed, found {found}")
        if self.regex is not None:
            try:
                groups = re.compile(self.regex).groups
            except re.error as error:
                raise TaskError(Problem(("regex",), str(error))) from None
            if groups != 1:
                raise TaskError(Problem(("regex",), f"expected one group, such as `Score: (\\d+)`, found {groups}"))
        return self


class MarkRange(BaseModel):
    """The worst and the best mark, which are scaled to 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(allow_inf_nan=False, description="The worst mark.")
    high: float = Field(allow_inf_nan=False, description="The best mark.")

    @model_validator(mode="after")
    def _ordered(self) -> MarkRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got low {self.low:g} and high {self.high:g}")
        return self


class JudgeTask(TaskConfig):
    """A judge model marks the candidate's answers to your questions; the score is the mean mark, from 0 to 1."""

    judge: JudgeSettings = Field(description="The endpoint and its model.")
    items: ItemSource = Field(
        description="The questions: a .jsonl, .json, .csv or .txt file, or `{python: package.module:function}`."
    )
    question: str = Field(default="question", description="The field of an item with the question for the candidate.")
    prompt: str = Field(
        min_length=1,
        description="The judge's prompt: a Jinja2 template of `question`, `answer` and the item's other fields, such "
        "as `reference`.",
    )
    system: str | None = Field(default=None, description="A system message for the judge.")
    parse: ParseRule = Field(description="How the mark is read.")
    range: MarkRange = Field(description="The worst and the best mark; a mark outside is a failure.")
    attempts: int = Field(
        default=3,
        ge=1,
        description="How often the judge is asked if its reply has no mark; at temperature 0 it may repeat itself.",
    )
    apply_chat_template: bool = Field(
        default=False, description="Use the candidate tokenizer's chat template instead of the question alone."
    )
    system_instruction: str | None = Field(
        default=None, description="With the chat template: a system message for the candidate."
    )
    max_new_tokens: int = Field(default=256, ge=1, description="Maximum tokens of the candidate's answer.")
    stop: tuple[str, ...] = Field(default=(), description="Texts that end the candidate's answer.")
    cache: str | None = Field(
        default=None,
        min_length=1,
        description="SQLite cache of the judge's replies, beside this file; by default one for all searches, in "
        "$XDG_CACHE_HOME/evolve-merge. No reply is requested twice.",
    )
    on_item_error: OnItemError = Field(default="fail", description=ON_ITEM_ERROR)

    @property
    def default_label(self) -> str:
        """Of a task that has no name."""
        return "judge"

    @model_validator(mode="after")
    def _consistent(self) -> JudgeTask:
        if isinstance(self.items, int):
            raise TaskError(Problem(("items",), "expected the questions, found only their number"))
        if self.system_instruction is not None and not self.apply_chat_template:
            raise ValueError("system_instruction needs apply_chat_template: true")
        if self.signal != "metric":
            message = f"{self.signal} needs a continuous signal, and a judge gives none. Remove signal"
            raise TaskError(Problem(("signal",), message))
        return self
