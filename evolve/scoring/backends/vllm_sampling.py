"""transformers' generation options in vLLM's words."""

from __future__ import annotations

from typing import Any

from evolve.scoring.backends.stop_strings import StopStrings
from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import GenerationSettings

# transformers' generation options → vLLM's.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
}
_SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p"})
# Options that change no token here, whatever they are set to.
_WITHOUT_EFFECT = frozenset(
    """
    bos_token_id eos_token_id pad_token_id decoder_start_token_id max_length max_new_tokens do_sample use_cache
    cache_implementation transformers_version _from_model_config return_dict_in_generate output_attentions
    output_hidden_states output_scores output_logits
    """.split()  # noqa: SIM905
)


def sampling_arguments(settings: GenerationSettings, stop: StopStrings, generation_config: Any) -> dict[str, Any]:
    """The arguments of `vllm.SamplingParams` that do what `transformers.generate` does.

    Args:
        settings: Of the request.
        stop: Its stop strings and end tokens.
        generation_config: The model's own, for what the request leaves open.

    Raises:
        TaskError: vLLM has no such option.
    """
    own = {name: value for name, value in settings.options if value is not None}
    options = generation_config.to_diff_dict() | own
    sampled = own.get("do_sample", bool(own.get("temperature")))
    if (options.pop("num_beams", 1) or 1) != 1:
        raise TaskError("generation: vllm has no num_beams here. Leave it out, or set backend: {name: hf}.")
    unknown = sorted(options.keys() - _OPTIONS.keys() - _WITHOUT_EFFECT)
    if unknown:
        raise TaskError(
            f"generation: vllm has no option {', '.join(unknown)}. Leave it out, or set backend: {{name: hf}}."
        )
    arguments = {
        _OPTIONS[name]: value
        for name, value in options.items()
        if name in _OPTIONS and (sampled or name not in _SAMPLING)
    }
    if not sampled:
        arguments["temperature"] = 0.0
    return {
        **arguments,
        "max_tokens": settings.max_new_tokens,
        # In a thought no stop text ends anything, which the engine cannot be told: the answer is cut afterwards.
        "stop": [text for text in settings.stop if text] if settings.thinking is None else [],
        "stop_token_ids": sorted(stop.end_tokens),
        "skip_special_tokens": False,
        "logprobs": 0,  # of the tokens written: shows whether logits are finite
    }
