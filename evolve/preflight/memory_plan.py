"""What a worker will need in memory, from configs and headers alone, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evolve.config.machines import BackendConfig
from evolve.scoring.backends.activation_memory import stated_size, text_config
from evolve.scoring.backends.backend_options import default_batch_tokens
from evolve.scoring.backends.quantized_linear import quantized_bytes
from merge_core.execute.device_sources import BUFFER_BYTES, BUFFERS


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one worker.

    Attributes:
        live_model: the weights that compute, in the precision of the forward.
        second_copy: what candidates are written into where that is not the live model itself: vllm's staged files.
        run_models: those that are the best of earlier runs, which are merged in memory.
        whole_weight: the largest weight, where weights are held in fewer bits and whole only while they compute.
        key_value_cache: of a full batch (hf), or of one sequence as long as the model reads (vllm, which refuses to
            start with less); 0 where the config does not say.
        source_buffers: in the host's memory, through which models reach a card; not part of the total.
    """

    live_model: int
    second_copy: int
    key_value_cache: int
    whole_weight: int = 0
    run_models: int = 0
    source_buffers: int = 0

    @property
    def total(self) -> int:
        """All of it where the model computes, but for the activations of a forward."""
        return self.live_model + self.second_copy + self.whole_weight + self.key_value_cache + self.run_models


def plan_memory(
    backend: BackendConfig, config: Mapping[str, Any], parameters: int, saved_bytes: int, device: str
) -> MemoryPlan:
    """Add up what a worker holds.

    Args:
        backend: as in the search file.
        config: the merged model's config.json.
        parameters: how many it has.
        saved_bytes: its size on disk.
        device: what `device: auto` comes to, such as cpu or cuda:1.
    """
    width = 4 if backend.options(config, device).dtype == "float32" else 2
    live, whole, second = parameters * width, 0, 0
    tokens = backend.max_batch_tokens or default_batch_tokens(device)
    if backend.quantization != "none":
        live, whole = quantized_bytes(config, backend.quantization, width)
    if backend.name == "vllm":
        longest = stated_size(text_config(config), "max_position_embeddings")
        tokens = backend.model_args.get("max_model_len") or longest
        second = saved_bytes
    cache = tokens * _cache_bytes_per_token(text_config(config), width)
    buffers = 0 if device == "cpu" else BUFFERS * BUFFER_BYTES
    return MemoryPlan(live, second, cache, whole, source_buffers=buffers)


def _cache_bytes_per_token(config: Mapping[str, Any], width: int) -> int:
    """Keys and values of every layer that has any, as if all of them attended to everything."""
    layers, heads = stated_size(config, "num_hidden_layers"), stated_size(config, "num_attention_heads")
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        layers -= kinds.count("linear_attention")  # which keeps a state of one size, however long the text is
    if not layers or not heads:
        return 0
    size = stated_size(config, "head_dim") or stated_size(config, "hidden_size") // heads
    return 2 * layers * (stated_size(config, "num_key_value_heads") or heads) * size * width
