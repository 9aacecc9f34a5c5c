"""The modules that a model has in transformers: what an adapter for it changes, by their names there.

Checkpoints name tensors as the release did that saved them, with the prefix of the whole model or without.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from merge_core.checkpoint.layout import without_wrappers


@dataclass(frozen=True, slots=True)
class LiveModules:
    """Modules that have tensors of their own.

    Attributes:
        kinds: name → class.
        names: all names of modules, of those without tensors too.
        bare: name without prefixes of the whole model → names.
    """

    kinds: Mapping[str, type[nn.Module]]
    names: tuple[str, ...]
    bare: Mapping[str, list[str]]

    def name_of(self, module: str) -> str | None:
        """The name that a checkpoint's module has here; None where none is known to be it."""
        if module in self.kinds:
            return module
        alike = self.bare.get(without_wrappers(module), [])
        return alike[0] if len(alike) == 1 else None

    def is_matrix(self, module: str) -> bool:
        """Whether LoRA adds to a module's weight: it is a linear layer, GPT-2's form of one, or an embedding."""
        from transformers.pytorch_utils import Conv1D

        return issubclass(self.kinds[module], (nn.Linear, nn.Embedding, Conv1D))


def live_modules(config: Mapping[str, Any]) -> LiveModules | None:
    """Build a model on the meta device, where nothing has data, and list its modules.

    Args:
        config: the content of its config.json.

    Returns:
        None for a model that transformers cannot build without code of the model's own.

    Raises:
        ValueError: its config is none of that model; transformers raises others, too.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from transformers.initialization import no_init_weights

    kind = config.get("model_type")
    named = (getattr(transformers, str(name), None) for name in config.get("architectures") or ())
    models = (found for found in named if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel))
    architecture: Any = next(models, None)
    if architecture is None or kind not in transformers.CONFIG_MAPPING:
        return None
    content = {key: _with_floats(value) for key, value in config.items() if key not in ("model_type", "auto_map")}
    try:
        settings = transformers.CONFIG_MAPPING[kind](**content)
    except StrictDataclassError as error:
        raise ValueError(f"makes no sense: {error}") from error
    with torch.device("meta"), no_init_weights():
        model: nn.Module = architecture(settings)
    names = tuple(name for name, _ in model.named_modules(remove_duplicate=False) if name)
    owners = dict.fromkeys(tensor.rpartition(".")[0] for tensor in model.state_dict())
    bare: dict[str, list[str]] = defaultdict(list)
    for name in owners:
        bare[without_wrappers(name)].append(name)
    return LiveModules({name: type(model.get_submodule(name)) for name in owners}, names, bare)


def _with_floats(value: Any) -> Any:
    """Numbers that JSON has no word for are written as ``{"__float__": "Infinity"}``."""
    if isinstance(value, Mapping):
        return float(value["__float__"]) if "__float__" in value else {k: _with_floats(v) for k, v in value.items()}
    return [_with_floats(entry) for entry in value] if isinstance(value, list) else value
