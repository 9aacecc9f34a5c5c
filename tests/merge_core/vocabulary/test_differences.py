"""Which rows of two models stand for other tokens, and what is said of it where they are merged as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from merge_core import Checkpoint, Recipe, merge
from merge_core.plan.plan import build_plan
from merge_core.toolbox.extract_lora import extract_lora
from merge_core.toolbox.moe import make_mixture
from merge_core.vocabulary.differences import vocabulary_difference
from merge_core.vocabulary.vocabulary import read_vocabulary

TOKENS = {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5}
MERGES = ["a b", "b c"]


def write_bpe(directory: Path, ids: Mapping[str, int] = TOKENS, merges: list[str] | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    model = {"type": "BPE", "vocab": dict(ids), "merges": MERGES if merges is None else merges}
    (directory / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    return directory


def swapped(*pairs: tuple[str, str]) -> dict[str, int]:
    ids = dict(TOKENS)
    for one, other in pairs:
        ids[one], ids[other] = ids[other], ids[one]
    return ids


def difference(first: Path, second: Path) -> Any:
    return vocabulary_difference(read_vocabulary(first), read_vocabulary(second))


def test_equal_sizes_with_other_ids_have_other_rows(tmp_path: Path):
    found = difference(write_bpe(tmp_path / "a"), write_bpe(tmp_path / "b", swapped(("a", "bc"))))
    assert found.renamed == {1: ("a", "bc"), 5: ("bc", "a")}
    assert found.moved == ("a", "bc")
    assert found.rows_differ


def test_tokens_that_are_only_added_have_rows_of_their_own(tmp_path: Path):
    found = difference(write_bpe(tmp_path / "a"), write_bpe(tmp_path / "b", {**TOKENS, "d": 6}))
    assert (found.more, found.fewer, found.rows_differ) == (("d",), (), False)


def test_an_id_that_is_given_to_another_token_has_another_row(tmp_path: Path):
    renamed = {token.replace("bc", "<x>"): index for token, index in TOKENS.items()}
    found = difference(write_bpe(tmp_path / "a"), write_bpe(tmp_path / "b", renamed, MERGES[:1]))
    assert (found.more, found.fewer, found.moved) == (("<x>",), ("bc",), ())
    assert found.rows_differ


def test_merges_in_another_order_cut_otherwise_and_the_way_they_are_written_does_not(tmp_path: Path):
    first = write_bpe(tmp_path / "a")
    assert difference(first, write_bpe(tmp_path / "b", merges=MERGES[::-1])).segmentation
    pairs: Any = [merge.split() for merge in MERGES]
    assert not difference(first, write_bpe(tmp_path / "c", merges=pairs)).segmentation


LINEAR = {
    "merge_method": "linear",
    "models": [{"model": name, "parameters": {"weight": 0.5}} for name in ("a", "b")],
    "dtype": "float32",
}


@pytest.fixture
def models(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    for seed, name in enumerate(("a", "b"), start=1):
        write_model(tmp_path / name, seed, layers=2, vocabulary=len(TOKENS))
        write_bpe(tmp_path / name)
    return tmp_path


def warnings(directory: Path, recipe: Mapping[str, Any]) -> tuple[str, ...]:
    checkpoints = {name: Checkpoint.open(directory / name) for name in ("a", "b")}
    return build_plan(Recipe.from_mapping(recipe), checkpoints).warnings


def test_a_merge_of_rows_of_other_tokens_says_which_and_what_to_do(models: Path):
    assert warnings(models, LINEAR) == ()
    write_bpe(models / "b", swapped(("ab", "bc")))
    [line] = merge(Recipe.from_mapping(LINEAR), models / "out", relative_to=models).warnings
    assert line == (
        "vocabularies differ from that of \"a\": \"b\" has another token at 2 ids (4: 'bc' for 'ab'). Rows are merged "
        "id by id; set tokenizer: {source: union} to align the vocabularies"
    )
    assert warnings(models, {**LINEAR, "tokenizer": {"source": "union"}}) == ()


def test_a_merge_of_tokenizers_that_cut_otherwise_says_whose_the_result_has(models: Path):
    write_bpe(models / "b", merges=MERGES[::-1])
    [line] = warnings(models, LINEAR)
    assert line.startswith('tokenizers cut texts otherwise than that of "a"')
    assert '"b"' in line


def test_a_model_that_gives_layers_alone_may_have_any_vocabulary(models: Path):
    write_bpe(models / "b", swapped(("ab", "bc")))
    layers = [("a", [0, 1]), ("b", [0, 1]), ("a", [1, 2])]
    slices = [{"sources": [{"model": model, "layer_range": part}]} for model, part in layers]
    stacked = {"merge_method": "passthrough", "slices": slices, "dtype": "float32"}
    assert warnings(models, stacked) == ()
    assert len(warnings(models, {**stacked, "slices": slices[:2]})) == 1  # whose head is b's


@pytest.mark.parametrize("content", ["{", '{"model": {"vocab": 3}}', None], ids=["torn", "hostile", "missing"])
def test_a_tokenizer_that_nothing_needs_may_be_unreadable(content: str | None, models: Path):
    file = models / "b" / "tokenizer.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    assert warnings(models, LINEAR) == ()


def test_an_adapter_and_a_mixture_of_models_with_other_tokens_say_so(models: Path):
    write_bpe(models / "b", swapped(("ab", "bc")))
    adapter = extract_lora(str(models / "b"), str(models / "a"), models / "adapter", rank=2)
    (models / "moe.yml").write_text(
        json.dumps(
            {
                "base_model": "a",
                "gate_mode": "random",
                "experts": [{"source_model": name, "positive_prompts": ["a"]} for name in ("a", "b")],
            }
        )
    )
    mixture = make_mixture(models / "moe.yml", models / "moe", hidden_states=lambda checkpoint: pytest.fail("run"))
    for warnings, what in ((adapter.warnings, "The adapter"), (mixture.warnings, "The mixture")):
        (line,) = [line for line in warnings if line.startswith("vocabularies differ from that of ")]
        assert "another token at 2 ids (4: 'bc' for 'ab'). " + what in line
