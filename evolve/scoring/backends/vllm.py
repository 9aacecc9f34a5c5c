"""One long-lived vLLM engine whose weights are replaced in place, candidate after candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from evolve.scoring.backends.engine_backend import EngineBackend, Pair
from evolve.scoring.backends.engine_check import CHECK_TEXT, CHECK_TOKENS
from evolve.scoring.backends.pretrained_files import (
    known_config,
    load_generation_config,
    load_model,
    load_tokenizer,
    model_of_config,
)
from evolve.scoring.backends.request_preparation import by_settings, context_length
from evolve.scoring.backends.staged_weights import Layout, StagedWeights
from evolve.scoring.backends.vllm_engine import VLLMEngine, card_for_weights, engine_share, runs_on_cpu
from evolve.scoring.backends.vllm_sampling import sampling_arguments
from evolve.scoring.errors import Problem, ScoringError, TaskError
from evolve.scoring.language_model import PreparedGeneration

# Mean absolute difference of log-probabilities, in nats, that rounding alone may make.
_PROBE_TOLERANCE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.3}
# The same within one engine, asked twice: only what is in a batch together differs.
_REPEAT_TOLERANCE = {"float32": 0.001, "float16": 0.02, "bfloat16": 0.06}
_CHOICES_AT_ONCE = 128  # token ids that vLLM gives the log-probabilities of in one request


class VLLMBackend(EngineBackend):
    """Runs prepared requests on a vLLM engine.

    The engine starts on zeros. Every candidate is written into `model`, on the engine's own card where that can be,
    else in shared memory, and handed over by `weights_written`, the first one as well. After that one the engine's
    log-probabilities are compared with transformers'. So an engine that ignores or garbles what it is given is found
    out before anything is scored.

    Args:
        config: The content of a config.json.
        tokenizer_directory: Where the tokenizer is, and the generation_config.json if there is one.
        layout: Every tensor that will be written.
        dtype: Of the forward pass: float32, bfloat16 or float16.
        max_batch_tokens: Tokens that the engine computes at once; None leaves it to vLLM.
        compile: Let vLLM compile the model and record graphs, which takes minutes at the start.
        seed: Of sampled answers.
        probe: Whether to compare with transformers, which loads the model once on the CPU, and later with itself.
        model_args: Passed on to `vllm.LLM`, but for `add_bos_token`; `max_model_len` shortens what the model reads.

    Attributes:
        model: Where candidates are written to, by its `state_dict`.
        repeat_tolerance: By how many nats a token its answers may differ when it is given the same weights again.

    Raises:
        TaskError: vLLM is not installed or does not start.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer_directory: str | Path,
        layout: Layout,
        *,
        dtype: str = "float32",
        max_batch_tokens: int | None = None,
        compile: bool = False,
        seed: int = 0,
        probe: bool = True,
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = dict(model_args or {})
        tokenizer = load_tokenizer(tokenizer_directory)
        hf_config = known_config(config)
        tied = _tied_head(hf_config, layout) if runs_on_cpu() else {}
        if tied:
            config = {**config, "tie_word_embeddings": False}
        card = card_for_weights(sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in layout), arguments)
        self.model = StagedWeights(config, tokenizer_directory, layout, copies=tied, device=card)
        if card is not None:
            arguments.setdefault("gpu_memory_utilization", engine_share())
        directory = self.model.directory
        longest = arguments.pop("max_model_len", None) or context_length(hf_config, tokenizer)
        super().__init__(tokenizer, longest, arguments.pop("add_bos_token", None))
        self._generation_config = _generation_config(directory, hf_config)
        self._seed = seed
        self._dtype = dtype
        self._unprobed = probe
        self.repeat_tolerance = _REPEAT_TOLERANCE[dtype] if probe else None
        options = {
            "dtype": dtype,
            "max_model_len": longest + 1,
            "enforce_eager": not compile,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "generation_config": "vllm",
            "trust_remote_code": False,
            "seed": seed,
        }
        if max_batch_tokens is not None:
            options["max_num_batched_tokens"] = max_batch_tokens
        try:
            self._engine = VLLMEngine(directory, {**options, **arguments})
        except TaskError:
            self.model.close()
            raise

    @property
    def forward_seconds(self) -> float:
        """Time spent in the engine so far."""
        return self._engine.seconds

    def weights_written(self) -> None:
        """Hand what was written over to the engine, which forgets everything it knows of the weights before.

        Raises:
            TaskError: The engine's log-probabilities are not those that transformers computes from these weights.
            ScoringError: Transformers' are not finite.
        """
        self.model.copy()
        if self.model.device is None:
            self._engine.reload()
        else:
            self._engine.take(self.model.state_dict())
        if self._unprobed:
            self._probe()
            self._unprobed = False

    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> list[list[int]]:
        """As `generate`, in token ids, with the token that ended each answer."""
        prompts: list[tuple[int, ...]] = [()] * len(requests)
        sampling: list[Any] = [None] * len(requests)
        for settings, members in by_settings(requests).items():
            room = self.prompt_room(settings)
            options = sampling_arguments(settings, self.stop_strings(settings), self._generation_config)
            for index in members:
                prompts[index] = requests[index].tokens[-room:]
                # A seed of its own: equal prompts are sampled more than once to be answered differently.
                sampling[index] = self._engine.sampling(seed=self._seed + index, **options)
        completions = [output.outputs[0] for output in self._engine.answer(prompts, sampling)]
        if not all(math.isfinite(completion.cumulative_logprob) for completion in completions):
            raise ScoringError("the model's logits are not finite")
        return [list(completion.token_ids) for completion in completions]

    @property
    def generation_config(self) -> Any:
        """Of the directory, or by the model's configuration."""
        return self._generation_config

    def reshape(self, config: Mapping[str, Any], arrange: Callable[[Any], None]) -> bool:
        """No: an engine has its layers for good, and a model of another depth needs another one."""
        return False

    def close(self) -> None:
        """End the engine and its processes, and give the memory back. Can be called twice."""
        self._engine.close()
        self.model.close()

    def score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """As of an `EngineBackend`.

        Requests with the same input (answer choices of one token after the same context) are asked for at once.
        The last token is not read but asked for as the one to be generated. So the model reads what any other backend
        reads, and a continuation of one token finds its context in the prefix cache, which vLLM does not use for
        log-probabilities inside of a prompt.
        """
        by_input: dict[tuple[int, ...], list[int]] = {}
        for index, (context, continuation) in enumerate(pairs):
            if len(continuation) > self.max_length:
                raise ScoringError(f"a continuation of {len(continuation)} tokens does not fit {self.max_length}")
            by_input.setdefault((context + continuation)[-(self.max_length + 1) : -1], []).append(index)
        rows = [
            (tokens, members[start : start + _CHOICES_AT_ONCE])
            for tokens, members in by_input.items()
            for start in range(0, len(members), _CHOICES_AT_ONCE)
        ]
        sampling = []
        for _, members in rows:
            inside = any(len(pairs[index][1]) > 1 for index in members)
            lasts = list(dict.fromkeys(pairs[index][1][-1] for index in members))
            sampling.append(
                self._engine.sampling(
                    temperature=0,
                    max_tokens=1,
                    detokenize=False,
                    logprob_token_ids=lasts,
                    prompt_logprobs=1 if inside else None,
                )
            )
        results = [(0.0, False)] * len(pairs)
        outputs = self._engine.answer([tokens for tokens, _ in rows], sampling)
        for (tokens, members), output in zip(rows, outputs, strict=True):
            for index in members:
                continuation = pairs[index][1]
                first = len(tokens) - (len(continuation) - 1)
                positions = [output.prompt_logprobs[position] for position in range(first, len(tokens))]
                chosen = [_lookup(at, token) for at, token in zip(positions, continuation[:-1], strict=True)]
                last = output.outputs[0].logprobs[0][continuation[-1]].logprob
                total = sum(logprob for logprob, _ in chosen) + last
                if not math.isfinite(total):
                    raise ScoringError("the model's logits are not finite at the continuation of a context")
                best = output.outputs[0].token_ids[0] == continuation[-1]
                results[index] = (total, best and all(is_best for _, is_best in chosen))
        return results

    def _probe(self) -> None:
        """Compare a prompt's log-probabilities with transformers' from the same weights."""
        tokens = self._encoder.text(CHECK_TEXT)[: min(CHECK_TOKENS, self.max_length)]
        tokens = (self._encoder.prefix_token, *tokens)[: self.max_length + 1]
        pairs = [(tokens[:end], tokens[end : end + 1]) for end in range(1, len(tokens))]
        pairs.append((tokens[:1], tokens[1:]))  # in one piece, as longer continuations are scored
        expected = self._reference(tokens)
        found = [logprob for logprob, _ in self.score(pairs)]
        apart = sum(abs(a - b) for a, b in zip(found[:-1], expected, strict=True)) / len(expected)
        apart = max(apart, abs(found[-1] - sum(expected)) / len(expected))
        tolerance = _PROBE_TOLERANCE[self._dtype]
        if apart > tolerance:
            message = (
                "vLLM does not compute what transformers does from the same weights: log-probabilities are "
                f"{apart:.3g} apart on average, more than {self._dtype} explains ({tolerance}). "
                "Set backend: {name: hf} for this architecture."
            )
            raise TaskError(Problem(("backend",), message))

    def _reference(self, tokens: tuple[int, ...]) -> list[float]:
        with self.model.as_files() as directory, torch.inference_mode():
            model = load_model(directory, getattr(torch, self._dtype))
            logits = model(torch.tensor([tokens[:-1]])).logits[0].float()
            del model
        if not bool(torch.isfinite(logits).all()):
            raise ScoringError("the model's logits are not finite")
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])
        return [float(value) for value in chosen[:, 0]]


def _tied_head(config: Any, layout: Layout) -> dict[str, str]:
    """The head's tensor and the embeddings that it shares its memory with; nothing, if the model has a head of its own.

    On a CPU vLLM packs a head's weight for its own multiplication, and does so anew only when a reload brings that
    weight by its own name. So there the head is written out.
    """
    if not getattr(config, "tie_word_embeddings", False):
        return {}
    with torch.device("meta"):
        model = model_of_config(config)
    places = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    head, embeddings = places[id(model.get_output_embeddings())], places[id(model.get_input_embeddings())]
    names = {name for name, _, _ in layout}
    return {head: embeddings} if embeddings in names and head not in names else {}


def _generation_config(directory: Path, config: Any) -> Any:
    return load_generation_config(directory) or transformers.GenerationConfig.from_model_config(config)


def _lookup(at: Mapping[int, Any], token: int) -> tuple[float, bool]:
    """A token's log-probability, and whether greedy decoding would choose it: of equal ones, the first."""
    chosen = at[token].logprob
    return chosen, all((other.logprob, -index) <= (chosen, -token) for index, other in at.items())
