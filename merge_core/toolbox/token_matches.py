"""Which tokens of two vocabularies are the same: those that stand for the same bytes, or serve the same purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from merge_core.vocabulary.special_tokens import special_tokens
from merge_core.vocabulary.vocabulary import Vocabulary

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_characters() -> dict[str, int]:
    """How byte-level tokenizers write bytes: printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_characters()


@dataclass(frozen=True, slots=True)
class TokenMatches:
    """What a donor's tokens are to a model.

    Attributes:
        same: donor id → model id of tokens that both have.
        same_byte: the same of tokens of a single byte (``<0x0A>``), which the model has in another form.
        prefixes: donor id → model id of the longest token that the donor's begins with, of those that the model lacks.
        texts: donor id → the bytes that it stands for, of all of the donor's tokens.
    """

    same: Mapping[int, int]
    same_byte: Mapping[int, int]
    prefixes: Mapping[int, int]
    texts: Mapping[int, bytes]


def match_tokens(model: Vocabulary, donor: Vocabulary) -> TokenMatches:
    """Compare two vocabularies, whichever way each writes spaces and bytes.

    A special token that the model lacks is the same as the model's of the same purpose, such as what texts begin with.
    """
    by_text: dict[bytes, int] = {}
    for token, text in sorted(_texts(model), key=lambda item: model.ids[item[0]]):
        if _BYTE.fullmatch(token) is None:
            by_text.setdefault(text, model.ids[token])
    purposes, own = special_tokens(donor.directory), special_tokens(model.directory)
    by_purpose = {token: own[key] for key, token in purposes.items() if own.get(key) in model.ids}
    alike = model.style == donor.style
    same, same_byte, prefixes, texts = {}, {}, {}, {}
    for token, text in _texts(donor):
        number, is_byte = donor.ids[token], _BYTE.fullmatch(token) is not None
        texts[number] = text
        if (alike or is_byte) and token in model.ids:
            same[number] = model.ids[token]
        elif text in by_text and not is_byte:
            same[number] = by_text[text]
        elif token in by_purpose:
            same[number] = model.ids[by_purpose[token]]
        else:
            if is_byte and text in by_text:
                same_byte[number] = by_text[text]
            starts = (text[:end] for end in range(len(text) - 1, 0, -1))
            # That a word follows a space says nothing of the word.
            longest = next((by_text[start] for start in starts if start in by_text and start.strip()), None)
            if longest is not None:
                prefixes[number] = longest
    return TokenMatches(same, same_byte, prefixes, texts)


def _texts(vocabulary: Vocabulary) -> Iterator[tuple[str, bytes]]:
    """Every token and the bytes that it stands for; added tokens are matched as they are written."""
    style = vocabulary.style
    for token in vocabulary.ids:
        byte = _BYTE.fullmatch(token)
        if byte is not None:
            yield token, bytes([int(byte[1], 16)])
        elif token in vocabulary.added:
            yield token, token.encode()
        elif style == "byte-level" and all(character in _BYTES for character in token):
            yield token, bytes(_BYTES[character] for character in token)
        else:
            yield token, (token.replace("▁", " ") if style == "sentencepiece" else token).encode()
