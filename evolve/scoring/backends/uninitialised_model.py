"""A model with the right shapes, for a merge to write its weights into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.initialization import no_init_weights

from evolve.scoring.backends.pretrained_files import known_config, model_of_config
from evolve.scoring.errors import Problem, TaskError


def build_uninitialised_model(
    config: Mapping[str, Any],
    dtype: str | torch.dtype | None,
    device: torch.device,
    attention: str | None,
    model_args: Mapping[str, Any] | None = None,
) -> Any:
    """Build a causal language model without drawing random weights.

    Its parameters are undefined; tied ones are tied, and buffers that no checkpoint holds (rotary
    frequencies) are computed.

    Args:
        config: The content of a config.json.
        dtype: Of the parameters; None is the configuration's own.
        device: Where to build it.
        attention: The attention implementation; None is transformers' choice.
        model_args: Further arguments of `AutoModelForCausalLM.from_config`.

    Raises:
        TaskError: The architecture is not known to transformers, or it takes no such argument.
    """
    settings = known_config(config)
    options = dict(model_args or {})
    if attention is not None:
        options["attn_implementation"] = attention
    if dtype is not None:
        options["dtype"] = dtype
    with device, no_init_weights():
        model = model_of_config(settings, **options)
    model.tie_weights()
    return model.requires_grad_(False)


def spread_over_devices(model: Any, device_map: str | Mapping[str, Any]) -> Any:
    """Move the parts of a model to several devices, where their parameters stay in memory that can be written.

    Args:
        model: A transformers model.
        device_map: `auto`, `balanced`, `balanced_low_0`, or the device of each part by its name.

    Raises:
        TaskError: The map is unknown, forgets a part, or leaves parts on a disk, or on the CPU beside a GPU: those
            parameters would be loaded anew for each forward.
    """
    import accelerate

    unsplit = list(getattr(model, "_no_split_modules", None) or [])
    try:
        if isinstance(device_map, str):
            memory = None
            if device_map != "auto":
                memory = accelerate.utils.get_balanced_memory(
                    model, no_split_module_classes=unsplit, low_zero=device_map == "balanced_low_0"
                )
            spread = accelerate.infer_auto_device_map(model, max_memory=memory, no_split_module_classes=unsplit)
        else:
            spread = dict(device_map)
            accelerate.utils.check_device_map(model, spread)
    except ValueError as error:
        raise TaskError(Problem(("backend", "device_map"), str(error))) from error
    places = {str(device) for device in spread.values()}
    if "disk" in places or ("cpu" in places and len(places) > 1):
        message = (
            f"it puts parts of the model on {', '.join(sorted(places))}, and candidates are written into parameters "
            "that must all stay on GPUs. Use more GPUs, or dtype: bfloat16."
        )
        raise TaskError(Problem(("backend", "device_map"), message))
    return accelerate.dispatch_model(model, device_map=spread, force_hooks=len(places) > 1)


def is_spread(model: Any) -> bool:
    """Whether a model is the work of `spread_over_devices`."""
    return getattr(model, "hf_device_map", None) is not None
