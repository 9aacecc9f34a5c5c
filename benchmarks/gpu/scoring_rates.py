"""A model of 1.5 billion random parameters on a device: decoding, log-probabilities, a whole candidate, its memory.

    python benchmarks/gpu/scoring_rates.py [--device cuda] [--small]

The shape is Qwen2.5-1.5B's, in bfloat16; the tokenizer is the demo zoo's. Decoding: greedy, against
`transformers.generate` on the same prompts, and against the bound that every step reads every weight once, at the
bandwidth of a copy. Log-probabilities: TFLOP/s are 2 per parameter and token, against a large matrix product. A
candidate: a base and two models, 4 generative tasks of 150 items; memory against `evolve check`'s plan.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from benchmarks.gpu.environment import ceilings, clocked, synchronize
from evolve.config.machines import BackendConfig
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.preflight.memory_plan import plan_memory
from evolve.scoring import LmEvalTask
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.language_model import GenerationSettings, PreparedContinuation, PreparedGeneration

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "configs" / "demo_zoo"
TASKS = tuple(f"demo_{name}" for name in ("sorting", "reversal", "shift", "swapping"))
PARTS = ("decoding", "probabilities", "candidate", "compile")
MODELS = ("base", "one", "two")
CANDIDATES = 5  # the first brings the sources, the next ones what is remembered of them


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny model, for a rehearsal")
    parser.add_argument("--parts", nargs="+", default=PARTS[:-1], choices=PARTS)
    options = parser.parse_args()
    device = torch.device(options.device)
    rates = ceilings(device, options.small)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        parameters = write_models(Path(folder), device, options.small)
        print(f"{parameters / 1e9:.2f} G parameters, three models made in {time.perf_counter() - started:.0f} s")
        backend = backend_of(Path(folder), device)
        if "decoding" in options.parts:
            attempt(lambda: decoding(backend, parameters, rates["copy"], options.small))
        if "probabilities" in options.parts:
            attempt(lambda: probabilities(backend, parameters, rates["matrix"], options.small))
        if "compile" in options.parts:
            attempt(lambda: compiled(backend, options.small))
        backend.close()
        for method in ("task_arithmetic", "ties") if "candidate" in options.parts else ():
            attempt(lambda method=method: candidate(Path(folder), method, parameters, device, options.small))


def backend_of(folder: Path, device: torch.device) -> HFBackend:
    """The model with random weights."""
    config = json.loads((folder / "base" / "config.json").read_text())
    backend = HFBackend.from_config(config, ZOO / "base", "bfloat16", device)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in backend.model.parameters():
            parameter.normal_(0, 0.02) if parameter.dim() > 1 else parameter.fill_(1.0)
    return backend


def attempt(part: Callable[[], None]) -> None:
    """A part that fails says so, and the next one follows."""
    try:
        part()
    except Exception as error:
        print(f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
        transformers.utils.logging.get_logger().exception("a part failed")


def decoding(backend: HFBackend, parameters: int, copy: float, small: bool) -> None:
    """Tokens a second by rows of a batch."""
    length, new = (8, 8) if small else (128, 64)
    print(f"greedy decoding, {new} tokens after {length}; tokens/s")
    print(
        f"{'rows':>6}{'ours':>9}{'transformers':>14}{'ratio':>7}{'bound':>9}{'of bound':>10}{'forward':>9}{'same':>6}"
    )
    for rows in (1, 4) if small else (1, 16, 128):
        generator = random.Random(rows)
        prompts = [tuple(generator.randrange(4, 280) for _ in range(length)) for _ in range(rows)]
        settings = GenerationSettings(max_new_tokens=new)
        inputs = torch.tensor(prompts, device=backend.device)

        def by_transformers(count: int, inputs: torch.Tensor = inputs) -> Any:
            mask = torch.ones_like(inputs)
            with torch.inference_mode():
                return backend.model.generate(
                    inputs, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0
                )

        requests = [PreparedGeneration(prompt, settings) for prompt in prompts]
        backend.generate(requests)  # warms up, and records the steps
        before = backend.forward_seconds
        ours, answers = clocked(lambda requests=requests: backend.generate(requests))
        forward = (backend.forward_seconds - before) / ours
        by_transformers(2)  # warms up; at one row a whole call takes seconds
        theirs, generated = clocked(lambda generate=by_transformers: generate(new))
        texts = [backend.tokenizer.decode(row[length:], skip_special_tokens=True) for row in generated.tolist()]
        same = sum(one == two for one, two in zip(answers, texts, strict=True))
        steps = "recorded" if backend.records_steps else "plain"
        bound = rows / (2 * parameters / (copy * 1e9))
        print(
            f"{rows:>6}{rows * new / ours:>9.0f}{rows * new / theirs:>14.0f}{theirs / ours:>6.2f}x{bound:>9.0f}"
            f"{rows * new / ours / bound:>10.1%}{forward:>9.0%}{same:>6}/{rows} {steps}",
            flush=True,
        )


def probabilities(backend: HFBackend, parameters: int, matrix: float, small: bool) -> None:
    """Tokens a second of contexts with one continuation, and with four."""
    count, length = (8, 16) if small else (256, 512)
    generator = random.Random(0)
    for choices in (1, 4):
        requests = []
        for _ in range(count // choices):
            context = tuple(generator.randrange(4, 280) for _ in range(length))
            for _ in range(choices):
                requests.append(PreparedContinuation(context, tuple(generator.randrange(4, 280) for _ in range(16))))
        timed(lambda requests=requests: backend.loglikelihood(requests))
        before = backend.forward_seconds
        seconds, _ = clocked(lambda requests=requests: backend.loglikelihood(requests))
        forward = backend.forward_seconds - before
        computed = count // choices * length + count * 16
        rate = 2 * parameters * computed / seconds / 1e12
        print(
            f"log-probabilities, {choices} continuation(s) of 16 after {length}: {computed / seconds:.0f} computed "
            f"tokens/s, {len(requests) / seconds:.0f} requests/s, {rate:.0f} TFLOP/s ({rate / matrix:.0%} of a matrix "
            f"product), forward {forward / seconds:.0%}",
            flush=True,
        )


def compiled(backend: HFBackend, small: bool) -> None:
    """What `compile: true` changes: seconds, the first call's, and the log-probabilities."""
    generator = random.Random(0)
    length = 16 if small else 256
    requests = [
        PreparedContinuation(
            tuple(generator.randrange(4, 280) for _ in range(length)),
            tuple(generator.randrange(4, 280) for _ in range(16)),
        )
        for _ in range(8 if small else 256)
    ]
    plain, expected = timed(lambda: backend.loglikelihood(requests))
    other = HFBackend(backend.model, backend.tokenizer, compile=True)
    first, _ = clocked(lambda: other.loglikelihood(requests))
    seconds, found = timed(lambda: other.loglikelihood(requests))
    largest = max(abs(one[0] - two[0]) for one, two in zip(found, expected, strict=True))
    print(
        f"compile: {seconds:.2f} s against {plain:.2f}, the first call {first:.1f} s; log-probabilities of about "
        f"{expected[0][0]:.1f} differ by up to {largest:.2g}",
        flush=True,
    )


def candidate(folder: Path, method: str, parameters: int, device: torch.device, small: bool) -> None:
    """The time of candidates by parts, and their memory."""
    config = json.loads((folder / "base" / "config.json").read_text())
    backend = BackendConfig(device=str(device), dtype="bfloat16")
    worker = Worker(
        WorkerSettings(
            models=tuple(str(folder / name) for name in MODELS),
            relative_to=str(folder),
            tokenizer_model=str(folder / "base"),
            tasks=tuple(LmEvalTask(name=name) for name in TASKS),
            task_search_path=(),
            seed=0,
            backend=backend,
            threads=None,
        )
    )
    items = dict.fromkeys(TASKS, tuple(range(4 if small else 150)))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for number in range(CANDIDATES):
        generator = random.Random(number)
        listed = [
            {
                "model": str(folder / name),
                "parameters": {"weight": generator.uniform(0.2, 0.6)}
                | ({"density": generator.uniform(0.3, 0.7)} if method == "ties" else {}),
            }
            for name in MODELS[1:]
        ]
        recipe = {"merge_method": method, "base_model": str(folder / "base"), "models": listed, "dtype": "bfloat16"}
        row = worker.evaluate(Request(number, recipe, items))
        if row.failure:
            raise RuntimeError(f"candidate {number}: {row.failure}")
        if number in (0, CANDIDATES - 1):
            rest = row.total_seconds - row.merge_seconds - row.forward_seconds
            print(
                f"{method} candidate {number}: {row.total_seconds:.2f} s, merge {row.merge_seconds:.3f}, forward "
                f"{row.forward_seconds:.3f}, rest {rest:.3f}",
                flush=True,
            )
    plan = plan_memory(backend, config, parameters, 2 * parameters, str(device))
    print(f"memory planned: {plan.live_model / 1e9:.2f} GB model, {plan.key_value_cache / 1e9:.2f} GB cache", end="")
    if device.type == "cuda":
        print(f"; peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB allocated, ", end="")
        print(f"{torch.cuda.max_memory_reserved() / 1e9:.2f} GB reserved, of which sources {6 * parameters / 1e9:.2f}")
        torch.cuda.reset_peak_memory_stats()
        merge_only(worker, recipe)
        print(f"a merge alone: peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB allocated")
    else:
        print()
    worker.close()


def merge_only(worker: Worker, recipe: dict[str, Any]) -> None:
    """Writes a candidate and asks nothing of it."""
    for entry in recipe["models"]:
        entry["parameters"]["weight"] += 0.01
    worker.load(recipe)
    synchronize()


def write_models(folder: Path, device: torch.device, small: bool) -> int:
    """A base and two models near it; returns the number of parameters."""
    config = transformers.Qwen2Config(
        vocab_size=512 if small else 151936,
        hidden_size=64 if small else 1536,
        intermediate_size=128 if small else 8960,
        num_hidden_layers=2 if small else 28,
        num_attention_heads=4 if small else 12,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for seed, name in enumerate(MODELS):
        directory = folder / name
        config.save_pretrained(directory)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ZOO / "base" / file, directory)
        common, own = torch.Generator(device).manual_seed(0), torch.Generator(device).manual_seed(seed)
        tensors = {}
        for tensor, shape in shapes.items():
            values = torch.empty(shape, device=device).normal_(0, 0.02, generator=common)
            if seed:
                values += torch.empty(shape, device=device).normal_(0, 0.002, generator=own)
            tensors[tensor] = (values + float(len(shape) == 1)).to(torch.bfloat16).cpu()
        save_file(tensors, directory / "model.safetensors")
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the faster of two calls after one that warms up, and what it returned."""
    work()
    return min(clocked(work), clocked(work), key=lambda pair: pair[0])


if __name__ == "__main__":
    main()
