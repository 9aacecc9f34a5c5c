"""Nothing that comes with a model runs, and nobody is asked whether it may."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evolve.scoring.backends.pretrained_files import (
    check_size,
    known_config,
    load_generation_config,
    load_tokenizer,
    model_of_config,
)
from evolve.scoring.errors import TaskError

SMALL = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 16,
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose code would leave a file behind, on a terminal where someone says yes to everything."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "class Tokenizer: pass\nclass Config: model_type = 'own'\nclass Model: pass\n"
    )
    auto = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (directory / "config.json").write_text(json.dumps({**SMALL, "auto_map": auto}))
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text((directory / "own.py").read_text())
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 3}))
    return directory


def test_a_tokenizer_that_needs_code_is_refused_and_not_asked_about(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"tokenizer: cannot load one .*trust_remote_code|custom code"):
        load_tokenizer(model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["llama", "clip", "vit"])
def test_a_model_is_built_without_its_code(model: Path, tmp_path: Path, kind: str) -> None:
    config = json.loads((model / "config.json").read_text()) | {"_name_or_path": str(model)}
    if kind == "llama":
        made = model_of_config(known_config(config))
        assert type(made) is transformers.LlamaForCausalLM
    else:  # no language model of transformers', so that its code would be the only one
        settings = {"model_type": kind, "auto_map": config["auto_map"], "_name_or_path": str(model)}
        with pytest.raises(TaskError, match="no causal language model"):
            model_of_config(known_config(settings), trust_remote_code=True)
    assert not (tmp_path / "ran").exists()


def test_kernels_that_a_config_names_are_not_fetched() -> None:
    names = dict.fromkeys(("attn_implementation", "_attn_implementation", "experts_implementation"), "org/kernel")
    config = known_config({**SMALL, **names, "_attn_implementation_internal": "org/kernel"})
    assert "org/kernel" not in (config._attn_implementation, config._experts_implementation)
    assert "/" not in (model_of_config(config).config._attn_implementation or "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, at most 10000"),
        ({"num_attention_heads": 10**12}, "num_attention_heads is"),
        ({"hidden_size": 10**9}, "describes a model of|can be built"),
        ({"vocab_size": 10**15}, "describes a model of|can be built"),
        ({"intermediate_size": -5}, "can be built|config"),
        ({"hidden_size": "8"}, "config"),
    ],
)
def test_a_config_of_a_model_without_end_takes_no_memory(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        check_size({**SMALL, **values}, 1000)
    check_size(SMALL, 1000)


def test_generation_of_its_own_is_not_run(model: Path, tmp_path: Path) -> None:
    from evolve.scoring.backends.sampling import generate_with_transformers
    from evolve.scoring.language_model import GenerationSettings

    live = model_of_config(known_config(SMALL))
    options: Any = (("custom_generate", str(model)), ("trust_remote_code", True))
    tokenizer = type("Tokenizer", (), {"pad_token_id": 0, "eos_token_id": None})
    with pytest.raises(ValueError, match="custom"), torch.inference_mode():
        generate_with_transformers(live, tokenizer, [(1, 2)], GenerationSettings((), 2, options), None, 0)  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists()


def test_what_transformers_raises_on_a_broken_file_is_a_mistake_of_the_model(model: Path) -> None:
    loaded = load_generation_config(model)
    assert loaded.eos_token_id == 3
    (model / "generation_config.json").write_text("[" * 100_000)
    with pytest.raises(TaskError, match="generation_config"):
        load_generation_config(model)
    with pytest.raises(TaskError, match=r"config\.json"):
        known_config({**SMALL, "num_attention_heads": "many", "rope_parameters": [3]})
    (model / "tokenizer.json").write_text('{"model": 3}')
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(TaskError, match="tokenizer: cannot load one"):
        load_tokenizer(model)
    (model / "generation_config.json").unlink()
    assert load_generation_config(model) is None
