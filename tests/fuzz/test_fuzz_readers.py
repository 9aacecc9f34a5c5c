"""A seeded slice of the fuzzing that `tests/fuzz/fuzz_readers.py` does for as long as one likes."""

from __future__ import annotations

import contextlib
import json

import pytest
from fuzz_readers import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import DOCUMENTED, Target, targets

SLOW = {"search.yml": 60, "generation_config.json": 60, "transformers config": 60, "config.json of a search": 20}
SLOW |= {"config.json of GGUF": 40, "tokenizer.json of GGUF": 40, "config.json of an extraction": 30}
SLOW |= {"quantized header": 40, "quantization_config": 40, "standing": 40, "run.json": 20, "mixture": 200}
SLOW |= {"bundle.json": 100, "trials of a bundle": 100}
TAKES_SECONDS_TO_IMPORT = {"adapter of PEFT"}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("fuzz"))}


NAMES = [
    *("recipe", "search.yml", "safetensors header", "config.json", "tokenizer.json", "tokenizer_config.json"),
    *("template of a tokenizer", "index", "adapter", "pickle", "chat template", "transformers config"),
    *("generation_config.json", "config.json of a search", "journal"),
    *("quantized header", "quantization_config", "mixture", "config.json of GGUF", "tokenizer.json of GGUF"),
    "config.json of an extraction",
    *("standing", "run.json", "bundle.json", "trials of a bundle"),
]
REFUSES_NOTHING = {"run.json", "bundle.json", "trials of a bundle"}  # what makes no sense there says less


def test_every_reader_is_in_the_slice(readers: dict[str, Target]):
    assert set(readers) == {*NAMES, *TAKES_SECONDS_TO_IMPORT}


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_raises_nothing_but_documented_errors(readers: dict[str, Target], name: str):
    count = fuzz(readers[name], seed=1, inputs=SLOW.get(name, 300))
    assert not count.undocumented, {kind: count.examples[kind] for kind in count.undocumented}
    assert count.refused or name in REFUSES_NOTHING
    assert count.accepted, "an input that is hardly changed is sound: all others break off where it does"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_INPUTS = st.binary(max_size=300) | _VALUES.map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=_INPUTS)
def test_a_reader_of_anything_at_all_raises_nothing_but_documented_errors(
    readers: dict[str, Target], name: str, data: bytes
):
    """Bytes and values that no sound file was the beginning of, made smaller by hypothesis where one is found."""
    with contextlib.suppress(*DOCUMENTED):
        readers[name].read(data)
