"""``MODEL+ADAPTER``: which way an adapter is folded into its base, by what its config says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.checkpoint.adapter_files import open_adapter
from merge_core.checkpoint.lora import LoraCheckpoint
from merge_core.checkpoint.peft_adapters import TAKEN_FROM_BASE, PeftCheckpoint
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.input_files import reading

# What LoRA has beside two matrices for a module's weight; PEFT folds it in.
_BY_PEFT = ("trainable_token_indices", "target_parameters", "use_qalora", "lora_bias")
# Initialisations that change the base by data or by chance, which nothing can do again.
_LOST = ("corda", "loftq", "lora_ga", "pissa_niter")
# Kinds that change no weights, or a layer's way through the model rather than its matrix.
_NO_MATRIX = (
    "PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "MULTITASK_PROMPT_TUNING",
    "POLY",
    "XLORA",
)


def adapted_checkpoint(base: Checkpoint, adapter: Path) -> Checkpoint:
    """A base model with an adapter folded in.

    Args:
        base: the model.
        adapter: directory of the adapter.

    Raises:
        MergeError: no adapter, one that is no change of matrices, or one that does not fit the base.
    """
    with reading(adapter):
        settings = open_adapter(adapter).config
        _refuse_lost(adapter, settings)
        start = settings.get("init_lora_weights")
        by_peft = (
            settings.get("peft_type", "LORA") != "LORA"
            or any(settings.get(key) for key in _BY_PEFT)
            or (isinstance(start, str) and start.startswith(TAKEN_FROM_BASE))
        )
    return PeftCheckpoint(base, adapter) if by_peft else LoraCheckpoint(base, adapter)


def _refuse_lost(adapter: Path, settings: Mapping[str, Any]) -> None:
    kind, start = settings.get("peft_type", "LORA"), settings.get("init_lora_weights")
    if kind in _NO_MATRIX:
        fix = "changes no matrix of the model, not even in PEFT. Name its base without it"
        raise MergeError(f"{adapter}: peft_type {kind}: {fix}")
    problems = ["layer_replication"] if settings.get("layer_replication") else []
    if isinstance(start, str) and start.startswith(_LOST):
        problems.append(f"init_lora_weights {start}, which changes the base")
    if problems:
        raise MergeError(f"{adapter}: {', '.join(problems)}: not supported. Merge the adapter with PEFT first")
