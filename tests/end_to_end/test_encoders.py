"""A search over embedding models: their vectors are scored by a function, with the modules of their directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import evolve
from evolve.scoring import TaskError
from evolve.scoring.backends.sentence_encoder import sentence_transformer

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")  # of the libraries under a search
        for kind in ("DeprecationWarning", "ResourceWarning", "FutureWarning")
    ),
]

WIDTH = 16
TEXTS = [" ".join(f"word{3 + (7 * text + 3 * place) % 37}" for place in range(2 + text % 5)) for text in range(12)]
ITEMS = list(range(len(TEXTS)))
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
TYPES = ["Transformer", "Pooling", "Dense", "Normalize"]


def write_tokenizer(directory: Path) -> None:
    """One token a word, and those of encoders: no BOS, no EOS."""
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", *(f"word{number}" for number in range(3, 40))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", model_max_length=32
    ).save_pretrained(directory)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, two fine-tunes, and what half of both differences makes; each with pooling and a dense layer."""
    from transformers import AutoConfig, AutoModel

    directory = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    base = AutoModel.from_config(AutoConfig.for_model(**BERT)).state_dict()
    differences = [{name: 0.2 * torch.randn_like(tensor) for name, tensor in base.items()} for _ in range(2)]
    shares = {"base": (0.0, 0.0), "a": (1.0, 0.0), "b": (0.0, 1.0), "wanted": (0.5, 0.5)}
    dense = {"linear.weight": torch.randn(4, WIDTH), "linear.bias": torch.randn(4)}
    for name, weights in shares.items():
        place = directory / name
        (place / "1_Pooling").mkdir(parents=True)
        (place / "2_Dense").mkdir()
        tensors = {
            key: sum((w * d[key] for w, d in zip(weights, differences, strict=True)), start=tensor)
            for key, tensor in base.items()
        }
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(BERT))
        write_tokenizer(place)
        modules = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(zip(TYPES, ("", "1_Pooling", "2_Dense", "3_Normalize"), strict=True))
        ]
        (place / "modules.json").write_text(json.dumps(modules))
        pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
        (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (place / "3_Normalize").mkdir()
        settings = {"in_features": WIDTH, "out_features": 4, "bias": True}
        settings["activation_function"] = "torch.nn.modules.activation.Tanh"
        (place / "2_Dense" / "config.json").write_text(json.dumps(settings))
        save_file(dense, place / "2_Dense" / "model.safetensors")
    return directory


def vectors_by_hand(directory: Path) -> torch.Tensor:
    """Mean over the tokens of each text, the dense layer, length 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    dense = load_file(directory / "2_Dense" / "model.safetensors")
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            mean = model(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0].mean(0)
        rows.append(torch.tanh(dense["linear.weight"] @ mean + dense["linear.bias"]))
    return torch.nn.functional.normalize(torch.stack(rows))


def test_a_search_over_encoders_finds_the_merge_whose_vectors_are_wanted(zoo: Path, tmp_path: Path) -> None:
    wanted = vectors_by_hand(zoo / "wanted")

    def likeness(model: Any, items: list[int] = ITEMS) -> list[float]:
        found = model.sentence_transformer().encode([TEXTS[item] for item in items], convert_to_tensor=True)
        return (found * wanted[items]).sum(1).tolist()

    weight = evolve.gene(0, 1, step=0.5)
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": zoo / "base",
        "models": [{"model": zoo / name, "parameters": {"weight": weight}} for name in "ab"],
        "dtype": "float32",
    }
    search = evolve.search(
        recipe,
        tasks=[likeness],
        optimizer="grid",
        budget=9,
        items={"search": 12, "held_out": 0},
        directory=tmp_path / "run",
        progress="none",
    )
    weights = [model["parameters"]["weight"] for model in search.best.recipe["models"]]
    assert weights == [0.5, 0.5]
    assert search.best.scores["likeness"] == pytest.approx(1.0, abs=1e-4)
    saved = tmp_path / "run" / "model"
    torch.testing.assert_close(vectors_by_hand(saved), wanted, atol=1e-5, rtol=0)
    assert (saved / "2_Dense" / "model.safetensors").is_file()


def test_a_module_that_is_code_of_its_own_is_not_imported(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "evil.Module", "path": ""}]))
    with pytest.raises(TaskError, match=r"evil\.Module is code of its own"):
        sentence_transformer(None, tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(TaskError, match="no list of modules"):
        sentence_transformer(None, tmp_path)
