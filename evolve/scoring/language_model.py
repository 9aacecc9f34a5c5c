"""What a scorer asks of a model, whichever engine runs it.

Requests are prepared (tokenised) once and run for every candidate: nothing in a prepared request depends on
the model's weights, only on its tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from evolve.scoring.thinking import Thinking

# Without sampling these change nothing.
_SAMPLING_ONLY = frozenset({"temperature", "top_p", "top_k", "min_p"})


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How to continue a prompt.

    Attributes:
        stop: The answer ends before the first of these.
        max_new_tokens: The answer has at most so many tokens.
        options: Everything else, as for `transformers.GenerationConfig`, sorted by name. Empty is greedy.
        thinking: What ends the thought before the answer, None where none is expected.
    """

    stop: tuple[str, ...] = ()
    max_new_tokens: int = 256
    options: tuple[tuple[str, Any], ...] = ()
    thinking: Thinking | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the answer is the most probable token at each step, so that asking twice is pointless."""
        options = {name: value for name, value in self.options if value is not None}
        if options.pop("do_sample", False) or options.pop("num_beams", 1) != 1:
            return False
        return options.keys() <= _SAMPLING_ONLY


@dataclass(frozen=True, slots=True)
class PreparedGeneration:
    """A tokenised prompt to be continued."""

    tokens: tuple[int, ...]
    settings: GenerationSettings


@dataclass(frozen=True, slots=True)
class PreparedContinuation:
    """A tokenised context and the continuation whose probability is asked for. Neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A tokenised text whose whole probability is asked for, after `prefix_token`."""

    tokens: tuple[int, ...]
    prefix_token: int


Prepared: TypeAlias = PreparedGeneration | PreparedContinuation | PreparedText
"""Anything that a model can be asked."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How messages become a prompt: the name of the template (None: the default) and its variables."""

    template: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class LanguageModel(Protocol):
    """A model whose weights may change between calls while everything else stays.

    Attributes:
        model: The live module; candidates are written into its parameters.
        tokenizer: A transformers tokenizer.
        max_length: The longest input in tokens.
        encoding_key: Equal for two models whose prepared requests are interchangeable.
        forward_seconds: Time spent in the model itself so far, for telling the cost of everything else.
    """

    model: Any
    tokenizer: Any
    encoding_key: str

    @property
    def max_length(self) -> int: ...

    @property
    def forward_seconds(self) -> float: ...

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids of which each ends an answer by itself (EOS)."""

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], chat: ChatFormat, add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation as the text of a prompt."""

    def prepare_generation(self, prompt: str, settings: GenerationSettings) -> PreparedGeneration:
        """Tokenise a prompt to be continued."""

    def prepare_continuation(self, context: str, continuation: str) -> PreparedContinuation:
        """Tokenise a context and its continuation."""

    def prepare_answer(self, prompt: str, text: str) -> PreparedContinuation:
        """Tokenise a prompt and a text as a model would write it after that."""

    def prepare_text(self, text: str) -> PreparedText:
        """Tokenise a whole text."""

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """Continue each prompt up to its stop strings, which are not part of the answer."""

    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> list[list[int]]:
        """As `generate`, in token ids, with the token that ended each answer."""

    def answer_text(self, request: PreparedGeneration, tokens: Sequence[int]) -> str:
        """The answer that generated tokens are."""

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """For each the log-probability (nats) and whether greedy decoding would have written it."""

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """The log-probability (nats) of each whole text."""
