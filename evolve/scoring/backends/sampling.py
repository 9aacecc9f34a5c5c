"""Everything but plain greedy decoding, through `model.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.errors import ScoringError
from evolve.scoring.language_model import GenerationSettings


class _StopCriterion(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends each row by its own stop strings.

    Attributes:
        lengths: how long each row's answer is, None while it goes on.
    """

    def __init__(self, stop: StopStrings, prompt_length: int, rows: int) -> None:
        self._stop = stop
        self._prompt_length = prompt_length
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        generated = input_ids[:, self._prompt_length :].tolist()
        for row, tokens in enumerate(generated):
            if self.lengths[row] is None and self._stop.ends(tokens):
                self.lengths[row] = len(tokens)
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


def generate_with_transformers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[int, ...]],
    settings: GenerationSettings,
    stop: StopStrings,
    seed: int,
) -> list[list[int]]:
    """Continue each prompt with `model.generate`, from a fixed seed and leaving the global one alone.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        prompts: Token ids.
        settings: Of the generation.
        stop: Ends an answer early.
        seed: Of the random numbers.

    Returns:
        The generated token ids of each prompt, without what fills a row that ended before others.

    Raises:
        ScoringError: The model's probabilities are not finite.
    """
    longest = max(map(len, prompts))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    padding = 0 if padding is None else padding
    inputs = torch.tensor([(padding,) * (longest - len(tokens)) + tuple(tokens) for tokens in prompts])
    mask = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in prompts])
    options = dict(settings.options)
    options.setdefault("do_sample", bool(options.get("temperature")))
    if not options["do_sample"]:
        options.pop("temperature", None)
    beams = options.get("num_beams") or 1
    criterion = _StopCriterion(stop, longest, len(prompts))  # not of beams, which move between rows
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            output = model.generate(
                input_ids=inputs.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=settings.max_new_tokens,
                pad_token_id=padding,
                stopping_criteria=transformers.StoppingCriteriaList([criterion] if beams == 1 else []),
                use_cache=True,
                **{**options, "trust_remote_code": False},
            )
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            raise ScoringError(f"the model's probabilities are not finite while sampling: {error}") from error
    lengths = criterion.lengths if beams == 1 else [_end(tokens, stop) for tokens in output[:, longest:].tolist()]
    return [tokens[:length] for tokens, length in zip(output[:, longest:].tolist(), lengths, strict=True)]


def _end(tokens: Sequence[int], stop: StopStrings) -> int:
    return next((place for place, token in enumerate(tokens, 1) if token in stop.end_tokens), len(tokens))
