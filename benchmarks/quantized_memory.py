"""What a live model takes whose linear layers are held in fewer bits: measured, against what `evolve check` foresees.

    python benchmarks/quantized_memory.py [--megabytes 1000]

A process for each: it builds the live model of a random Llama checkpoint in bfloat16, merges two checkpoints into it,
twice, and scores a batch of texts after each. `peak` is the most memory of its own that it had, less what it had before
the model; pages of the mapped checkpoints are not counted. `foreseen` is the weights, and one of them whole.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

import torch
from merge_on_disk import memory, write_checkpoint

from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.quantized_linear import Bits, quantized_bytes
from merge_core import LiveMerge, ModelReference, Recipe, live_parameters, open_checkpoints

TOKENIZER = Path(__file__).resolve().parents[1] / "configs" / "demo_zoo" / "base"
CHOICES: tuple[Bits | Literal["none"], ...] = ("none", "8bit", "fp8", "4bit")


def candidate(directory: Path, bits: str) -> None:
    """Merge and score; print what it took of memory, in GB."""
    checkpoints = open_checkpoints([ModelReference.parse(str(directory / name)) for name in ("one", "two")])
    merge, config = LiveMerge(checkpoints), checkpoints[str(directory / "one")].config
    if bits == "4bit":
        importlib.import_module("bitsandbytes")  # whose code is no part of a model
    warm = torch.randn(64, 64, dtype=torch.bfloat16)
    (warm @ warm).sum()
    before = peak = memory(os.getpid(), "RssAnon")
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, memory(os.getpid(), "RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    chosen: dict[str, Any] = {} if bits == "none" else {"quantization": bits}
    backend = HFBackend.from_config(config, TOKENIZER, torch.bfloat16, max_batch_tokens=256, **chosen)
    for weight in (0.4, 0.6):
        models = [{"model": name, "parameters": {"weight": weight}} for name in checkpoints]
        recipe = Recipe.from_mapping({"merge_method": "linear", "models": models, "dtype": "bfloat16"})
        merge.write(recipe, live_parameters(backend.model))
        backend.loglikelihood([backend.prepare_continuation("abc" * length, "end") for length in range(1, 9)])
    ended.set()
    watcher.join()
    print(peak - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of a checkpoint")
    parser.add_argument("--candidate", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        candidate(Path(options.candidate[0]), options.candidate[1])
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for seed, model in enumerate(("one", "two")):
            write_checkpoint(directory / model, seed, options.megabytes)
        config = json.loads((directory / "one" / "config.json").read_text())
        print(f"{'quantization':<14}{'foreseen':>10}{'peak':>10}{'ratio':>8}")
        for bits in CHOICES:
            whole = 0
            if bits == "none":
                weights = options.megabytes * 1e6
            else:
                weights, whole = quantized_bytes(config, bits, 2)
            command = [sys.executable, __file__, "--candidate", str(directory), bits]
            taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
            foreseen = (weights + whole) / 1e9
            print(f"{bits:<14}{foreseen:>7.2f} GB{taken:>7.2f} GB{taken / foreseen:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
