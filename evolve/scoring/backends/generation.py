"""Answers in tokens: by our own greedy loop where that is the same, else through `model.generate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from evolve.scoring.backends.greedy_decoding import Record, decode_greedily
from evolve.scoring.backends.kv_cache import CacheFactory
from evolve.scoring.backends.recorded_steps import RecordedSteps, record_graph
from evolve.scoring.backends.sampling import generate_with_transformers
from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.backends.timed_forward import Stopwatch, TimedForward
from evolve.scoring.backends.uninitialised_model import is_spread
from evolve.scoring.language_model import GenerationSettings

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


class Generation:
    """Continues batches of prompts.

    Our own loop (`greedy_decoding`) writes the tokens that `model.generate` would. Sampling, beams, and models whose
    cache is more than keys and values go through `model.generate`.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        forward: Runs the model.
        caches: Makes its key-value caches.
        device: Where its inputs go.
        stopwatch: Counts what the forward does not.
        seed: Of sampled answers.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        forward: TimedForward,
        caches: CacheFactory,
        device: torch.device,
        stopwatch: Stopwatch,
        seed: int,
    ) -> None:
        self._model, self._tokenizer, self._forward, self._caches = model, tokenizer, forward, caches
        self._device, self._stopwatch, self._seed = device, stopwatch, seed
        self._on_card = device.type == "cuda"
        self._recorded_steps = RecordedSteps(record_graph if self._can_record() else None)

    @property
    def records_steps(self) -> bool:
        """Whether decoding on this card records its steps; found out at the first batch."""
        return self._recorded_steps.is_used

    def decodes_greedily(self) -> bool:
        """Whether greedy decoding of this model is the most probable token and nothing more, as our loop writes it."""
        if not self._caches.is_plain or getattr(self._model, "_is_stateful", False):
            return False
        processing = set(self._model.generation_config.to_diff_dict()) - _IRRELEVANT_TO_GREEDY
        return not processing and not self._model.config.is_encoder_decoder

    def decode(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, stops: Sequence[StopStrings]
    ) -> list[list[int]]:
        """Continue each prompt of a batch greedily, in our own loop.

        Args:
            prompts: Token ids.
            max_new_tokens: Of each answer, at most.
            stops: End the answer to each prompt.

        Raises:
            ScoringError: The model's logits are not finite.
        """

        def last_logits(**inputs: Any) -> torch.Tensor:
            # A card is waited for when tokens are looked at, and not before.
            forward = self._forward.launch if self._on_card else self._forward
            return forward(1, use_cache=True, **inputs)[:, -1]

        def run(record: Record | None, at_once: bool) -> list[list[int]]:
            cache = self._caches.make(max(map(len, prompts)) + max_new_tokens)
            return decode_greedily(
                *(last_logits, prompts, max_new_tokens, stops, cache, self._device),
                look_every=_LOOK_EVERY if self._on_card else 1,
                look_first=1 if at_once else None,
                record=record,
            )

        if not self._on_card:
            return self._recorded_steps.decode(run, str(max_new_tokens))
        with self._stopwatch.running():
            return self._recorded_steps.decode(run, str(max_new_tokens))

    def sample(
        self, prompts: Sequence[tuple[int, ...]], settings: GenerationSettings, stop: StopStrings, number: int
    ) -> list[list[int]]:
        """Continue each prompt of a batch through `model.generate`.

        Args:
            prompts: Token ids.
            settings: Of all of them.
            stop: Ends an answer.
            number: Of the batch, which draws its own answers: an item that is asked several times may be in several.

        Raises:
            ScoringError: The model's probabilities are not finite.
        """
        with self._stopwatch.running():
            seed = self._seed + number
            return generate_with_transformers(self._model, self._tokenizer, prompts, settings, stop, seed)

    def _can_record(self) -> bool:
        """Whether a step of decoding can be a CUDA graph: one card, and attention that takes any mask."""
        attention = getattr(self._model.config, "_attn_implementation", None)
        return self._on_card and not is_spread(self._model) and attention == "sdpa" and self._caches.is_whole


def prompt_batches(
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
