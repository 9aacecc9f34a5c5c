"""The tokenizer files of a merged model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core.json_files import read_json, write_json
from merge_core.vocabulary.alignment import Alignment
from merge_core.vocabulary.vocabulary import Vocabulary, merge_pairs

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What is copied from the model whose tokenizer the result has."""

OTHER_FORMS = ("tokenizer.model*", "vocab.*", "merges.txt", "*.tiktoken", "spiece.model", "sentencepiece*.model")
"""Of the vocabulary; beside a changed tokenizer.json they would contradict it."""


@dataclass(frozen=True, slots=True, eq=False)
class OutputTokenizer:
    """The tokenizer of a plan's result.

    Attributes:
        directory: of the model that its files are taken from.
        template: directory of the model that the result is modelled on, whose generation settings it has.
        alignment: the output vocabulary, None when it is that model's own.
        chat_template: in place of that model's own, None to keep it.
    """

    directory: Path
    template: Path
    alignment: Alignment | None
    chat_template: str | None

    @property
    def changed(self) -> bool:
        """Whether it is anything but the files of the model that the result is modelled on."""
        return self.alignment is not None or self.chat_template is not None

    @property
    def key(self) -> str:
        """Equal for equal tokenizers: who holds a live one makes it anew when this changes."""
        vocabulary = "" if self.alignment is None else self.alignment.key
        return "\0".join((str(self.directory), vocabulary, self.chat_template or ""))

    def write(self, target: Path) -> None:
        """Write the tokenizer files and ``generation_config.json`` into a directory.

        Raises:
            MergeError: a file of the source that cannot be read.
        """
        for pattern in TOKENIZER_FILES:
            for file in sorted(self.directory.glob(pattern)):
                if file.is_file():
                    shutil.copyfile(file, target / file.name)
        alignment = self.alignment
        if alignment is not None and alignment.changes_tokenizer:
            for pattern in (*OTHER_FORMS, "added_tokens.json"):
                for file in target.glob(pattern):
                    file.unlink()
            write_json(target / "tokenizer.json", merged_document(alignment), indent=None)
            self._write_config(target, alignment)
        if self.chat_template is not None:
            self._write_template(target, self.chat_template)
        generation = self.template / "generation_config.json"
        if generation.is_file():
            of_source = self.directory / "generation_config.json"
            if self.directory == self.template or not of_source.is_file():
                shutil.copyfile(generation, target / generation.name)
            else:
                write_json(target / generation.name, special_ids(read_json(generation), read_json(of_source)))

    def _write_config(self, target: Path, alignment: Alignment) -> None:
        file = target / "tokenizer_config.json"
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if file.exists():
            config = read_json(file)
        declared = config.get("added_tokens_decoder")
        if isinstance(declared, dict):
            new = {str(entry["id"]): {k: v for k, v in entry.items() if k != "id"} for entry in alignment.added}
            config["added_tokens_decoder"] = {**declared, **new}
        gone = alignment.vocabularies[alignment.source].left_out - alignment.ids.keys()
        write_json(file, _without_tokens(config, gone))
        special = target / "special_tokens_map.json"
        if gone and special.exists():
            write_json(special, _without_tokens(read_json(special), gone))

    @staticmethod
    def _write_template(target: Path, template: str) -> None:
        for file in target.glob("chat_template*"):
            file.unlink()
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")
        file = target / "tokenizer_config.json"
        if file.exists():
            config = read_json(file)
            if config.pop("chat_template", None) is not None:
                write_json(file, config)


def _without_tokens(config: Mapping[str, Any], gone: frozenset[str]) -> dict[str, Any]:
    """A tokenizer's configuration that does not name some tokens, which loading it would add again."""

    def stays(value: Any) -> bool:
        return (value.get("content") if isinstance(value, dict) else value) not in gone

    result: dict[str, Any] = {}
    for key, value in config.items():
        if key == "added_tokens_decoder" and isinstance(value, dict):
            result[key] = {index: entry for index, entry in value.items() if stays(entry)}
        elif key.endswith("special_tokens") and isinstance(value, list):
            result[key] = [token for token in value if stays(token)]
        elif not (key.endswith("_token") and isinstance(value, str | dict) and not stays(value)):
            result[key] = value
    return result


def merged_document(alignment: Alignment) -> dict[str, Any]:
    """The ``tokenizer.json`` of the output vocabulary: the source's, with the new tokens appended.

    Ordinary tokens join the tokenizer's model. Their merges come after all of the source's, so that a text is first
    cut as the source cuts it.
    """
    first = alignment.vocabularies[alignment.source]
    document = dict(first.document)
    model = dict(document["model"])
    if alignment.ordinary:
        if isinstance(model["vocab"], dict):
            # Added tokens too: one outside the model's vocabulary is numbered anew, after it, when the file is read.
            model["vocab"] = dict(alignment.ids)
        else:
            model["vocab"] = _with_scores(model["vocab"], alignment)
        if "merges" in model:
            model["merges"] = [*merge_pairs(model["merges"]), *_new_merges(alignment)]
    document["model"] = model
    declared = [entry for token, entry in first.added.items() if entry not in (document.get("added_tokens") or [])]
    entries = [*(document.get("added_tokens") or []), *declared, *alignment.added]
    document["added_tokens"] = sorted(entries, key=lambda entry: int(entry["id"]))
    return document


def _new_merges(alignment: Alignment) -> list[list[str]]:
    wanted = set(alignment.ordinary)
    found: dict[tuple[str, str], None] = {}
    for model, vocabulary in alignment.vocabularies.items():
        if model != alignment.source:
            for left, right in merge_pairs(vocabulary.document["model"].get("merges") or []):
                if left + right in wanted:
                    found[left, right] = None
    return [list(pair) for pair in found]


def _with_scores(own: list[Any], alignment: Alignment) -> list[Any]:
    scores: dict[str, float] = {}
    for vocabulary in alignment.vocabularies.values():
        for token, score in _scored(vocabulary):
            scores.setdefault(token, score)
    # A unigram's id is its place: ids between, which are added tokens, need an entry too.
    by_id = {index: token for token, index in alignment.ids.items()}
    last = max(by_id)
    lowest = min((score for _, score in own), default=0.0) - 10.0
    extra = [by_id.get(index, f"<gap {index}>") for index in range(len(own), last + 1)]
    return [*own, *([token, scores.get(token, lowest)] for token in extra)]


def _scored(vocabulary: Vocabulary) -> list[Any]:
    entries = vocabulary.document["model"]["vocab"]
    return entries if isinstance(entries, list) else []


def is_token_id(key: str) -> bool:
    """Whether a key of a config names special tokens by their ids."""
    return re.search(r"_token_ids?$", key) is not None


def special_ids(config: Mapping[str, Any], of_source: Mapping[str, Any]) -> dict[str, Any]:
    """A config (or generation config) with the special token ids of the model whose tokenizer the result has.

    The output vocabulary begins with that model's, so its ids are right as they stand.
    """
    result = dict(config)
    for key, value in of_source.items():
        if is_token_id(key):
            result[key] = value
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = special_ids(result[key], value)
    return result
