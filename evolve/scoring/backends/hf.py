"""A live transformers model that is scored again and again while its weights change in place."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from evolve.scoring.backends.activation_memory import plan_micro_batch, text_config
from evolve.scoring.backends.answer_gradient import add_answer_gradient
from evolve.scoring.backends.backend_options import default_batch_tokens
from evolve.scoring.backends.batch_size import BatchSize, CardMemory
from evolve.scoring.backends.checkpointing import checkpointed
from evolve.scoring.backends.continuation_scoring import Totals, score_continuations
from evolve.scoring.backends.engine_backend import EngineBackend, Pair
from evolve.scoring.backends.generation import Generation, prompt_batches
from evolve.scoring.backends.kv_cache import CacheFactory
from evolve.scoring.backends.model_builder import Arrange, ModelBuilder
from evolve.scoring.backends.pretrained_files import load_generation_config, load_tokenizer
from evolve.scoring.backends.quantized_linear import Bits, is_quantized
from evolve.scoring.backends.request_preparation import by_settings, context_length
from evolve.scoring.backends.shared_contexts import find_shared_contexts, score_shared_contexts
from evolve.scoring.backends.text_probability import why_texts_have_none
from evolve.scoring.backends.timed_forward import Stopwatch, TimedForward
from evolve.scoring.backends.uninitialised_model import is_spread
from evolve.scoring.errors import ScoringError, TaskError
from evolve.scoring.language_model import PreparedGeneration
from evolve.scoring.targets import Target

Result = TypeVar("Result")


class HFBackend(EngineBackend):
    """Runs prepared requests on a language model of transformers; of an encoder the vectors can be asked for.

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
    _builder: ModelBuilder | None = None
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
        spread = is_spread(model)
        self.device = torch.device(device if device is not None and not spread else model.device)
        self._compiles = compile
        self._stopwatch = Stopwatch()
        grows = self.device.type == "cuda" and not spread and max_batch_tokens is None
        self._first_batch_tokens = max_batch_tokens or default_batch_tokens(self.device.type)
        self._batch = BatchSize(self._first_batch_tokens, CardMemory(self.device) if grows else None)
        self._seed = seed
        self._take(model if spread or is_quantized(model) else model.to(self.device))

    @property
    def forward_seconds(self) -> float:
        """Time spent in the model so far."""
        return self._stopwatch.seconds

    def _take(self, model: Any) -> None:
        """Run this model from now on."""
        self.model: Any = model.eval()
        if (head := self.model.get_output_embeddings()) is not None:
            head.register_forward_pre_hook(_contiguous)
        self._sentences: Any = None
        self._caches = CacheFactory(self.model.config)
        self._forward: Any = TimedForward(self.model, self._stopwatch, compile=self._compiles)
        self._generation: Any = Generation(
            self.model, self.tokenizer, self._forward, self._caches, self.device, self._stopwatch, self._seed
        )
        self._micro_batch = plan_micro_batch(
            text_config(self.model.config.to_dict()),
            next(self.model.parameters()).element_size(),
            sum(parameter.numel() for parameter in self.model.parameters()),
            min(self._first_batch_tokens, self._batch.tokens),
        )
        self._no_probability = why_texts_have_none(self.model.config)

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
        builder = ModelBuilder(dtype, torch.device(device), attn_implementation, device_map, model_args, quantization)
        model = builder.build(config, arrange)
        if (generation := load_generation_config(tokenizer_directory)) is not None:
            model.generation_config = generation
        tokenizer = load_tokenizer(tokenizer_directory)
        backend = cls(model, tokenizer, device, max_batch_tokens, **options)
        backend._builder = builder
        backend._directory = model_directory
        return backend

    def reshape(self, config: Mapping[str, Any], arrange: Arrange) -> bool:
        """Go on with a model of another depth, with the same tokenizer.

        Args:
            config: As in `from_config`; all but the layers is as it was.
            arrange: As there.

        Returns:
            Whether it could: a model that was not built here, is quantised, or lies on several devices, cannot be.
        """
        if self._builder is None or self._builder.quantization is not None or is_spread(self.model):
            return False
        generation = self.generation_config
        self._release()  # first, so that what the new one does not take is given back
        model = self._builder.build(config, arrange)
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
        self._release()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _release(self) -> None:
        self.model = self._forward = self._generation = self._sentences = None

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
        decodes = self._generation.decodes_greedily()
        greedy: dict[int, list[int]] = {}  # most new tokens -> requests, whatever ends each
        for settings, members in by_settings(requests).items():
            if decodes and settings.is_greedy:
                greedy.setdefault(settings.max_new_tokens, []).extend(members)
                continue
            stop = self.stop_strings(settings)
            for batch, prompts in self._batches(requests, members, max_batch_tokens):
                written = self._generation.sample(prompts, settings, stop, batch[0])
                for index, tokens in zip(batch, written, strict=True):
                    answers[index] = tokens
        for max_new_tokens, members in greedy.items():
            for batch, prompts in self._batches(requests, members, max_batch_tokens):
                stops = [self.stop_strings(requests[index].settings) for index in batch]
                written = self._generation.decode(prompts, max_new_tokens, stops)
                for index, tokens in zip(batch, written, strict=True):
                    answers[index] = tokens
        return answers

    def _batches(
        self, requests: Sequence[PreparedGeneration], members: Sequence[int], max_batch_tokens: int
    ) -> Iterator[tuple[list[int], list[tuple[int, ...]]]]:
        """Batches of requests with the same longest answer: their positions, and their prompts as far as they fit."""
        settings = requests[members[0]].settings
        room = self.prompt_room(settings)
        prompts = {index: requests[index].tokens[-room:] for index in members}
        for batch in prompt_batches(prompts, settings.max_new_tokens, max_batch_tokens):
            texts = [prompts[index] for index in batch]
            self._batch.saw(len(texts) * (max(map(len, texts)) + settings.max_new_tokens))
            yield batch, texts

    def add_answer_gradient(self, targets: Sequence[Target], weights: Sequence[float], exponent: float) -> list[float]:
        """Add the gradient of the targets' loss to the parameters that require one; see `answer_gradient`.

        Returns:
            The probability of each target.

        Raises:
            ScoringError: A probability is not a number.
        """
        with checkpointed(self.model) if self._micro_batch.checkpointing else contextlib.nullcontext():
            return add_answer_gradient(
                lambda tokens, positions: self._forward(
                    positions, differentiable=True, input_ids=tokens, use_cache=False
                )[:, -positions:],
                targets,
                weights,
                exponent,
                max_length=self.max_length,
                max_batch_tokens=self._micro_batch.tokens,
                vocabulary_size=self.model.get_input_embeddings().weight.shape[0],
                device=self.device,
            )

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """As of an `EngineBackend`."""
        return self._within_memory(lambda tokens: self._score_within(pairs, tokens))

    def _score_within(self, pairs: Sequence[Pair], max_batch_tokens: int) -> list[tuple[float, bool]]:
        def logits(tokens: torch.Tensor, positions: int) -> torch.Tensor:
            self._batch.saw(tokens.numel())
            found: torch.Tensor = self._forward(positions, input_ids=tokens, use_cache=False)
            return found[:, -positions:]

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

    @property
    def records_steps(self) -> bool:
        """Whether decoding on this card records its steps; found out at the first batch."""
        return bool(self._generation.records_steps)


def _contiguous(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last positions of a batch are no matrix as they lie, and torch then copies the head's weight for each row."""
    return tuple(states.contiguous() for states in inputs)
