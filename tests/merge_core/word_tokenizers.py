"""Tokenizers whose every token is written in the test."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def write_words(directory: Path, count: int, added: tuple[str, ...] = (), swapped: bool = False) -> None:
    """A tokenizer of ``count`` words, then added tokens; optionally with words 3 and 4 in each other's place."""
    words = ["<unk>", "<s>", "</s>", *(f"word{index}" for index in range(3, count))]
    if swapped:
        words[3:5] = words[4:2:-1]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.add_special_tokens([*words[:3], *added])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(directory)
