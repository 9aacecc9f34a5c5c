"""Merging checkpoints on disk: ours, mergekit's, and the time to read all inputs and write the output once.

    MERGEKIT_PYTHON=/path/to/python python benchmarks/merge_on_disk.py [--megabytes 1000] [--models 3] [--rounds 3]

Random Llama checkpoints (bfloat16, 3 shards) of the given size are written to a temporary directory. Each run is a
process of its own; its time is that of the processor, all threads together, and its memory the peak that is resident,
both of the whole process. Ours and mergekit's (mergekit 0.1.5 in the environment of MERGEKIT_PYTHON) take turns; the
table has the least of each, which what else runs on the machine changes little, and "wall" the least that the clock
said of ours. Ours runs once before and is not counted: the first merge after an installation compiles its kernels, for
some seconds, and the files are in memory afterwards for all. "import" is what importing torch takes of ours; a merge
cannot be quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = {
    "linear": {"weight": 0.4},
    "task_arithmetic": {"weight": 0.4},
    "ties": {"weight": 0.4, "density": 0.5},
    "dare_ties": {"weight": 0.4, "density": 0.5},
    "della": {"weight": 0.4, "density": 0.5, "epsilon": 0.1},
}
OURS = "import sys; from merge_core import merge; merge(sys.argv[1], sys.argv[2])"
BOUND = """
import os, sys
target = open(sys.argv[1], "wb", buffering=0)
room = bytearray(8 << 20)
for path in sys.argv[2:]:
    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name), "rb", buffering=0) as source:
            while count := source.readinto(room):
                if path == sys.argv[2]:
                    target.write(memoryview(room)[:count])
os.fsync(target.fileno())
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of a checkpoint")
    parser.add_argument("--models", type=int, default=3, help="models besides the base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(PARAMETERS), choices=list(PARAMETERS))
    parser.add_argument("--without-mergekit", action="store_true", help="leave mergekit out")
    options = parser.parse_args()
    mergekit_python = os.environ.get("MERGEKIT_PYTHON")
    if not mergekit_python and not options.without_mergekit:
        sys.exit(
            "MERGEKIT_PYTHON: set it to the Python of an environment with mergekit 0.1.5, or use --without-mergekit"
        )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for index in range(options.models + 1):
            write_checkpoint(directory / f"model{index}", index, options.megabytes)
        print(f"base + {options.models} models of {options.megabytes} MB, least of {options.rounds}; GB is peak memory")
        print(
            f"{'processor time':<18}{'bound':>8}{'import':>8}{'ours':>8}{'wall':>8}{'GB':>6}{'/ bound':>9}"
            f"{'mergekit':>10}{'GB':>6}{'mergekit/ours':>14}"
        )
        for method in options.methods:
            compare(
                directory, method, options.models, options.rounds, None if options.without_mergekit else mergekit_python
            )


def write_checkpoint(directory: Path, seed: int, megabytes: int) -> None:
    """Hidden size 1536, inner size 4096, as many layers as the size asks for."""
    directory.mkdir()
    hidden, inner, vocabulary = 1536, 4096, 32000
    per_layer = 2 * (4 * hidden * hidden + 3 * hidden * inner)
    layers = max(1, round((megabytes * 1e6 - 4 * vocabulary * hidden) / per_layer))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{part}_proj.weight": (hidden, hidden) for part in "qkvo"}
        shapes |= {f"{prefix}mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes |= {
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for shard in range(3):
        part = names[len(names) * shard // 3 : len(names) * (shard + 1) // 3]
        tensors = {}
        for name in part:
            base = torch.empty(shapes[name]).normal_(0, 0.02, generator=common)
            own_part = torch.empty(shapes[name]).normal_(0, 0.002, generator=own) if seed else 0.0
            tensors[name] = (base + own_part).to(torch.bfloat16)
        file = f"model-{shard + 1:05d}-of-00003.safetensors"
        save_file(tensors, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def compare(directory: Path, method: str, models: int, rounds: int, mergekit_python: str | None) -> None:
    """One row of the table."""
    listed = [{"model": str(directory / f"model{i}"), "parameters": PARAMETERS[method]} for i in range(1, models + 1)]
    recipe = {"merge_method": method, "models": listed, "dtype": "bfloat16"}
    inputs = [directory / f"model{i}" for i in range(1, models + 1)]
    if method != "linear":
        recipe["base_model"] = str(directory / "model0")
        inputs.append(directory / "model0")
    path, output = directory / "recipe.yml", directory / "output"
    path.write_text(yaml.safe_dump(recipe))
    commands = {
        "bound": [sys.executable, "-c", BOUND, str(output), *map(str, inputs)],
        "import": [sys.executable, "-c", "import torch"],
        "ours": [sys.executable, "-c", OURS, str(path), str(output)],
    }
    if mergekit_python:
        commands["mergekit"] = [str(Path(mergekit_python).parent / "mergekit-yaml"), str(path), str(output), "--quiet"]
        commands["mergekit"] += ["--random-seed", "0"] if PARAMETERS[method].keys() - {"weight"} else []
    run(commands["ours"])
    shutil.rmtree(output)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(run(command))
            if output.is_dir():
                shutil.rmtree(output)
            else:
                output.unlink(missing_ok=True)
    seconds = {name: min(each.processor for each in found) for name, found in runs.items()}
    memory = {name: min(each.resident for each in found) for name, found in runs.items()}
    row = f"{method:<18}{seconds['bound']:>7.2f}s{seconds['import']:>7.2f}s{seconds['ours']:>7.2f}s"
    row += f"{min(each.wall for each in runs['ours']):>7.2f}s{memory['ours']:>6.2f}"
    row += f"{seconds['ours'] / seconds['bound']:>8.1f}x"
    if mergekit_python:
        row += f"{seconds['mergekit']:>9.1f}s{memory['mergekit']:>6.2f}{seconds['mergekit'] / seconds['ours']:>13.1f}x"
    print(row, flush=True)


class Run(NamedTuple):
    """What a process took.

    Attributes:
        wall, processor: seconds of the clock, and of all threads together.
        resident, own: peak memory in GB, and without the pages of files.
    """

    wall: float
    processor: float
    resident: float
    own: float


def run(command: list[str]) -> Run:
    """Run a process to its end.

    The memory is looked at every 20 ms; the system's own count begins with the memory of the process that starts it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    resident = own = 0.0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            resident = max(resident, memory(process.pid, "VmHWM"))
            own = max(own, memory(process.pid, "RssAnon"))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            sys.exit(f"{command} failed:\n{log.read().decode()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, processor, resident, own)


def memory(process: int, entry: str) -> float:
    """An entry of a process's status in GB, 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) / 1e6


if __name__ == "__main__":
    main()
