"""Store adapters in 8-bit floats: half their size, and what they decode to are the real-model bed's experts.

python benchmarks/search/real_model/pack_adapters.py TRAINED benchmarks/search/real_model/adapters

Factors are multiplied by powers of two that bring them into the range of float8 (e4m3, 2⁻⁹ to 448), and α is divided by
the same; the update of a layer moves by 3 % of its norm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SCALES = {"lora_A": 2.0**9, "lora_B": 2.0**10}  # the largest entries are 0.13 and 0.10


def pack(adapter: Path, output: Path) -> None:
    """Read one adapter and write it packed.

    Args:
        adapter: Directory in PEFT's format.
        output: Directory that is made.
    """
    packed = {}
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        scale = next(factor for part, factor in SCALES.items() if f".{part}." in name)
        packed[name] = (tensor.float() * scale).to(torch.float8_e4m3fn)
    output.mkdir(parents=True, exist_ok=True)
    save_file(packed, output / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["lora_alpha"] /= SCALES["lora_A"] * SCALES["lora_B"]
    (output / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Store LoRA adapters in 8-bit floats.")
    parser.add_argument("trained", type=Path, help="directory of adapters")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    for adapter in sorted(path.parent for path in arguments.trained.glob("*/adapter_config.json")):
        pack(adapter, arguments.output / adapter.name)


if __name__ == "__main__":
    main()
