"""The half of a language model that needs no weights: text to prepared requests, tokens to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evolve.scoring.backends.chat_rendering import render_chat
from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.backends.text_encoding import TextEncoder
from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import (
    ChatFormat,
    GenerationSettings,
    PreparedContinuation,
    PreparedGeneration,
    PreparedText,
)
from evolve.scoring.thinking import Thinking

# The context length goes by one of these names in a model's configuration; the order is lm-eval's.
_LENGTH_NAMES = ("n_positions", "max_position_embeddings", "n_ctx")
_DEFAULT_LENGTH = 2048
_UNLIMITED_LENGTH = int(1e30)


class RequestPreparation:
    """What every backend does alike, so that a request prepared for one means the same to another.

    Args:
        tokenizer: A transformers tokenizer.
        max_length: The longest input in tokens.
        add_bos_token: Whether prompts begin with the BOS token; None leaves it to the tokenizer.

    Attributes:
        encoding_key: Equal for two models whose prepared requests are interchangeable.
    """

    def __init__(self, tokenizer: Any, max_length: int, add_bos_token: bool | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._encoder = TextEncoder(tokenizer, add_bos_token)
        self.encoding_key = self._encoder.fingerprint()
        self._stops: dict[tuple[tuple[str, ...], Thinking | None], StopStrings] = {}

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], chat: ChatFormat, add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation; a template that refuses the system role gets the conversation without it.

        Raises:
            TaskError: The tokenizer has no chat template, or it does not render the conversation.
        """
        return render_chat(self.tokenizer, messages, chat, add_generation_prompt)

    def prepare_generation(self, prompt: str, settings: GenerationSettings) -> PreparedGeneration:
        """Tokenise a prompt to be continued.

        Raises:
            TaskError: The prompt is empty.
        """
        tokens = self._encoder.prompt(prompt)
        if not tokens:
            raise TaskError("task: a prompt to be continued is empty. Check doc_to_text of the task.")
        return PreparedGeneration(tokens, settings)

    def prepare_continuation(self, context: str, continuation: str) -> PreparedContinuation:
        """Tokenise a context and its continuation."""
        return self._encoder.pair(context, continuation)

    def prepare_answer(self, prompt: str, text: str) -> PreparedContinuation:
        """Tokenise a prompt and a text as a model would write it after that."""
        return self._encoder.answer(prompt, text)

    def prepare_text(self, text: str) -> PreparedText:
        """Tokenise a whole text."""
        return self._encoder.whole_text(text)

    @property
    def generation_config(self) -> Any:
        """The model's, of transformers; None without one."""
        return None

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids of which each ends an answer by itself: the tokenizer's and the generation configuration's."""
        # The tokenizer's too, as in lm-eval: a merge may inherit a config without it.
        configured = None if self.generation_config is None else self.generation_config.eos_token_id
        ends = [self.tokenizer.eos_token_id]
        ends += configured if isinstance(configured, Sequence) else [configured]
        return tuple(dict.fromkeys(int(end) for end in ends if end is not None))

    def answer_text(self, request: PreparedGeneration, tokens: Sequence[int]) -> str:
        """The answer that generated tokens are."""
        return self.stop_strings(request.settings).answer(tokens)

    def prompt_room(self, settings: GenerationSettings) -> int:
        """How many tokens of a prompt can be kept so that the longest answer still fits.

        Raises:
            TaskError: The longest answer alone does not fit the model.
        """
        room = self.max_length - settings.max_new_tokens
        if room <= 0:
            raise TaskError(
                f"generation: answers of up to {settings.max_new_tokens} tokens do not fit the model's "
                f"{self.max_length} positions. Set max_new_tokens: {self.max_length // 2}, or of an lm-eval task "
                f"gen_kwargs: {{max_gen_toks: {self.max_length // 2}}}."
            )
        return room

    def stop_strings(self, settings: GenerationSettings) -> StopStrings:
        """Where an answer ends."""
        key = settings.stop, settings.thinking
        if key not in self._stops:
            eos_text = (self.tokenizer.eos_token,) if self.tokenizer.eos_token else ()
            self._stops[key] = StopStrings(self.tokenizer, settings.stop + eos_text, self.end_tokens, settings.thinking)
        return self._stops[key]


def context_length(config: Any, tokenizer: Any) -> int:
    """The longest input in tokens, by a model's transformers configuration or else its tokenizer's."""
    config = getattr(config, "text_config", None) or config
    for name in _LENGTH_NAMES:
        if (value := getattr(config, name, None)) is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < _UNLIMITED_LENGTH else _DEFAULT_LENGTH


def stated_length(config: Mapping[str, Any]) -> int | None:
    """The longest input in tokens that a ``config.json`` states, None when it states none."""
    text = config.get("text_config")
    content = text if isinstance(text, Mapping) else config
    lengths = [content[name] for name in _LENGTH_NAMES if isinstance(content.get(name), int)]
    return lengths[0] if lengths else None


def by_settings(requests: Sequence[PreparedGeneration]) -> dict[GenerationSettings, list[int]]:
    """Group requests that are continued alike.

    Returns:
        Settings → positions in `requests`.
    """
    groups: dict[str, tuple[GenerationSettings, list[int]]] = {}
    seen: dict[int, list[int]] = {}  # by identity, which is quick: the items of a task share one object
    for index, request in enumerate(requests):
        settings = request.settings
        members = seen.get(id(settings))
        if members is None:
            # By representation: options may hold values that are not hashable.
            members = seen[id(settings)] = groups.setdefault(repr(settings), (settings, []))[1]
        members.append(index)
    return dict(groups.values())
