"""vLLM on a card: what an engine answers after each candidate, against transformers there, and what a hand-over costs.

    python benchmarks/gpu/vllm_check.py [--device cuda] [--small]

Llamas of random weights in bfloat16; the tokenizer is the demo zoo's. Both ways to hand weights over: as tensors on the
card, and as a file that the engine reads again, which a CPU has alone. Candidates: three in turn, then
the first one twice. `apart` is the mean difference of a token's log-probability, in nats, from transformers' in
float32, `transformers` the same of its own bfloat16, `moved` from the engine's answers to the candidate before. Greedy
answers: how many transformers writes as well, and `regret`, the most nats that any token written is less probable than
the best one, where transformers in float32 reads the answer; only a near tie may be decided otherwise.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import unittest.mock
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.gpu.environment import clocked
from benchmarks.gpu.scoring_rates import ZOO, attempt
from evolve.scoring.backends import vllm as vllm_backend
from evolve.scoring.language_model import GenerationSettings, PreparedContinuation, PreparedGeneration

APART = 0.06  # nats; what rounding to bfloat16 explains of one token's log-probability, on average
REGRET = 0.5  # nats; as much of any token of an answer
WAYS = ("tensors", "file")
ANSWER = 16  # tokens
VOCABULARY = 284  # the tokenizer's
SETTINGS = GenerationSettings(max_new_tokens=ANSWER)


def main() -> None:
    """Prints the tables, and ends with 1 if an answer is wrong or a part fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="no model of 1 GB, for a rehearsal")
    options = parser.parse_args()
    device = torch.device(options.device)
    passed: list[str] = []
    for way in WAYS if device.type == "cuda" else WAYS[1:]:
        attempt(lambda way=way: passed.append(answers(way, device)))
        attempt(lambda way=way: passed.append(hand_over(way, device, options.small)))
    expected = 2 * len(WAYS if device.type == "cuda" else WAYS[1:])
    print(f"{len(passed)} of {expected} parts passed")
    raise SystemExit(len(passed) != expected)


def config_of(width: int, layers: int) -> transformers.LlamaConfig:
    """A Llama whose heads any attention of vLLM's takes."""
    return transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )


def open_backend(way: str, config: transformers.LlamaConfig, device: torch.device, probe: bool) -> Any:
    """An engine, and what it took of the card."""
    with torch.device("meta"):
        tensors = transformers.LlamaForCausalLM(config).state_dict()
    layout = [(name, torch.bfloat16, tuple(tensor.shape)) for name, tensor in tensors.items()]
    before = free_memory(device)
    started = time.perf_counter()
    forced = unittest.mock.patch.object(vllm_backend, "card_for_weights", return_value=None)
    with forced if way == "file" else unittest.mock.MagicMock():
        backend = vllm_backend.VLLMBackend(
            {**config.to_dict(), "architectures": ["LlamaForCausalLM"]},
            ZOO / "base",
            layout,
            dtype="bfloat16",
            probe=probe,
        )
    size = sum(tensor.numel() for tensor in tensors.values()) * 2 / 1e9
    chosen = "file" if backend.model.device is None else "tensors"
    print(
        f"{chosen}: {size:.3g} GB of weights, engine up in {time.perf_counter() - started:.1f} s, which took "
        f"{(before - free_memory(device)) / 1e9:.1f} of {before / 1e9:.1f} GB free",
        flush=True,
    )
    if chosen != way:
        backend.close()
        raise RuntimeError(f"weights go over by {chosen}, not {way}")
    return backend


def random_weights(layout: Mapping[str, Tensor], seed: int, device: torch.device) -> dict[str, Tensor]:
    """Weights whose answers are sure enough of themselves to tell candidates apart."""
    generator = torch.Generator(device).manual_seed(seed)
    return {
        name: torch.ones_like(tensor, device=device)
        if tensor.dim() == 1
        else torch.empty_like(tensor, device=device).normal_(0, 1.5 * tensor.shape[-1] ** -0.5, generator=generator)
        for name, tensor in layout.items()
    }


def answers(way: str, device: torch.device) -> str:
    """Candidate after candidate: probabilities and greedy answers."""
    config = config_of(256, 4)
    backend = open_backend(way, config, device, probe=True)
    generator = random.Random(0)
    draw = lambda count: tuple(generator.randrange(4, VOCABULARY) for _ in range(count))  # noqa: E731
    scored = [PreparedContinuation(draw(length), draw(new)) for length in (3, 40, 150) for new in (1, 8, 60)]
    asked = [PreparedGeneration(draw(length), SETTINGS) for length in (2, 17, 64, 200)]
    models = {
        dtype: transformers.LlamaForCausalLM(config).to(device, dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    print("candidate  hand-over s   apart  transformers   moved  same answers  regret")
    wrong: list[str] = []
    before: Sequence[float] = ()
    first: Sequence[float] = ()
    for seed in (0, 1, 2, 0, 0):
        weights = random_weights(backend.model.state_dict(), seed, device)
        for model in models.values():
            model.load_state_dict(weights)
        elapsed = copy(backend.model.state_dict(), weights) + clocked(backend.weights_written)[0]
        found = per_token(scored, [total for total, _ in backend.loglikelihood(scored)])
        expected, rounded = (per_token(scored, [forced(model, one) for one in scored]) for model in models.values())
        written = backend.generate_tokens(asked)
        theirs = [greedy(models[torch.bfloat16], one) for one in asked]
        loss = max(regret(models[torch.float32], one, tokens) for one, tokens in zip(asked, written, strict=True))
        apart = difference(found, expected)
        moved = difference(found, before) if before else float("nan")
        same = sum(one == two for one, two in zip(written, theirs, strict=True))
        print(
            f"{seed:>9}{elapsed:>13.3f}{apart:>8.4f}{difference(rounded, expected):>14.4f}{moved:>8.4f}"
            f"{same:>11}/{len(asked)}{loss:>9.3f}",
            flush=True,
        )
        if apart > APART or loss > REGRET:
            wrong.append(f"candidate {seed} is not what transformers computes")
        first = first or found
        before = found
    if difference(before, first) > backend.repeat_tolerance:
        wrong.append("the first candidate is answered otherwise than at first")
    backend.close()
    print(f"after the end {free_memory(device) / 1e9:.1f} GB free", flush=True)
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return f"answers {way}"


def hand_over(way: str, device: torch.device, small: bool) -> str:
    """A candidate of 1 GB, written and handed over four times."""
    config = config_of(256, 4) if small else config_of(2048, 11)
    backend = open_backend(way, config, device, probe=False)
    state = backend.model.state_dict()
    size = sum(tensor.nbytes for tensor in state.values()) / 1e9
    sources = [random_weights(state, seed, device) for seed in range(2)]
    copied, handed = [], []
    for number in range(4):
        copied.append(copy(state, sources[number % 2]))
        handed.append(clocked(backend.weights_written)[0])
    request = PreparedContinuation((5, 6, 7), (8, 9))
    model = transformers.LlamaForCausalLM(config).to(device, torch.bfloat16)
    model.load_state_dict(sources[1])
    apart = abs(backend.loglikelihood([request])[0][0] - forced(model, request)) / 2
    later = statistics.median(handed[1:])
    print(
        f"{way}: {size:.3g} GB written in {statistics.median(copied[1:]):.3f} s, handed over in {handed[0]:.3f} s and "
        f"then {later:.3f} s ({later / size:.3f} s/GB); {apart:.3f} nats a token from transformers",
        flush=True,
    )
    if device.type == "cuda":
        print(f"at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB allocated in this process")
    backend.close()
    if apart > 4 * APART:  # of two tokens alone
        raise RuntimeError("the last candidate is not what transformers computes")
    return f"hand-over {way}"


def copy(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Seconds to write every tensor."""

    def write_all() -> None:
        for name, tensor in state.items():
            tensor.copy_(weights[name])

    return clocked(write_all)[0]


@torch.inference_mode()
def log_probabilities(model: Any, tokens: Sequence[int]) -> Tensor:
    """Of every next token: row i is of what follows token i."""
    return model(torch.tensor([list(tokens)], device=model.device)).logits[0].float().log_softmax(-1)


def forced(model: Any, request: PreparedContinuation) -> float:
    """A continuation's log-probability by transformers."""
    tokens = (*request.context, *request.continuation)
    rows = log_probabilities(model, tokens[:-1])[len(request.context) - 1 :]
    return float(rows.gather(1, torch.tensor(request.continuation, device=rows.device)[:, None]).sum())


@torch.inference_mode()
def greedy(model: Any, request: PreparedGeneration) -> list[int]:
    """The answer by transformers, one whole forward pass for each token."""
    written: list[int] = []
    while len(written) < ANSWER:
        written.append(int(log_probabilities(model, (*request.tokens, *written))[-1].argmax()))
        if written[-1] == model.config.eos_token_id:
            break
    return written


def regret(model: Any, request: PreparedGeneration, written: Sequence[int]) -> float:
    """The most nats that a token written is less probable than the best one there."""
    rows = log_probabilities(model, (*request.tokens, *written))[len(request.tokens) - 1 : -1]
    chosen = rows.gather(1, torch.tensor(list(written), device=rows.device)[:, None])[:, 0]
    return float((rows.max(-1).values - chosen).max())


def per_token(requests: Sequence[PreparedContinuation], totals: Sequence[float]) -> list[float]:
    """Mean log-probability of a token of each continuation."""
    return [total / len(request.continuation) for request, total in zip(requests, totals, strict=True)]


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean distance."""
    return statistics.fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def free_memory(device: torch.device) -> int:
    """Bytes that nobody holds on a card, or 0."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


if __name__ == "__main__":
    main()
