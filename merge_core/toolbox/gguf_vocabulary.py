"""A tokenizer as the files of llama.cpp have it: tokens, their kinds, merges, and how text is split beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.json_files import read_json
from merge_core.vocabulary.vocabulary import Vocabulary, checkpoint_vocabulary, merge_pairs

# What llama.cpp calls the ways of splitting a text before merging, by the regular expression of the tokenizer.
# Others it knows are not told apart from the expression alone; a wrong name would give other tokens in silence.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ROLES = ("bos", "eos", "unk", "pad")


def add_vocabulary(writer: Any, model: Checkpoint, rows: int) -> None:
    """Add the tokenizer of a model to a file.

    Args:
        writer: the file's ``GGUFWriter``.
        model: with a byte-level BPE tokenizer.
        rows: of its embedding.

    Raises:
        MergeError: a tokenizer that is not known to come through this unchanged.
    """
    vocabulary = checkpoint_vocabulary(model).within(rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split_name(vocabulary))
    texts = [f"[PAD{row}]" for row in range(rows)]  # rows that no token has
    kinds = [_UNUSED] * rows
    for text, row in vocabulary.ids.items():
        added = vocabulary.added.get(text)
        texts[row] = text
        kinds[row] = _NORMAL if added is None else _CONTROL if added.get("special") else _USER_DEFINED
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merge_pairs(vocabulary.document["model"].get("merges") or [])])
    _add_roles(writer, model.directory, vocabulary)


def _split_name(vocabulary: Vocabulary) -> str:
    before: Mapping[str, Any] = vocabulary.document.get("pre_tokenizer") or {}
    parts = before.get("pretokenizers", [before])
    kinds = [part.get("type") for part in parts]
    if vocabulary.kind == "BPE" and kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if vocabulary.kind == "BPE" and kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        name = _SPLITS.get(str(parts[0].get("pattern", {}).get("Regex")))
        if name is not None:
            return name
    raise MergeError("its tokenizer splits text in a way that has no name here")


def _add_roles(writer: Any, directory: Path, vocabulary: Vocabulary) -> None:
    file = directory / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    tokens = {role: config.get(f"{role}_token") for role in _ROLES}
    ids = {
        role: vocabulary.ids.get(token["content"] if isinstance(token, dict) else token)
        for role, token in tokens.items()
        if token
    }
    for role, index in ids.items():
        if index is not None:
            getattr(writer, f"add_{role}_token_id")(index)
    around = vocabulary.tokenizer().encode("").ids
    begins = around[:1] == [ids.get("bos")]
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(around[begins:][-1:] == [ids.get("eos")])
    written = directory / "chat_template.jinja"
    template = written.read_text(encoding="utf-8") if written.is_file() else config.get("chat_template")
    if isinstance(template, str):
        writer.add_chat_template(template)
