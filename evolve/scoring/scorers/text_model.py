"""The model as the user's own Python functions see it: text in, text or numbers out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import ChatFormat, GenerationSettings, LanguageModel

_REMEMBERED = 8192


class PreparedRequests:
    """The last requests that were tokenised: most functions ask every candidate the same."""

    def __init__(self) -> None:
        self._requests: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, prepare: Callable[[], Any]) -> Any:
        """The request of a key, prepared now or before."""
        if key in self._requests:
            self._requests.move_to_end(key)
        else:
            self._requests[key] = prepare()
            if len(self._requests) > _REMEMBERED:
                self._requests.popitem(last=False)
        return self._requests[key]


class TextModel:
    """A model to ask.

    Example:
        >>> def brevity(model, items):
        ...     answers = model.generate([model.chat(item["question"]) for item in items], max_new_tokens=64)
        ...     return [1 / (1 + len(answer)) for answer in answers]

    Args:
        backend: The engine that runs it.
        prepared: Where tokenised requests are kept from one candidate to the next.

    Attributes:
        tokenizer: The model's transformers tokenizer.
        max_length: The longest input in tokens.
    """

    def __init__(self, backend: LanguageModel, prepared: PreparedRequests | None = None) -> None:
        self._backend = backend
        self._prepared = prepared if prepared is not None else PreparedRequests()

    @property
    def tokenizer(self) -> Any:
        """The model's transformers tokenizer."""
        return self._backend.tokenizer

    @property
    def max_length(self) -> int:
        """The longest input in tokens."""
        return self._backend.max_length

    @property
    def module(self) -> Any:
        """The live transformers model, for what only it can tell, such as hidden states. Leave it as it is."""
        return self._backend.model

    def sentence_transformer(self) -> Any:
        """The model as a `SentenceTransformer`, with the modules and prompts of the directory it is modelled on.

        Raises:
            TaskError: The package is not installed, or the engine is another than hf.
        """
        make = getattr(self._backend, "sentence_transformer", None)
        if make is None:
            raise TaskError("sentence_transformer: vllm has no vectors here. Set backend: {name: hf}")
        return make()

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 256, stop: Sequence[str] = (), **options: Any
    ) -> list[str]:
        """Continue each prompt, greedily unless the options say otherwise.

        Args:
            prompts: Texts; see `chat` for conversations. Put all into one call: they are run in batches.
            max_new_tokens: An answer has at most so many tokens.
            stop: An answer ends before the first of these.
            options: Further settings as for `transformers.GenerationConfig`, such as `do_sample=True,
                temperature=0.7`.

        Returns:
            The answers, without prompt and stop text.

        Raises:
            TaskError: `max_new_tokens` leaves no room for an answer.
        """
        if max_new_tokens < 1:  # every answer would be empty
            raise TaskError(f"generate: max_new_tokens must be at least 1, got {max_new_tokens}")
        _refuse_text(prompts, "generate", "prompts", "[prompt]")
        ends = (stop,) if isinstance(stop, str) else tuple(stop)
        settings = GenerationSettings(ends, max_new_tokens, tuple(sorted(options.items())))
        prepare = self._backend.prepare_generation
        name = repr(settings)  # options may hold values that are not hashable
        return self._backend.generate(
            [self._remembered("generate", (text, name), partial(prepare, text, settings)) for text in prompts]
        )

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The log-probability (nats) of each (context, continuation)'s continuation."""
        _refuse_text(pairs, "loglikelihood", "(context, continuation) pairs", "[(context, continuation)]")
        prepare = self._backend.prepare_continuation
        requests = [self._remembered("continue", tuple(pair), partial(prepare, *pair)) for pair in pairs]
        return [score for score, _ in self._backend.loglikelihood(requests)]

    def text_loglikelihood(self, texts: Sequence[str]) -> list[float]:
        """The log-probability (nats) of each whole text, in windows where it is longer than the model."""
        _refuse_text(texts, "text_loglikelihood", "texts", "[text]")
        prepare = self._backend.prepare_text
        return self._backend.loglikelihood_rolling(
            [self._remembered("text", text, partial(prepare, text)) for text in texts]
        )

    def chat(self, messages: str | Sequence[Mapping[str, str]], template: str | None = None, **variables: Any) -> str:
        """A conversation as the text of a prompt, by the tokenizer's chat template.

        Args:
            messages: With `role` and `content`; a text alone is what the user says.
            template: The name of the template where the tokenizer has several.
            variables: Further variables of the template, such as `enable_thinking=False`.

        Raises:
            TaskError: The tokenizer has no chat template.
        """
        conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return self._backend.apply_chat_template(conversation, ChatFormat(template, variables))

    def _remembered(self, kind: str, key: Hashable, prepare: Callable[[], Any]) -> Any:
        return self._prepared.get((self._backend.encoding_key, kind, key), prepare)


def _refuse_text(given: Any, method: str, expected: str, fix: str) -> None:
    """A text is a sequence of texts to Python: one letter each."""
    if isinstance(given, str):
        raise TypeError(f"{method}: expected a list of {expected}, got one text. Wrap it: {fix}")
