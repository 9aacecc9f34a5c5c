"""A model's vocabulary, whatever files its tokenizer is kept in."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import sentencepiece

from merge_core import MergeError
from merge_core.vocabulary.vocabulary import read_vocabulary


@pytest.mark.parametrize(
    ("algorithm", "kind", "name", "tokenizer"),
    [("bpe", "BPE", "tokenizer.model", "LlamaTokenizer"), ("unigram", "Unigram", "spiece.model", "T5Tokenizer")],
)
def test_a_sentencepiece_model_alone_is_a_tokenizer(
    algorithm: str, kind: str, name: str, tokenizer: str, tmp_path: Path
):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abab cab deaf bad gag", "zoo wax hello world"] * 20),
        model_writer=written,
        vocab_size=40,
        model_type=algorithm,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / name).write_bytes(written.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer, "bos_token": "<s>"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5" if kind == "Unigram" else "llama"}))
    vocabulary = read_vocabulary(tmp_path)
    assert (vocabulary.kind, vocabulary.style) == (kind, "sentencepiece")
    pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    for index in range(pieces.get_piece_size()):
        assert vocabulary.ids[pieces.id_to_piece(index)] == index


def test_a_text_is_neither_cut_nor_padded_whatever_the_file_says(
    write_tokenizer: Callable[..., dict[str, int]], tmp_path: Path
):
    write_tokenizer(tmp_path, "abab cab|" * 3)
    whole = read_vocabulary(tmp_path).tokenizer().encode("abab cab").ids
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["truncation"] = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    document["padding"] = {**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert read_vocabulary(tmp_path).tokenizer().encode("abab cab").ids == whole
    assert len(whole) > 1


def test_a_tokenizer_of_which_the_library_makes_nothing_is_refused_with_its_place(tmp_path: Path):
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    model["continuing_subword_prefix"] = "##"  # longer than what is merged: a panic, in Rust
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model, "added_tokens": []}))
    with pytest.raises(MergeError, match=r"tokenizer\.json: makes no sense: PanicException"):
        read_vocabulary(tmp_path).tokenizer()


@pytest.mark.skipif(find_spec("tiktoken") is not None, reason="tiktoken reads it")
def test_a_vocabulary_in_the_form_of_tiktoken_says_what_reads_it(tmp_path: Path):
    ranks = [f"{base64.b64encode(bytes([rank])).decode()} {rank}\n" for rank in range(256)]
    (tmp_path / "tokenizer.model").write_text("".join(ranks))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(MergeError, match=r"needs the package tiktoken. pip install 'evolve-merge\[tiktoken\]'"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.model").write_text("no tokenizer at all\n")
    with pytest.raises(MergeError, match=r"cannot be read: .* Add the tokenizer.json") as error:
        read_vocabulary(tmp_path)
    assert "evolve-merge[" not in str(error.value)


def test_a_directory_without_tokenizer_says_what_to_add(tmp_path: Path):
    with pytest.raises(MergeError, match=r"no tokenizer. Add the tokenizer.json"):
        read_vocabulary(tmp_path)


def write_unigram(directory: Path) -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0], ["b", -2.0]]}
    added = [{"id": 3, "content": "<x>", "special": True}]
    (directory / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))


def write_bpe(directory: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": ["a b", "ab c"]}
    added = [{"id": 5, "content": "<x>", "special": True}]
    (directory / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))


def test_tokens_without_a_row_leave_the_whole_document(tmp_path: Path):
    write_bpe(tmp_path)
    whole = read_vocabulary(tmp_path)
    assert whole.within(6) is whole
    found = whole.within(4)
    assert found.ids == {"a": 0, "b": 1, "c": 2, "ab": 3}
    assert found.left_out == {"abc", "<x>"}
    assert found.document["model"]["merges"] == [["a", "b"]]
    assert found.document["added_tokens"] == []
    assert whole.document["model"]["merges"] == ["a b", "ab c"]
    write_unigram(tmp_path)
    assert read_vocabulary(tmp_path).within(2).document["model"]["vocab"] == [["<unk>", 0.0], ["▁a", -1.0]]


@pytest.mark.parametrize(
    "model",
    [
        {"vocab": "{{ 10**9 }}", "merges": []},
        {"vocab": {"a": 0}, "merges": -1},
        {"vocab": {"a": 0}, "merges": [[-1, "b"]]},
        {"vocab": {"a": 0}, "merges": ["a b", None]},
    ],
    ids=str,
)
def test_parts_of_a_tokenizer_of_another_kind_are_a_line(model: dict[str, object], tmp_path: Path):
    """Found by fuzzing: they were read, and failed where tokens without rows are left out."""
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", **model}}))
    with pytest.raises(MergeError, match=r"tokenizer\.json: not a tokenizer"):
        read_vocabulary(tmp_path).within(0)
