"""A model with the right shapes, for a merge to write its weights into."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.initialization import no_init_weights

from tasks.errors import TaskError, did_you_mean


def build_uninitialised_model(
    config: Mapping[str, Any], dtype: str | torch.dtype | None, device: torch.device, attention: str | None
) -> Any:
    """Build a causal language model without drawing random weights.

    Its parameters are undefined; tied ones are tied, and buffers that no checkpoint holds (rotary
    frequencies) are computed.

    Args:
        config: The content of a config.json.
        dtype: Of the parameters; None is the configuration's own.
        device: Where to build it.
        attention: The attention implementation; None is transformers' choice.

    Raises:
        TaskError: The architecture is not known to transformers.
    """
    settings = dict(config)
    model_type = str(settings.pop("model_type", ""))
    known = transformers.CONFIG_MAPPING
    if model_type not in known:
        raise TaskError(
            f"config.json: model_type {model_type!r} is not known to transformers {transformers.__version__}."
            f"{did_you_mean(model_type, list(known.keys()))} A newer transformers may know it."
        )
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if dtype is not None:
        options["dtype"] = dtype
    try:
        with device, no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(known[model_type](**settings), **options)
    except ValueError as error:
        raise TaskError(f"config.json: no causal language model can be built from it: {error}") from error
    model.tie_weights()
    return model.requires_grad_(False)
