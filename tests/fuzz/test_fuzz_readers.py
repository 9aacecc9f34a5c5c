"""A seeded slice of the fuzzing that `tests/fuzz/fuzz_readers.py` does for as long as one likes."""

from __future__ import annotations

import pytest
from fuzz_readers import fuzz
from targets import Target, targets

SLOW = {"search.yml": 60, "generation_config.json": 60, "transformers config": 60, "config.json of a search": 20}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("fuzz"))}


NAMES = [
    *("recipe", "search.yml", "safetensors header", "config.json", "tokenizer.json", "tokenizer_config.json"),
    *("template of a tokenizer", "index", "adapter", "pickle", "chat template", "transformers config"),
    *("generation_config.json", "config.json of a search", "journal"),
]


def test_every_reader_is_in_the_slice(readers: dict[str, Target]):
    assert set(readers) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_raises_nothing_but_documented_errors(readers: dict[str, Target], name: str):
    count = fuzz(readers[name], seed=1, inputs=SLOW.get(name, 300))
    assert not count.undocumented, {kind: count.examples[kind] for kind in count.undocumented}
    assert count.refused
