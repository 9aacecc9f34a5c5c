"""``MODEL+ADAPTER``: a LoRA adapter folded into its base model, tensor by tensor, as the tensors are read.

``W' = W + s·B·A`` with ``s = α/r``, or ``α/√r`` for rsLoRA (https://arxiv.org/abs/2106.09685, 2312.03732); DoRA scales
every row of that to its learned magnitude (https://arxiv.org/abs/2402.09353). The format is that of PEFT:
``adapter_config.json`` beside ``adapter_model.safetensors`` or ``adapter_model.bin``.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merge_core.bounds import LARGEST_NUMBER
from merge_core.checkpoint.adapter_files import AdaptedCheckpoint, open_adapter
from merge_core.checkpoint.layout import is_head, without_wrappers
from merge_core.checkpoint.patterns import matches
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError, and_more, shown
from merge_core.input_files import reading

_PART = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.default)?(\.weight)?$")


@dataclass(frozen=True, slots=True)
class _Update:
    """What an adapter does to one tensor: names of its parts in the adapter, and the scale ``s``."""

    down: str
    up: str
    scale: float
    magnitude: str | None
    transposed: bool


class LoraCheckpoint(AdaptedCheckpoint):
    """A base model with a LoRA adapter folded in.

    Raises:
        MergeError: something that is no LoRA adapter, or one whose tensors do not fit the base.
    """

    def __init__(self, base: Checkpoint, adapter: Path) -> None:
        with reading(adapter):
            self._fold(base, adapter)

    def _fold(self, base: Checkpoint, adapter: Path) -> None:
        self._base = base
        self._adapter = open_adapter(adapter)
        settings = self._adapter.config
        names = {without_wrappers(name): name for name in base.tensors}
        parts: dict[str, dict[str, str]] = defaultdict(dict)
        replaced: dict[str, str] = {}
        unknown = []
        for stored in self._adapter.tensors:
            own = stored.removeprefix("base_model.model.")
            match = _PART.search(own)
            module = own[: match.start()] if match else own
            module = module.replace(".base_layer", "").replace(".modules_to_save", "").replace(".default", "")
            wanted = f"{module}.weight" if match else module
            name = wanted if wanted in base.tensors else names.get(without_wrappers(wanted))
            if name is None and match is None and is_head(wanted):
                name = wanted  # a head of its own where the base has its embedding for a head
            if name is None or ".lora_" in module:
                unknown.append(stored)
            elif match is None:
                replaced[name] = stored
            else:
                parts[name][match.group(1)] = stored
        if unknown:
            raise MergeError(
                f"{adapter}: the base {base.directory} has nothing for {and_more(unknown)}. "
                f"Name the base it was made for{_base_hint(settings)}"
            )
        self._replaced = replaced
        tensors = dict(base.tensors)
        for name, stored in replaced.items():
            tensors[name] = self._adapter.tensors[stored]
        self._folded = self._updates = {
            name: self._update(name, tensors[name].shape, found) for name, found in parts.items()
        }
        config = _adapted_config(base, tensors, replaced)
        super().__init__(base.directory, config, tensors, base.trust_remote_code)

    def read(self, name: str) -> Tensor:
        """Read a tensor, the adapter folded in."""
        stored = self._replaced.get(name)
        # An embedding that is adapted is stored whole too, in case it was resized.
        weight = self._base.read(name) if stored is None else self._adapter.read(stored)
        update = self._updates.get(name)
        if update is None:
            return weight
        down, up = (self._adapter.read(part).to(torch.float32) for part in (update.down, update.up))
        delta = (up @ down).mul_(update.scale)
        if update.transposed:
            delta = delta.T
        folded = weight.to(torch.float32) + delta
        if update.magnitude is not None:
            # DoRA's norms are over the input features, which transposed weights have in their rows.
            axis = 0 if update.transposed else 1
            magnitude = self._adapter.read(update.magnitude).to(torch.float32).view(-1).unsqueeze(axis)
            folded *= magnitude / folded.norm(dim=axis, keepdim=True)
        return folded.contiguous()

    def _update(self, name: str, shape: tuple[int, ...], parts: Mapping[str, str]) -> _Update:
        where = f"{self._adapter.directory}: {name}"
        embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
        down, up = (parts.get(f"lora_embedding_{side}" if embedding else f"lora_{side}") for side in "AB")
        if down is None or up is None:
            raise MergeError(f"{where}: only one half of the update is there. Fetch the adapter again")
        magnitude = parts.get("lora_magnitude_vector")
        if embedding and magnitude is not None:
            raise MergeError(f"{where}: DoRA on an embedding is not supported. Merge the adapter with PEFT first")
        headers = self._adapter.tensors
        shapes = headers[down].shape, headers[up].shape
        if any(len(part) != 2 for part in shapes) or shapes[0][0] != shapes[1][1]:
            raise MergeError(
                f"{where}: parts of shape {list(shapes[0])} and {list(shapes[1])}, needed are [r, inputs] and "
                "[outputs, r]. Merge the adapter with PEFT first"
            )
        settings = self._adapter.config
        transposed = embedding or bool(settings.get("fan_in_fan_out"))
        made = (shapes[0][1], shapes[1][0]) if transposed else (shapes[1][0], shapes[0][1])
        if made != shape:
            raise MergeError(
                f"{where}: the adapter changes a {list(made)} matrix, the base {self._base.directory} has "
                f"{list(shape)}. Name the base it was made for" + _base_hint(settings)
            )
        rank = shapes[0][0]
        if rank == 0:
            raise MergeError(f"{where}: the update has rank 0, so it is none. Fetch the adapter again")
        if magnitude is not None and headers[magnitude].count != made[0]:
            found = list(headers[magnitude].shape)
            raise MergeError(f"{where}: a magnitude of shape {found}, needed is [{made[0]}]. Fetch the adapter again")
        alpha = _pattern_value(settings.get("alpha_pattern"), name, settings.get("lora_alpha", rank))
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= LARGEST_NUMBER:
            raise MergeError(f"{where}: lora_alpha: expected a number, got {shown(alpha)}. Fetch the adapter again")
        scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        return _Update(down, up, scale, magnitude, transposed)


def _pattern_value(patterns: Any, name: str, default: Any) -> Any:
    """A setting by module, as PEFT finds it: the first pattern that matches the end of the module's name."""
    if patterns is None:
        return default
    if not isinstance(patterns, dict):
        raise TypeError("alpha_pattern: expected a map from patterns to numbers")
    module = name.removesuffix(".weight")
    for pattern, value in patterns.items():
        if matches(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _adapted_config(
    base: Checkpoint, tensors: Mapping[str, TensorHeader], replaced: Mapping[str, str]
) -> dict[str, Any]:
    config = dict(base.config)
    for name in replaced:
        if is_head(name) and name not in base.tensors:
            config["tie_word_embeddings"] = False
        old = base.tensors.get(name)
        if (
            old is not None
            and len(old.shape) == 2
            and config.get("vocab_size") == old.shape[0] != tensors[name].shape[0]
        ):
            config["vocab_size"] = tensors[name].shape[0]
    return config


def _base_hint(settings: Mapping[str, Any]) -> str:
    name = settings.get("base_model_name_or_path")
    return f": {name}" if name else ""
