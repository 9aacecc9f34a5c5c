"""Text to tokens with a tokenizer that somebody else made."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from evolve.scoring import TaskError
from evolve.scoring.backends.text_encoding import TextEncoder


def test_a_text_at_which_the_tokenizers_library_panics_is_a_mistake_of_the_tokenizer() -> None:
    begins = [{"SpecialToken": {"id": "<missing>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    around = {"type": "TemplateProcessing", "single": begins, "pair": begins, "special_tokens": {}}
    model = {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1}, "unk_token": "<s>"}
    document = json.dumps({"version": "1.0", "added_tokens": [], "model": model, "post_processor": around})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(document), bos_token="<s>")
    with pytest.raises(TaskError, match="tokenizer: cannot encode 'a': no entry found"):
        TextEncoder(tokenizer).text("a")
