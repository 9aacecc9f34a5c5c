"""What `evolve check` says of large models on a card of 24 GB, from configs and headers alone.

    python benchmarks/large_layouts.py [DIRECTORY]

Writes two models of each layout, as holes that take no disk: names and shapes are those that transformers gives models
of these sizes, and of gpt-oss the blocks and scales that it is published in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from merge_core.checkpoint.quantized.forms import Mxfp4Stack
from merge_core.checkpoint.weight_files import FORMAT_DTYPES

CARD = "rtx4090"
NAMES = {dtype: name for name, dtype in FORMAT_DTYPES.items()}
QWEN = {"hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64, "num_attention_heads": 24}
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3.6-27B": ("qwen3_5", {"text_config": QWEN | {"linear_num_value_heads": 48}}),
    "Qwen3.6-35B-A3B": ("qwen3_5_moe", {"text_config": {"num_experts": 256}}),
    "gpt-oss-20b": ("gpt_oss", {"num_hidden_layers": 24, "num_local_experts": 32}),
}
SEARCH = """
recipe:
  merge_method: task_arithmetic
  base_model: {base}
  models: [{{model: {tune}, parameters: {{weight: {{low: 0, high: 1}}}}}}]
  dtype: bfloat16
tasks: [{{python: "nothing:nothing", items: 100}}]
backend: {{dtype: bfloat16}}
"""
Header = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def layout(kind: str, settings: dict[str, Any]) -> tuple[dict[str, Any], Header]:
    """Config and headers of a model, built where nothing has data."""
    config = AutoConfig.for_model(kind, **settings)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"), no_init_weights():
        model = auto.from_config(config, dtype=torch.bfloat16)
    content = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    header: Header = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if kind == "gpt_oss" and name.endswith(("gate_up_proj", "down_proj")):
            header |= Mxfp4Stack().layout(name, shape)
        else:
            header[name] = (torch.bfloat16, shape)
    if kind == "gpt_oss":
        content["quantization_config"] = {"quant_method": "mxfp4"}
    return content, header


def write(directory: Path, config: dict[str, Any], header: Header) -> None:
    """A model whose weights are a hole."""
    entries, end = {}, 0
    for name, (dtype, shape) in header.items():
        start, end = end, end + dtype.itemsize * torch.Size(shape).numel()
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, default=str))
    with open(directory / "model.safetensors", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def write_tokenizer(directory: Path) -> None:
    """A tokenizer of one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"</s>": 0}, unk_token="</s>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(directory)


def main() -> None:
    """Print what is said of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", help="where the models are kept; else they are removed")
    given = parser.parse_args().directory
    with contextlib.nullcontext(given) if given else tempfile.TemporaryDirectory() as directory:
        _check_all(Path(directory).resolve())


def _check_all(directory: Path) -> None:
    for name, (kind, settings) in LAYOUTS.items():
        config, header = layout(kind, settings)
        for role in ("base", "tune"):
            place = directory / name / role
            write(place, config, header)
            write_tokenizer(place)
        (directory / name / "nothing.py").write_text("def nothing(model, items):\n    return [0.0 for _ in items]\n")
        search = directory / name / "search.yml"
        search.write_text(SEARCH.format(base=directory / name / "base", tune=directory / name / "tune"))
        print(f"\n{name}: {len(header)} tensors\n", flush=True)
        command = [sys.executable, "-m", "evolve.commands.cli", "check", str(search), "--card", CARD]
        subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
