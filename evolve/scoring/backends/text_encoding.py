"""Text to token ids, with the conventions of lm-eval's `HFLM`, so that the numbers are the same.

They matter at the edges: a prompt that already begins with the BOS token gets no second one, spaces at the
end of a context belong to the continuation, and an empty context is the BOS (or else EOS) token.
"""

from __future__ import annotations

import hashlib
from typing import Any

from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import PreparedContinuation, PreparedText


class TextEncoder:
    """Encodes prompts, pairs and texts with one tokenizer.

    Args:
        tokenizer: A transformers tokenizer.
        add_bos_token: Whether prompts begin with the BOS token; None leaves it to the tokenizer.

    Raises:
        TaskError: The tokenizer has neither a BOS nor an EOS token.
    """

    def __init__(self, tokenizer: Any, add_bos_token: bool | None = None) -> None:
        # That of an encoder has neither; nothing asks it for the probability of a text.
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, getattr(tokenizer, "cls_token_id", None))
        prefix = next((token for token in ids if token is not None), None)
        if prefix is None:
            raise TaskError(
                "tokenizer: it defines neither a BOS nor an EOS token, and one is needed to score a text "
                'from its start. Add one, for example "eos_token": "</s>" in tokenizer_config.json.'
            )
        self.tokenizer = tokenizer
        self.prefix_token: int = int(prefix)
        self._prefix_text: str = tokenizer.decode([self.prefix_token])
        self._special = {} if add_bos_token is None else {"add_special_tokens": add_bos_token}

    def prompt(self, text: str) -> tuple[int, ...]:
        """Encode a prompt for generation."""
        bos = self.tokenizer.bos_token
        special = {"add_special_tokens": False} if bos and text.startswith(bos) else self._special
        return self._encoded(text, **special)

    def text(self, text: str) -> tuple[int, ...]:
        """Encode a text for scoring."""
        has_prefix = bool(self._prefix_text) and text.startswith(self._prefix_text)
        special = {"add_special_tokens": False} if has_prefix else self._special
        # Texts longer than the model are cut into windows, so that the tokenizer's warning of them would be wrong.
        return self._encoded(text, verbose=False, **special)

    def pair(self, context: str, continuation: str) -> PreparedContinuation:
        """Encode a context and its continuation as they would be encoded in one piece.

        Raises:
            TaskError: Nothing is left to score.
        """
        if not context:
            tokens = self._encoded(continuation, add_special_tokens=False)
            if tokens[:1] == (self.prefix_token,):
                context_tokens, continuation_tokens = tokens[:1], tokens[1:]
            else:
                context_tokens, continuation_tokens = (self.prefix_token,), tokens
        else:
            stripped = context.rstrip()
            moved = context[len(stripped) :] + continuation
            context_tokens = self.text(stripped)
            continuation_tokens = self.text(stripped + moved)[len(context_tokens) :]
        if not context_tokens or not continuation_tokens:
            raise TaskError(
                f"task: the continuation {continuation!r} after a context ending in {context[-30:]!r} has no "
                "token of its own. Make the answer choices non-empty, or change target_delimiter."
            )
        return PreparedContinuation(context_tokens, continuation_tokens)

    def answer(self, prompt: str, text: str) -> PreparedContinuation:
        """Encode a prompt and what a model that continues its tokens writes.

        Spaces at the prompt's end stay there, as the model gets them: those after which a conversation's turn begins,
        for example. That is where it differs from a `pair`.

        Raises:
            TaskError: Nothing is left to score.
        """
        context, whole = self.prompt(prompt), self.prompt(prompt + text)
        if not context or not text:
            return self.pair(prompt, text)
        if whole[: len(context)] != context:  # the two would share a token, which cannot be written any more
            alone = self._encoded(text, add_special_tokens=False)
            if self.tokenizer.decode((*context, *alone)) != self.tokenizer.decode(whole):
                return self.pair(prompt, text)
            whole = (*context, *alone)
        return PreparedContinuation(context, whole[len(context) :])

    def whole_text(self, text: str) -> PreparedText:
        """Encode a text that is scored from its start."""
        return PreparedText(self.text(text), self.prefix_token)

    def _encoded(self, text: str, **options: bool) -> tuple[int, ...]:
        try:
            return tuple(self.tokenizer.encode(text, **options))
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of the library in Rust, and no Exception
                raise
            raise TaskError(f"tokenizer: cannot encode {text[:30]!r}: {error}. Fetch its files again") from error

    def fingerprint(self) -> str:
        """A digest that is equal for tokenizers that encode and render chats alike."""
        rust = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = rust.to_str() if rust is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        parts = (
            type(self.tokenizer).__name__,
            vocabulary,
            repr(self.tokenizer.special_tokens_map),
            repr(self.tokenizer.chat_template),
            repr(self._special),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
