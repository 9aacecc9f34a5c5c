"""Python code that comes with a model runs and is copied only where it is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_core import MergeError, Recipe, merge

Write = Callable[..., Any]
RECIPE = {
    "merge_method": "linear",
    "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 1}}],
}
TOKENIZER_CODE = """
from pathlib import Path
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    vocab_files_names = {"own_file": "tokenizer.own"}

    def __init__(self, own_file, **options):
        Path(own_file).with_name("ran").touch()
        super().__init__(tokenizer_object=Tokenizer.from_file(own_file), **options)
"""


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def zoo_with_code(zoo: Path) -> Path:
    """Models a and b; a's config names a class in a file beside it."""
    edit(zoo / "a" / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"})
    (zoo / "a" / "modeling_own.py").write_text("raise RuntimeError('merging needs no model code')")
    return zoo


def test_code_of_the_template_is_copied_when_trusted_and_missed_with_a_warning_otherwise(zoo_with_code: Path):
    recipe = Recipe.from_mapping(RECIPE)
    trusted = merge(recipe, zoo_with_code / "m", relative_to=zoo_with_code, trust_remote_code=True)
    assert (trusted.path / "modeling_own.py").read_text() == (zoo_with_code / "a" / "modeling_own.py").read_text()
    assert not trusted.warnings
    plain = merge(recipe, zoo_with_code / "n", relative_to=zoo_with_code)
    assert not list(plain.path.glob("*.py"))
    (warning,) = plain.warnings
    assert warning.startswith('model "a": its Python code was not copied')
    assert plain.fingerprint == trusted.fingerprint


def test_code_that_is_found_on_the_hub_is_not_looked_for_beside_the_model(zoo_with_code: Path):
    edit(zoo_with_code / "a" / "config.json", auto_map={"AutoModelForCausalLM": "org/own--modeling_own.OwnForCausalLM"})
    assert not merge(Recipe.from_mapping(RECIPE), zoo_with_code / "m", relative_to=zoo_with_code).warnings


def test_a_tokenizer_with_code_of_its_own_is_read_only_when_trusted(zoo: Path, write_tokenizer: Write):
    for name in "ab":
        write_tokenizer(zoo / name, "abab cab deaf bad|" * 3)
    own = zoo / "b"
    (own / "tokenizer.json").rename(own / "tokenizer.own")
    (own / "tokenization_own.py").write_text(TOKENIZER_CODE)
    edit(own / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]})
    edit(own / "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    recipe = Recipe.from_mapping({**RECIPE, "tokenizer": {"source": "union"}})
    with pytest.raises(MergeError, match=r'model "b".*tokenizer cannot be read'):
        merge(recipe, zoo / "m", relative_to=zoo)
    assert not (own / "ran").exists()
    merge(recipe, zoo / "m", relative_to=zoo, trust_remote_code=True)
    assert (own / "ran").exists()
