"""What `evolve inspect` takes of models of 7 B parameters: what it reads, seconds and memory, layer by layer.

    python benchmarks/inspect_large.py [--layers 2] [--models 4]

A base and fine-tunes of it, random weights in the shapes of Qwen2.5-7B in bfloat16, are written to a temporary
directory: 0.5 GB for each of `--layers` layers and model. They are inspected with one layer and with all that were
written, each time in a process of its own, with the files put out of memory before. The last line says what 28 layers
take, by what one more layer does.

asked       bytes that inspect wants, and says
from disk   bytes that the system read for it, of the models and of Python itself: whole pages, and some beyond them
processor   seconds of all threads, importing included
memory      the most that is resident, pages of files included
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 3584, 18944, 512, 8192, 28
OUTSIDE = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),  # of 152,064 rows as many would be read
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCABULARY, HIDDEN),
}
INSIDE = {
    "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.k_proj.weight": (KEYS, HIDDEN),
    "self_attn.v_proj.weight": (KEYS, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.q_proj.bias": (HIDDEN,),
    "self_attn.k_proj.bias": (KEYS,),
    "self_attn.v_proj.bias": (KEYS,),
    "mlp.gate_proj.weight": (INNER, HIDDEN),
    "mlp.up_proj.weight": (INNER, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, INNER),
    "input_layernorm.weight": (HIDDEN,),
    "post_attention_layernorm.weight": (HIDDEN,),
}
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "torch_dtype": "bfloat16",
}
INSPECT = """
import json, resource, sys, time
started = time.monotonic()
import evolve
facts = evolve.inspect(sys.argv[1:]).facts
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/io") as file:
    read = next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))
print(json.dumps([facts["bytes"], facts["bytes_read"], read, time.monotonic() - started,
                  used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, facts["base"]]))
"""


class Taken(NamedTuple):
    """Of one inspection: bytes, and seconds."""

    size: float
    asked: float
    from_disk: float
    seconds: float
    processor: float
    memory: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2, help="of 28, at least 2")
    parser.add_argument("--models", type=int, default=4, help="with the base")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        models = [Path(name) / f"model{number}" for number in range(options.models)]
        for number, model in enumerate(models):
            write_weights(model, number, options.layers)
        print(f"{'layers':<8}{'on disk':>10}{'asked':>10}{'from disk':>11}{'seconds':>9}{'processor':>11}{'memory':>9}")
        one, several = (inspected(models, layers) for layers in (1, options.layers))
        print_row("1", one)
        print_row(str(options.layers), several)
        more = (LAYERS - 1) / (options.layers - 1)
        print_row(str(LAYERS), Taken(*(low + more * (high - low) for low, high in zip(one, several, strict=True))))


def print_row(layers: str, taken: Taken) -> None:
    """One line of the table."""
    size, asked, from_disk, seconds, processor, memory = taken
    print(
        f"{layers:<8}{size / 1e9:>7.2f} GB{asked / 1e9:>7.2f} GB{from_disk / 1e9:>8.2f} GB"
        f"{seconds:>7.1f} s{processor:>9.1f} s{memory / 1e9:>6.2f} GB"
    )


def inspected(models: Sequence[Path], layers: int) -> Taken:
    """Inspect so many layers of the models, from disk."""
    for model in models:
        say_layers(model, layers)
        for file in model.glob("*.safetensors"):
            with open(file, "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-c", INSPECT, *map(str, models)]
    *taken, base = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if base != str(models[0]):
        sys.exit(f"the base is {models[0].name}, and inspect says {base}")
    return Taken(*taken)


def write_weights(model: Path, seed: int, layers: int) -> None:
    """A file for every layer, and one for what is outside of them."""
    model.mkdir()
    base, change = noise(0, 0.02), noise(seed, 0.002) if seed else torch.zeros(1)
    for layer in (None, *range(layers)):
        tensors = {}
        for name, shape in names_and_shapes(layer).items():
            count = torch.Size(shape).numel()
            tensors[name] = (repeated(base, count) + repeated(change, count)).to(torch.bfloat16).reshape(shape)
        save_file(tensors, model / file_name(layer), metadata={"format": "pt"})
        with open(model / file_name(layer), "rb") as stream:
            os.fsync(stream.fileno())  # what is not on disk stays in memory


def noise(seed: int, size: float) -> torch.Tensor:
    """As many numbers as no row's length divides."""
    return torch.empty(2**24 - 3).normal_(0, size, generator=torch.Generator().manual_seed(seed))


def repeated(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """The first of them, over and over."""
    return numbers.repeat(-(-count // len(numbers)))[:count]


def say_layers(model: Path, layers: int) -> None:
    """Let the model have its first layers alone."""
    (model / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    places = {name: file_name(layer) for layer in (None, *range(layers)) for name in names_and_shapes(layer)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def names_and_shapes(layer: int | None) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a layer, or outside of them."""
    if layer is None:
        return dict(OUTSIDE)
    return {f"model.layers.{layer}.{name}": shape for name, shape in INSIDE.items()}


def file_name(layer: int | None) -> str:
    """Where they are."""
    return "outside.safetensors" if layer is None else f"layer-{layer}.safetensors"


if __name__ == "__main__":
    main()
