"""Where an answer ends, checked on decoded text but cheaply.

Decoding every row after every token costs more than a small model's forward. A stop string can only be
completed by a token whose own text ends it, so each token id is looked at once, and only the tokens that
could end a stop string cause a look at the decoded tail.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from evolve.scoring.thinking import Thinking

# One character may be four byte tokens; a few tokens more settle what the tokenizer does at the seam.
_TOKENS_PER_CHARACTER = 4
_SEAM_TOKENS = 8
_ANSWERS_KEPT = 8192
_UNDECODABLE = "\ufffd"


class Ending(enum.Enum):
    """What writing a token says about the end of the answer."""

    NO = 0
    PERHAPS = 1
    YES = 2


class StopStrings:
    """Tells whether an answer is over, and cuts it.

    Args:
        tokenizer: A transformers tokenizer.
        stop: The answer ends before the first of these; empty ones are ignored.
        end_tokens: Token ids that end the answer by themselves (EOS).
        thinking: Of a thought before the answer, in which no stop string ends anything.

    Attributes:
        harmless: Token ids of which it is already known that no answer ends with them.
    """

    def __init__(
        self, tokenizer: Any, stop: Sequence[str], end_tokens: Iterable[int], thinking: Thinking | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self.end_tokens = frozenset(end_tokens)
        self._thinking = None if thinking is None else _by_token(thinking, tokenizer)
        self.harmless: set[int] = set()
        self._endings = dict.fromkeys(self.end_tokens, Ending.YES)
        longest = max(map(len, self._stop), default=0)
        self._tail = longest * _TOKENS_PER_CHARACTER + _SEAM_TOKENS
        anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._anchor: list[int] = list(anchor)
        self._anchor_text = self._decode(self._anchor)
        # The last answers: candidates of a search answer many items alike.
        self._answer = functools.lru_cache(_ANSWERS_KEPT)(self._decoded_answer)
        self._plain_decoding = not getattr(tokenizer, "clean_up_tokenization_spaces", False)

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether the answer is over after the last of these tokens, given that it was not before."""
        last = tokens[-1]
        ending = self._endings.get(last)
        if ending is None:
            ending = self._endings[last] = self._ending(last)
            if ending is Ending.NO:
                self.harmless.add(last)
        if self._thinking is not None and ending is not Ending.NO and last not in self.end_tokens:
            thought, answer = self._split(tokens)
            return bool(thought) and any(stop in answer.lstrip() for stop in self._stop)
        if ending is Ending.PERHAPS:
            tail = self._decode(tokens[-self._tail :])
            return any(stop in tail for stop in self._stop)
        return ending is Ending.YES

    def answer(self, tokens: Sequence[int]) -> str:
        """The text of the generated tokens, without EOS and anything from the first stop string on.

        A thought before it is left out, or kept whole.
        """
        return self._answer(tuple(tokens))

    def _decoded_answer(self, tokens: tuple[int, ...]) -> str:
        end = next((i for i, token in enumerate(tokens) if token in self.end_tokens), len(tokens))
        if self._thinking is None:
            return self._cut(self._tokenizer.decode(list(tokens[:end]), skip_special_tokens=True))
        thought, answer = self._split(tokens[:end])
        answer = self._cut(answer.lstrip() if self._thinking.strip else answer)
        return answer if self._thinking.strip else thought + answer

    def _cut(self, text: str) -> str:
        for stop in self._stop:
            text = text.split(stop, 1)[0]
        return text

    def _split(self, tokens: Sequence[int]) -> tuple[str, str]:
        """Thought and answer, as texts."""
        thinking = self._thinking
        if thinking is None or isinstance(thinking.end, str):
            text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            return ("", text) if thinking is None else thinking.split(text)
        thought, answer = (
            self._tokenizer.decode(list(part), skip_special_tokens=True) for part in thinking.split_tokens(tokens)
        )
        return thought, answer

    def _ending(self, token: int) -> Ending:
        if not self._stop:
            return Ending.NO
        # Decoded after a letter: by itself, a token would lose its leading space with some tokenizers.
        text = self._decode([*self._anchor, token])
        if not self._anchor_text or not text.startswith(self._anchor_text) or _UNDECODABLE in text:
            return Ending.PERHAPS
        piece = text[len(self._anchor_text) :]
        if any(stop in piece for stop in self._stop):
            return Ending.YES if self._plain_decoding else Ending.PERHAPS
        completes = any(piece.startswith(stop[i:]) for stop in self._stop for i in range(1, len(stop)))
        return Ending.PERHAPS if completes else Ending.NO

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text


def _by_token(thinking: Thinking, tokenizer: Any) -> Thinking:
    """A thought that ends with a special token ends with its id: the text of an answer has none."""
    if isinstance(thinking.end, int) or thinking.end not in tokenizer.all_special_tokens:
        return thinking
    return thinking.model_copy(update={"end": tokenizer.convert_tokens_to_ids(thinking.end)})
