"""A live transformers model that is scored again and again while its weights change in place."""

from __future__ import annotations

import contextlib
import gc
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from evolve.scoring.backends.activation_memory import plan_micro_batch, text_config
from evolve.scoring.backends.answer_gradient import add_answer_gradient
from evolve.scoring.backends.backend_options import default_batch_tokens
from evolve.scoring.backends.batch_size import BatchSize, CardMemory
from evolve.scoring.backends.checkpointing import checkpointed
from evolve.scoring.backends.compiled_forward import CompiledForward
from evolve.scoring.backends.continuation_scoring import Totals, score_continuations
from evolve.scoring.backends.greedy_decoding import Record, decode_greedily
from evolve.scoring.backends.kv_cache import CacheFactory
from evolve.scoring.backends.pretrained_files import load_generation_config, load_tokenizer
from evolve.scoring.backends.quantized_linear import Bits, is_quantized, quantize_linears
from evolve.scoring.backends.recorded_steps import RecordedSteps, record_graph
from evolve.scoring.backends.request_preparation import RequestPreparation, by_settings, context_length
from evolve.scoring.backends.sampling import generate_with_transformers
from evolve.scoring.backends.shared_contexts import find_shared_contexts, score_shared_contexts
from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.backends.text_probability import why_texts_have_none
from evolve.scoring.backends.text_windows import rolling_windows
from evolve.scoring.backends.uninitialised_model import build_uninitialised_model, spread_over_devices
from evolve.scoring.errors import ScoringError, TaskError
from evolve.scoring.language_model import PreparedContinuation, PreparedGeneration, PreparedText
from evolve.scoring.targets import Target

# Settings of a generation_config.json that do not change which token is the most probable one.
_IRRELEVANT_TO_GREEDY = frozenset(
    """
    bos_token_id eos_token_id pad_token_id decoder_start_token_id max_length max_new_tokens do_sample
    temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff use_cache cache_implementation
    transformers_version _from_model_config return_dict_in_generate output_attentions output_hidden_states
    output_scores output_logits
    """.split()  # noqa: SIM905
)
_LOOK_EVERY = 8  # tokens of decoding on a card

Arrange = Callable[[torch.nn.Module], None]
"""Gives a model that was just built its parameters."""

Build = Callable[[Mapping[str, Any], Arrange | None], Any]
"""Makes a live model of the content of a config.json."""

Result = TypeVar("Result")


class HFBackend(RequestPreparation):
    """Runs prepared requests on a language model of transformers; of an encoder the vectors can be asked for.

    Greedy decoding is our own loop (`greedy_decoding`), which writes the tokens that `model.generate` would.
    Sampling, beams, and models whose cache is more than keys and values go through `model.generate`.

    Args:
        model: A language model or an encoder, in evaluation mode afterwards. Its parameters may be written at any
            time between calls.
        tokenizer: Its tokenizer.
        device: Where the model is; None takes it from the model.
        max_batch_tokens: Rows times padded length of a batch; None is `default_batch_tokens` at first, and more on a
            card where more fits. Where memory ends, it is halved and the batch tried again.
        add_bos_token: Whether prompts begin with the BOS token; None leaves it to the tokenizer.
        max_length: The longest input in tokens; None is the configuration's.
        seed: Of sampled answers.
        compile: Whether forwards without a cache, which is all but generation, go through `torch.compile`.

    Attributes:
        model: The model that candidates are written into.
        forward_seconds: Time spent in the model so far.
    """

    repeat_tolerance: float | None = None  # what is written is what computes
    _build: Build | None = None
    _directory: Path | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: str | torch.device | None = None,
        max_batch_tokens: int | None = None,
        *,
        add_bos_token: bool | None = None,
        max_length: int | None = None,
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__(tokenizer, max_length or context_length(model.config, tokenizer), add_bos_token)
        spread = getattr(model, "hf_device_map", None) is not None
        self.device = torch.device(device if device is not None and not spread else model.device)
        self._compiles = compile
        self.forward_seconds = 0.0
        grows = self.device.type == "cuda" and not spread and max_batch_tokens is None
        self._first_batch_tokens = max_batch_tokens or default_batch_tokens(self.device.type)
        self._batch = BatchSize(self._first_batch_tokens, CardMemory(self.device) if grows else None)
        self._seed = seed
        self._take(model if spread or is_quantized(model) else model.to(self.device))

    def _take(self, model: Any) -> None:
        """Run this model from now on."""
        self.model: Any = model.eval()
        if (head := self.model.get_output_embeddings()) is not None:
            head.register_forward_pre_hook(_contiguous)
        self._sentences: Any = None
        self._caches = CacheFactory(self.model.config)
        self._call: Any = CompiledForward(self.model) if self._compiles else self.model
        self._recorded_steps = RecordedSteps(record_graph if self._can_record() else None)
        self._micro_batch = plan_micro_batch(
            text_config(self.model.config.to_dict()),
            next(self.model.parameters()).element_size(),
            sum(parameter.numel() for parameter in self.model.parameters()),
            min(self._first_batch_tokens, self._batch.tokens),
        )
        self._no_probability = why_texts_have_none(self.model.config)
        accepted = inspect.signature(model.forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._takes_position_ids = "position_ids" in accepted

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tokenizer_directory: str | Path,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        max_batch_tokens: int | None = None,
        *,
        attn_implementation: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        model_args: Mapping[str, Any] | None = None,
        quantization: Bits | None = None,
        arrange: Arrange | None = None,
        model_directory: Path | None = None,
        **options: Any,
    ) -> HFBackend:
        """Build a model with the right shapes and undefined weights, for a merge to write into.

        Args:
            config: The content of a config.json.
            tokenizer_directory: Where the tokenizer is, and the generation_config.json if there is one.
            dtype: Of the parameters; None is the configuration's own.
            device: Where the model lives, and where inputs go.
            max_batch_tokens: See the class.
            attn_implementation: `sdpa`, `eager`, `flash_attention_2`; None is transformers' choice.
            device_map: Spreads the model over several devices, as in transformers.
            model_args: Passed on to `AutoModelForCausalLM.from_config`.
            quantization: What the linear layers are held in (`quantized_linear`).
            arrange: Gives the new model its parameters, where some are there already or are to be one tensor; those of
                a quantised one are its own.
            model_directory: Of the model that it is modelled on, with what an encoder has beside its weights.
            **options: The keyword arguments of the class.

        Raises:
            TaskError: The architecture or the tokenizer is not known to transformers, or an argument is not.
        """
        if quantization is not None:
            how = (dtype, torch.device(device), attn_implementation, model_args, quantization)
            build: Build = partial(_build_quantized, *how)
        else:
            build = partial(_build, dtype, torch.device(device), attn_implementation, device_map, model_args)
        model = build(config, arrange)
        if (generation := load_generation_config(tokenizer_directory)) is not None:
            model.generation_config = generation
        tokenizer = load_tokenizer(tokenizer_directory)
        backend = cls(model, tokenizer, device, max_batch_tokens, **options)
        backend._build = build if quantization is None else None  # whose depth cannot change
        backend._directory = model_directory
        return backend

    def reshape(self, config: Mapping[str, Any], arrange: Arrange) -> bool:
        """Go on with a model of another depth, with the same tokenizer.

        Args:
            config: As in `from_config`; all but the layers is as it was.
            arrange: As there.

        Returns:
            Whether it could: a model that was not built here, or that lies on several devices, cannot be.
        """
        if self._build is None or getattr(self.model, "hf_device_map", None) is not None:
            return False
        generation = self.generation_config
        self.model = self._call = self._sentences = None  # first, so that what the new one does not take is given back
        model = self._build(config, arrange)
        model.generation_config = generation
        self._take(model.to(self.device))
        return True

    def sentence_transformer(self) -> Any:
        """The model with the modules of its directory, as sentence-transformers runs them.

        Raises:
            TaskError: There is no such directory, or as `sentence_encoder.sentence_transformer`.
        """
        from evolve.scoring.backends.sentence_encoder import sentence_transformer

        if self._sentences is None:
            if self._directory is None:
                raise TaskError("sentence_transformer: the model is of no directory whose modules it could have")
            self._sentences = sentence_transformer(self.model, self._directory)
        return self._sentences

    def weights_written(self) -> None:
        """Nothing is left to be done: what is written is what computes."""

    def close(self) -> None:
        """Give the memory back. The backend must not be used any more."""
        self.model = self._call = self._sentences = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """Continue each prompt up to its stop strings.

        A prompt too long for the model loses its beginning, so that the longest answer still fits.

        Raises:
            TaskError: The longest answer alone does not fit the model.
            ScoringError: The model's logits are not finite.
        """
        written = self.generate_tokens(requests)
        return [self.answer_text(request, tokens) for request, tokens in zip(requests, written, strict=True)]

    @torch.inference_mode()
    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> list[list[int]]:
        """As `generate`, in token ids, with the token that ended each answer."""
        return self._within_memory(lambda tokens: self._generate_within(requests, tokens))

    @property
    def generation_config(self) -> Any:
        """The model's; an encoder has none."""
        return getattr(self.model, "generation_config", None)

    def _generate_within(self, requests: Sequence[PreparedGeneration], max_batch_tokens: int) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in requests]
        own_loop = self._caches.is_plain and self._greedy_is_plain()
        greedy: dict[int, list[int]] = {}  # most new tokens -> requests, whatever ends each
        for settings, members in by_settings(requests).items():
            if own_loop and settings.is_greedy:
                greedy.setdefault(settings.max_new_tokens, []).extend(members)
                continue
            stop = self.stop_strings(settings)
            for batch, prompts in self._batches(requests, members, max_batch_tokens):
                started = time.perf_counter()
                # Of its own for each batch: an item that is asked several times may be in several of them.
                seed = self._seed + batch[0]
                written = generate_with_transformers(self.model, self.tokenizer, prompts, settings, stop, seed)
                self.forward_seconds += time.perf_counter() - started
                for index, tokens in zip(batch, written, strict=True):
                    answers[index] = tokens
        for max_new_tokens, members in greedy.items():
            for batch, prompts in self._batches(requests, members, max_batch_tokens):
                stops = [self.stop_strings(requests[index].settings) for index in batch]
                for index, tokens in zip(batch, self._decode(prompts, max_new_tokens, stops), strict=True):
                    answers[index] = tokens
        return answers

    def _batches(
        self, requests: Sequence[PreparedGeneration], members: Sequence[int], max_batch_tokens: int
    ) -> Iterator[tuple[list[int], list[tuple[int, ...]]]]:
        """Batches of requests with the same longest answer: their positions, and their prompts as far as they fit."""
        settings = requests[members[0]].settings
        room = self.prompt_room(settings)
        prompts = {index: requests[index].tokens[-room:] for index in members}
        for batch in _prompt_batches(prompts, settings.max_new_tokens, max_batch_tokens):
            texts = [prompts[index] for index in batch]
            self._batch.saw(len(texts) * (max(map(len, texts)) + settings.max_new_tokens))
            yield batch, texts

    @torch.inference_mode()
    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """Each continuation's log-probability and whether it is what greedy decoding would write."""
        return self._score([(request.context, request.continuation) for request in requests])

    @torch.inference_mode()
    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """Each text's log-probability, in windows where it is longer than the model's input."""
        windows = [rolling_windows(request.tokens, request.prefix_token, self.max_length) for request in requests]
        scores = iter(self._score([window for text in windows for window in text]))
        return [sum(next(scores)[0] for _ in text) for text in windows]

    def add_answer_gradient(self, targets: Sequence[Target], weights: Sequence[float], exponent: float) -> list[float]:
        """Add the gradient of the targets' loss to the parameters that require one; see `answer_gradient`.

        Returns:
            The probability of each target.

        Raises:
            ScoringError: A probability is not a number.
        """
        with checkpointed(self.model) if self._micro_batch.checkpointing else contextlib.nullcontext():
            return add_answer_gradient(
                lambda tokens, positions: self._run(self.model, positions, input_ids=tokens, use_cache=False)[
                    :, -positions:
                ],
                targets,
                weights,
                exponent,
                max_length=self.max_length,
                max_batch_tokens=self._micro_batch.tokens,
                vocabulary_size=self.model.get_input_embeddings().weight.shape[0],
                device=self.device,
            )

    def _score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[float, bool]]:
        return self._within_memory(lambda tokens: self._score_within(pairs, tokens))

    def _score_within(
        self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], max_batch_tokens: int
    ) -> list[tuple[float, bool]]:
        def logits(tokens: torch.Tensor, positions: int) -> torch.Tensor:
            self._batch.saw(tokens.numel())
            return self._forward(positions, input_ids=tokens, use_cache=False)[:, -positions:]

        totals = Totals(len(pairs))
        vocabulary_size = self.model.get_input_embeddings().weight.shape[0]
        shared = find_shared_contexts(pairs, self.max_length) if self._keeps_contexts() else []
        score_shared_contexts(
            self._forward,
            shared,
            totals,
            make_cache=self._caches.make,
            max_batch_tokens=max_batch_tokens,
            vocabulary_size=vocabulary_size,
            device=self.device,
        )
        done = {request for group in shared for request, _ in group.continuations}
        score_continuations(
            logits,
            {request: pair for request, pair in enumerate(pairs) if request not in done},
            totals,
            max_length=self.max_length,
            max_batch_tokens=max_batch_tokens,
            vocabulary_size=vocabulary_size,
            device=self.device,
        )
        return totals.results()

    def _within_memory(self, work: Callable[[int], Result]) -> Result:
        """Do some work with batches that fit.

        Raises:
            ScoringError: The model is none that texts have a probability by.
        """
        if self._no_probability is not None:
            raise ScoringError(self._no_probability)
        return self._batch.within_memory(work)

    def _keeps_contexts(self) -> bool:
        """Whether the model's state after a context is keys and values alone, which can be copied and continued."""
        stateful = getattr(self.model, "_is_stateful", False) or self.model.config.is_encoder_decoder
        return not stateful and self._caches.is_plain

    def _decode(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, stops: Sequence[StopStrings]
    ) -> list[list[int]]:
        on_card = self.device.type == "cuda"

        def last_logits(**inputs: Any) -> torch.Tensor:
            if on_card:  # which is waited for when tokens are looked at, and not before
                return self._logits(self._call, 1, {"use_cache": True, **inputs})[:, -1]
            return self._forward(1, use_cache=True, **inputs)[:, -1]

        def run(record: Record | None, at_once: bool) -> list[list[int]]:
            cache = self._caches.make(max(map(len, prompts)) + max_new_tokens)
            return decode_greedily(
                *(last_logits, prompts, max_new_tokens, stops, cache, self.device),
                look_every=_LOOK_EVERY if on_card else 1,
                look_first=1 if at_once else None,
                record=record,
            )

        started = time.perf_counter()
        answers = self._recorded_steps.decode(run, str(max_new_tokens))
        if on_card:
            self.forward_seconds += time.perf_counter() - started
        return answers

    @property
    def records_steps(self) -> bool:
        """Whether decoding on this card records its steps; found out at the first batch."""
        return self._recorded_steps.is_used

    def _can_record(self) -> bool:
        """Whether a step of decoding can be a CUDA graph: one card, and attention that takes any mask."""
        spread = getattr(self.model, "hf_device_map", None) is not None
        attention = getattr(self.model.config, "_attn_implementation", None)
        return self.device.type == "cuda" and not spread and attention == "sdpa" and self._caches.is_whole

    def _forward(self, positions: int, **inputs: Any) -> torch.Tensor:
        return self._run(self._call, positions, **inputs)

    def _run(self, call: Any, positions: int, **inputs: Any) -> torch.Tensor:
        started = time.perf_counter()
        logits = self._logits(call, positions, inputs)
        if logits.is_cuda:
            torch.cuda.synchronize(logits.device)
        self.forward_seconds += time.perf_counter() - started
        return logits

    def _logits(self, call: Any, positions: int, inputs: dict[str, Any]) -> torch.Tensor:
        if self._takes_logits_to_keep:
            inputs["logits_to_keep"] = positions
        if not self._takes_position_ids:
            inputs.pop("position_ids", None)
        logits: torch.Tensor = call(**inputs).logits
        return logits

    def _greedy_is_plain(self) -> bool:
        """Whether greedy decoding of this model is the most probable token and nothing more."""
        processing = set(self.generation_config.to_diff_dict()) - _IRRELEVANT_TO_GREEDY
        stateful = getattr(self.model, "_is_stateful", False)
        return not processing and not stateful and not self.model.config.is_encoder_decoder


def _contiguous(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last positions of a batch are no matrix as they lie, and torch then copies the head's weight for each row."""
    return tuple(states.contiguous() for states in inputs)


def _build(
    dtype: str | torch.dtype | None,
    device: torch.device,
    attention: str | None,
    device_map: str | Mapping[str, Any] | None,
    model_args: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    arrange: Arrange | None,
) -> Any:
    """A model with undefined weights; what is arranged first lies in the CPU's memory, which is taken when written."""
    first = torch.device("cpu") if arrange is not None and device_map is None else device
    model = build_uninitialised_model(config, dtype, first, attention, model_args)
    if device_map is not None:
        return spread_over_devices(model, device_map)
    if arrange is not None:
        arrange(model)
    return model


def _build_quantized(
    dtype: str | torch.dtype | None,
    device: torch.device,
    attention: str | None,
    model_args: Mapping[str, Any] | None,
    bits: Bits,
    config: Mapping[str, Any],
    _: Arrange | None,
) -> Any:
    """A model with undefined weights, of which no linear layer but the head is ever whole."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = build_uninitialised_model(config, dtype, device, attention, model_args)
    quantize_linears(model, bits, device)
    return model


def _prompt_batches(
    prompts: Mapping[int, tuple[int, ...]], max_new_tokens: int, max_batch_tokens: int
) -> Iterator[list[int]]:
    """Batches of similar length, longest first; by content where equal, not by the order of the call."""
    batch: list[int] = []
    width = 0
    for index in sorted(prompts, key=lambda index: (-len(prompts[index]), prompts[index])):
        if not batch:
            width = len(prompts[index]) + max_new_tokens
        elif (len(batch) + 1) * width > max_batch_tokens:
            yield batch
            batch, width = [], len(prompts[index]) + max_new_tokens
        batch.append(index)
    if batch:
        yield batch
