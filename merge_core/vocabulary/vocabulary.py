"""A model's vocabulary: token text → row, read from its tokenizer files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from merge_core.bounds import TOKENIZER_BYTES, TOKENS
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more, first_line
from merge_core.input_files import reading
from merge_core.json_files import read_json


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What is known of a tokenizer.

    Attributes:
        directory: where it was read.
        ids: token text → id, added tokens included.
        added: text → entry of ``added_tokens``: tokens that are matched before the model sees the text.
        document: the content of ``tokenizer.json``. Do not write to it.
        left_out: tokens that the tokenizer has and its model has no row for.
    """

    directory: Path
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    left_out: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """``BPE``, ``Unigram``, ``WordPiece`` or ``WordLevel``."""
        return str(self.document["model"].get("type") or "BPE")

    @property
    def style(self) -> str:
        """How spaces are written inside tokens: ``byte-level`` (Ġ), or ``sentencepiece`` (▁), or ``plain``."""
        text = json.dumps([self.document.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")])
        if "ByteLevel" in text:
            return "byte-level"
        return "sentencepiece" if "\\u2581" in text or "Metaspace" in text else "plain"

    def tokenizer(self) -> Tokenizer:
        """What splits texts of any length as the model does; neither cuts nor pads them, whatever the file says.

        Raises:
            MergeError: the library makes nothing of the file.
        """
        with reading(self.directory / "tokenizer.json"):
            return Tokenizer.from_str(json.dumps({**self.document, "truncation": None, "padding": None}))

    def within(self, rows: int) -> Vocabulary:
        """The tokens that have a row, among ``rows``; nothing was learnt of any other."""
        left_out = frozenset(token for token, index in self.ids.items() if index >= rows)
        if not left_out:
            return self
        return Vocabulary(
            self.directory,
            {token: index for token, index in self.ids.items() if token not in left_out},
            {token: entry for token, entry in self.added.items() if token not in left_out},
            _document_without(self.document, left_out, rows),
            left_out,
        )


def checkpoint_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a checkpoint, read once and kept with it.

    Raises:
        MergeError: no tokenizer in the directory, or one that cannot be read.
    """
    return checkpoint.memo(
        checkpoint_vocabulary, lambda: read_vocabulary(checkpoint.directory, checkpoint.trust_remote_code)
    )


def read_vocabulary(directory: Path, trust_remote_code: bool = False) -> Vocabulary:
    """Read the tokenizer of a model directory: ``tokenizer.json``, or what `transformers` makes of older files.

    Args:
        directory: the model's.
        trust_remote_code: whether Python code in it may run for that.

    Raises:
        MergeError: no tokenizer, or one that cannot be read.
    """
    file = directory / "tokenizer.json"
    if file.exists():
        document = read_json(file, TOKENIZER_BYTES, repeats=True)
    else:
        document = _converted(directory, trust_remote_code)
    model = document.get("model")
    entries = document.get("added_tokens") or []
    with reading(f"{file}: not a tokenizer"):
        if not isinstance(model, dict):
            raise TypeError("no model")
        ids = _model_ids(model)
        _check_merges(model.get("merges") or [])
        added = {str(entry["content"]): entry for entry in entries}
        ids.update({content: entry["id"] for content, entry in added.items()})
        _check_ids(ids)
        undeclared = {token: entry for token, entry in declared_tokens(directory).items() if token not in ids}
        taken = set(ids.values()) if undeclared else set()
        for token, entry in undeclared.items():
            # Added by the configuration when the tokenizer is loaded.
            if entry["id"] not in taken:
                added[token] = entry
                ids[token] = entry["id"]
    if not ids:
        raise MergeError(f"{file}: the vocabulary is empty. Fetch the file again")
    return Vocabulary(directory, ids, added, document)


def _model_ids(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    if not isinstance(vocabulary, list):
        raise TypeError("its vocab is neither a mapping nor a list")
    # Unigram: pairs of token and score, the id is the place.
    return {str(entry[0]): index for index, entry in enumerate(vocabulary)}


def _document_without(document: Mapping[str, Any], tokens: frozenset[str], rows: int) -> dict[str, Any]:
    model = dict(document["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {token: index for token, index in vocabulary.items() if token not in tokens}
    else:
        model["vocab"] = vocabulary[:rows]
    if model.get("merges"):
        pairs = merge_pairs(model["merges"])
        model["merges"] = [pair for pair in pairs if not tokens & {*pair, "".join(pair)}]
    added = [entry for entry in document.get("added_tokens") or [] if entry["content"] not in tokens]
    return {**document, "model": model, "added_tokens": added}


def merge_pairs(merges: list[Any]) -> list[list[str]]:
    """The merges of a BPE model as pairs; older files write them as one text."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def _check_merges(merges: Any) -> None:
    """Merges are pairs of texts, or texts."""
    if not isinstance(merges, list):
        raise TypeError(f"merges are a list, got {str(merges)[:40]}")
    for merge in merges:
        parts = merge if isinstance(merge, list) else [merge]
        if not all(isinstance(part, str) for part in parts):
            raise TypeError(f"merges are pairs of texts, got {str(merge)[:40]}")


def _check_ids(ids: Mapping[str, Any]) -> None:
    """Ids are rows: each is a whole number, or rows of others would be taken in silence."""
    wrong = [token for token, index in ids.items() if type(index) is not int or not 0 <= index < TOKENS]
    if wrong:
        found = and_more(f"{token[:40]!r}: {str(ids[token])[:40]}" for token in wrong)
        raise ValueError(f"ids of tokens are whole numbers from 0 and below {TOKENS}, got {found}")


def declared_tokens(directory: Path) -> dict[str, dict[str, Any]]:
    """Tokens that the configuration of a tokenizer adds: text → entry, as of ``added_tokens``."""
    declared: dict[str, dict[str, Any]] = {}
    file = directory / "tokenizer_config.json"
    with reading(file):
        if file.exists():
            for index, entry in (read_json(file).get("added_tokens_decoder") or {}).items():
                declared[str(entry["content"])] = {**_PLAIN_TOKEN, **entry, "id": int(index)}
        _check_ids({token: entry["id"] for token, entry in declared.items()})
    return declared


def added_token(content: str, token_id: int, like: Mapping[str, Any] | None) -> dict[str, Any]:
    """An entry of ``added_tokens``, with the flags of another model's entry where there is one."""
    return {**_PLAIN_TOKEN, **(like or {"special": True}), "id": token_id, "content": content}


_PLAIN_TOKEN = {
    "id": 0,
    "content": "",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def _converted(directory: Path, trust_remote_code: bool) -> dict[str, Any]:
    """The tokenizer of a directory without ``tokenizer.json`` (sentencepiece, vocab and merges)."""
    fix = "Add the tokenizer.json of the model"
    if not any(next(directory.glob(pattern), None) for pattern in ("*.model", "vocab*", "*.tiktoken", "tokenizer*")):
        raise MergeError(f"{directory}: no tokenizer. {fix}, or remove the tokenizer setting from the recipe")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=trust_remote_code)
        document = json.loads(tokenizer.backend_tokenizer.to_str())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # every tokenizer library behind it raises its own types, Rust's no Exceptions
        if _lacks_tiktoken(directory):
            fix = f"It needs the package tiktoken. pip install 'evolve-merge[tiktoken]'. Or: {fix}"
        raise MergeError(
            f"{directory}: the tokenizer cannot be read: {first_line(error).rstrip('.')}. {fix}"
        ) from error
    if not isinstance(document, dict):
        raise MergeError(f"{directory}: the tokenizer cannot be read. {fix}")
    return document


def _lacks_tiktoken(directory: Path) -> bool:
    """Whether tiktoken is not installed, and there is a vocabulary in its form: lines of base64 and a rank."""
    if find_spec("tiktoken") is not None:
        return False
    for file in directory.glob("*.model"):
        with file.open("rb") as stream:
            if re.fullmatch(rb"[A-Za-z0-9+/]+=* \d+\s*", stream.readline(1 << 10)):
                return True
    return False
