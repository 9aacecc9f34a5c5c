"""Peak memory of a gradient step against the preflight's sum.

    python benchmarks/search/gradient_memory.py [--device cuda] [--hidden 1024] [--layers 8] [--cap 24]

A random Llama checkpoint is written once and stands for the base and all experts; every row is a process of its own. On
a CPU the peak is the most memory that is no mapped file (`RssAnon`, looked at every 2 ms), without what the interpreter
and its libraries took before; on a GPU it is what torch allocated. ``--cap`` gives torch that many GB of the device and
no more: what fits there fits a card of that size. Sources that stay on it give way where a step needs the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from evolve.config.machines import BackendConfig
from evolve.preflight.gradient_memory import plan_gradient_memory
from evolve.scoring.backends.activation_memory import MicroBatch
from evolve.scoring.backends.checkpointing import checkpointed
from merge_core import Checkpoint, LiveGradient, LiveMerge, Recipe, live_parameters

GB = 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--inner", type=int, default=2816)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024], help="of a micro-batch")
    parser.add_argument("--cap", type=float, help="GB of the device that may be used")
    parser.add_argument("--directory", type=Path, help="where the checkpoint is written for a while")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options, **json.loads(options.row))))
        return
    parts = ["live_model", "gradient", "sources", "activations", "loss"]
    print(f"{'tokens':>6} {'checkpointing':>13}" + "".join(f"{part:>12}" for part in parts), end="")
    print(f"{'sum GB':>9}{'peak GB':>9}{'peak/sum':>9}{'seconds':>9}")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        write_checkpoint(Path(directory) / "model", options)
        for tokens in options.tokens:
            for checkpointing in (True, False):
                row = {"directory": directory, "tokens": tokens, "checkpointing": checkpointing}
                # Memory that is let go of goes back to the system at once, so that the peak is what was held.
                environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
                command = [sys.executable, *sys.argv, "--row", json.dumps(row)]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
                if done.returncode:
                    print(f"{tokens:>6} {checkpointing!s:>13}  failed, see above")
                    continue
                found = json.loads(done.stdout)
                expected = sum(found["expected"].values())
                columns = "".join(f"{found['expected'][part] / GB:>12.2f}" for part in parts)
                print(f"{tokens:>6} {checkpointing!s:>13}{columns}{expected / GB:>9.2f}", end="")
                print(f"{found['peak'] / GB:>9.2f}{found['peak'] / expected:>9.2f}{found['seconds']:>9.1f}", flush=True)


def write_checkpoint(directory: Path, options: argparse.Namespace) -> None:
    """A random model in bfloat16, and other names for it."""
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.inner,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 64,
        vocab_size=options.vocabulary,
    )
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    for number in range(options.experts):
        (directory.parent / f"expert{number}").symlink_to(directory)


def measure(options: argparse.Namespace, directory: str, tokens: int, checkpointing: bool) -> dict[str, Any]:
    """One step, in this process: what it was expected to hold and what it held, in bytes."""
    on_gpu = options.device != "cpu"
    before = anonymous_bytes()
    if on_gpu and options.cap:
        cap_memory(int(options.cap * GB))
    experts = [f"expert{number}" for number in range(options.experts)]
    own = [{"model": name, "parameters": {"weight": 0.3, "density": 0.5}} for name in experts]
    recipe = Recipe.from_mapping(
        {"merge_method": options.method, "base_model": "model", "models": own, "dtype": "bfloat16"}
    )
    checkpoints = {name: Checkpoint.open(Path(directory) / name) for name in ["model", *experts]}
    config = LlamaConfig.from_pretrained(Path(directory) / "model")
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if on_gpu else torch.float32)
    model.eval().requires_grad_(False)
    live_merge = LiveMerge(checkpoints)
    batch = torch.randint(0, options.vocabulary, (tokens // 128, 128), device=options.device)
    plan = live_merge.write(recipe, live_parameters(model)).plan

    def step() -> None:
        again = checkpointed(model) if checkpointing else contextlib.nullcontext()
        with again, LiveGradient(live_merge, plan, model):
            logits = model(input_ids=batch, use_cache=False).logits
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.flatten())
            loss.backward()  # type: ignore[no-untyped-call]

    def step_with_room() -> None:
        with contextlib.suppress(torch.OutOfMemoryError):
            step()
            return
        live_merge.give_way()
        step()

    peak, seconds = gpu_peak(step_with_room) if on_gpu else cpu_peak(step, before)
    micro_batch = MicroBatch(tokens, tokens, checkpointing)
    expected = plan_gradient_memory(BackendConfig(), plan, options.device, micro_batch)
    return {"expected": asdict(expected), "peak": peak, "seconds": seconds}


def cap_memory(limit: int) -> None:
    """Make a large device as small as another."""
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    torch.cuda.mem_get_info = lambda device=None: (limit - torch.cuda.memory_reserved(device), limit)


def gpu_peak(step: Callable[[], None]) -> tuple[int, float]:
    """The most that torch held during a step, and its seconds."""
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), time.perf_counter() - started


def cpu_peak(step: Callable[[], None], before: int) -> tuple[int, float]:
    """The most memory without files during a step, more than before, and its seconds."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    return most - before, seconds


def anonymous_bytes() -> int:
    """Memory of this process that is no file."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1])


if __name__ == "__main__":
    main()
