"""A LoRA adapter in PEFT's format, as it grows: tensors under PEFT's names, and the config that says how they apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from merge_core.json_files import write_json


@dataclass(slots=True)
class PeftAdapter:
    """Updates of modules, and modules that are kept whole.

    Attributes:
        transposed: whether the matrices of layers are [inputs, outputs].
        ranks: module → rank, of those with an update.
        whole: modules that are kept whole.
        has_biases: whether a module with an update has a bias of its own, too.
        tensors: what PEFT reads, by its names.
    """

    transposed: bool
    ranks: dict[str, int] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    has_biases: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def add_update(self, module: str, down: Tensor, up: Tensor, *, is_embedding: bool) -> None:
        """Add the update ``up @ down``, or its transpose for an embedding, whose matrix PEFT sees turned."""
        names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
        for name, part in zip(names, (down, up), strict=True):
            self.tensors[f"base_model.model.{module}.{name}"] = part.to("cpu").contiguous()
        self.ranks[module] = down.shape[0]

    def add_bias(self, module: str, bias: Tensor) -> None:
        """Add the bias of a module that has an update."""
        self.tensors[f"base_model.model.{module}.base_layer.bias"] = bias.clone()
        self.has_biases = True

    def keep_whole(self, module: str, parts: dict[str, Tensor]) -> None:
        """Keep a module as it is, by the last parts of its tensors' names."""
        for part, tensor in parts.items():
            self.tensors[f"base_model.model.{module}.{part}"] = tensor.clone()
        self.whole.append(module)

    def config(self, base: str, all_modules: Iterable[str], task: str | None) -> dict[str, Any]:
        """``adapter_config.json``: the scale of every update is 1.

        Args:
            base: the model that it adapts.
            all_modules: of that model.
            task: PEFT's name for what the model is for.
        """
        rank = Counter(self.ranks.values()).most_common(1)[0][0]
        others = {module: own for module, own in self.ranks.items() if own != rank}
        return {
            "peft_type": "LORA",
            "task_type": task,
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": self._target_names(all_modules),
            "modules_to_save": self.whole or None,
            "bias": "lora_only" if self.has_biases else "none",
            "fan_in_fan_out": self.transposed,
            "lora_dropout": 0.0,
            "inference_mode": True,
        }

    def _target_names(self, all_modules: Iterable[str]) -> list[str]:
        """The last part of a module's name, as people do, where all that have it are meant; else the full name."""
        mixed = {_last(module) for module in all_modules if module not in self.ranks}
        return sorted({module if _last(module) in mixed else _last(module) for module in self.ranks})

    def write(self, directory: Path, config: dict[str, Any]) -> None:
        """Write weights and config."""
        save_file(self.tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(directory / "adapter_config.json", config)  # last: without it, it is no adapter


def _last(module: str) -> str:
    return module.rpartition(".")[2]
