"""Union of two large vocabularies: ours, mergekit's, and the bound of reading and writing the bytes.

    MERGEKIT_PYTHON=/path/to/python python benchmarks/union_tokenizer.py [--tokens 150000] [--distinct 5000]

Two one-layer models with byte-level BPE vocabularies, of whose tokens `--distinct` are in one alone, are merged with
`tokenizer_source: union` from disk to disk. Ours runs in a process of its own, once to warm up and then `--runs`
times. mergekit runs after it, once: with many distinct tokens it takes minutes. Imports are not counted. The bound is
the time to copy the same files: both checkpoints and tokenizers read, the result's written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

OURS = """
import json, sys, time, torch
from merge_core import merge, parse_recipes
request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
for run in range(request["runs"] + 1):
    started = time.perf_counter()
    merge(parse_recipes(request["recipe"]), f"{request['output']}-{run}")
    print("SECONDS", time.perf_counter() - started, flush=True)
"""

MERGEKIT = """
import json, sys, time, torch, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
import transformers.models.llama
request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
recipe = MergeConfiguration.model_validate(yaml.safe_load(request["recipe"]))
for run in (1,):
    started = time.perf_counter()
    run_merge(recipe, f"{request['output']}-{run}", MergeOptions(quiet=True, write_model_card=False))
    print("SECONDS", time.perf_counter() - started, flush=True)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--distinct", type=int, default=5_000)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        sys.exit("MERGEKIT_PYTHON: set it to the Python of an environment with mergekit 0.1.5")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for index, name in enumerate(("one", "two")):
            write_model(root / name, options.tokens, options.distinct * index, options.hidden, index)
        models = "".join(f"- {{model: {root / name}, parameters: {{weight: 1}}}}\n" for name in ("one", "two"))
        recipe = (
            f"merge_method: linear\nbase_model: {root / 'one'}\nmodels:\n{models}"
            "dtype: bfloat16\ntokenizer_source: union\n"
        )
        request = {"recipe": recipe, "runs": options.runs, "threads": options.threads}
        ours = run(sys.executable, OURS, request | {"output": str(root / "ours")})
        mergekit = run(python, MERGEKIT, request | {"output": str(root / "mergekit")})
        inputs = [root / "one", root / "two"]
        bound = statistics.median(copy_bytes(inputs, root / "ours-1", root / f"copy{i}") for i in range(options.runs))
        rows = json.loads((root / "ours-1" / "config.json").read_text())["vocab_size"]
        same = rows == json.loads((root / "mergekit-1" / "config.json").read_text())["vocab_size"]
    print(f"{options.tokens} tokens each, {options.distinct} of them in one alone")
    print(f"{rows} tokens in the union, {'as' if same else 'NOT as'} mergekit's")
    print(f"hidden size {options.hidden}, {options.threads} threads")
    print(f"{'median of ' + str(options.runs):<26}{'ours':>9}{'mergekit':>9}{'bound':>9}")
    print(f"{'whole merge, s':<26}{ours:>9.3f}{mergekit:>9.3f}{bound:>9.3f}")
    print(f"{'times the bound':<26}{ours / bound:>8.1f}x{mergekit / bound:>8.1f}x")
    print(f"{'mergekit/ours':<26}{mergekit / ours:>8.1f}x")


def write_model(directory: Path, tokens: int, skipped: int, hidden: int, index: int) -> None:
    """A one-layer Llama with a byte-level BPE vocabulary of made-up words."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 323))][:256]
    vocabulary = {letter: row for row, letter in enumerate(letters)}
    merges = []
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
    # Pairs are all there; the two vocabularies differ in which quadruples they have.
    pairs = ["".join(pair) for pair in product(alphabet, repeat=2)]
    for pair in pairs:
        merges.append([pair[0], pair[1]])
        vocabulary[pair] = len(vocabulary)
    for left, right in islice(product(pairs, repeat=2), skipped, None):
        if len(vocabulary) >= tokens:
            break
        merges.append([left, right])
        vocabulary[left + right] = len(vocabulary)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [f"<|special{index}_{number}|>" for number in range(100)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(vocabulary) + number, "content": text, **flags} for number, text in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    directory.mkdir()
    (directory / "tokenizer.json").write_text(json.dumps(document))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    rows = len(vocabulary) + len(special)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": rows,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    layer = "model.layers.0"
    shapes = {"model.embed_tokens.weight": (rows, hidden), "lm_head.weight": (rows, hidden)}
    shapes |= {f"{layer}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
    shapes |= {f"{layer}.mlp.{name}_proj.weight": (hidden, hidden) for name in ("gate", "up", "down")}
    norms = dict.fromkeys(
        (f"{layer}.input_layernorm.weight", f"{layer}.post_attention_layernorm.weight", "model.norm.weight"), (hidden,)
    )
    generator = torch.Generator().manual_seed(index)
    tensors = {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in (shapes | norms).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def run(python: str, script: str, request: dict[str, Any]) -> float:
    """Median seconds of an engine's runs; of several the first is not counted."""
    found = subprocess.run(
        [python, "-c", script],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(request["threads"]),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            "HF_HUB_OFFLINE": "1",
        },
    )
    seconds = [float(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("SECONDS")]
    if found.returncode or not seconds:
        sys.exit(f"{python} failed:\n{found.stderr[-3000:]}")
    return statistics.median(seconds[1:] or seconds)


def copy_bytes(inputs: list[Path], result: Path, target: Path) -> float:
    """Seconds to read the inputs' files and write the result's."""
    outputs = [(file.name, file.read_bytes()) for file in result.iterdir()]
    started = time.perf_counter()
    for directory in inputs:
        for file in directory.iterdir():
            file.read_bytes()
    target.mkdir()
    for name, content in outputs:
        with open(target / name, "wb") as stream:
            stream.write(content)
            os.fsync(stream.fileno())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
