"""The ``README.md`` of an extracted adapter."""

from __future__ import annotations

import yaml

from merge_core.recipe.model_reference import ModelReference, hub_ids


def adapter_card(model: ModelReference, base: ModelReference, name: str, error: float) -> str:
    """Write the card of an adapter: front matter that the hub reads, where it is from, how near it is.

    Args:
        model: what it was extracted from.
        base: what it is for.
        name: its title.
        error: of all updates together, relative, in the Frobenius norm.
    """
    known = hub_ids(base)
    front = ({"base_model": known[0], "base_model_relation": "adapter"} if known else {}) | {
        "library_name": "peft",
        "tags": ["lora", "peft"],
    }
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)}---\n# {name}\n\n"
        f"What `{model}` differs from `{base}` in, extracted as a LoRA adapter. Its updates differ from the model's by "
        f"{error:.4f} of their norm (Frobenius).\n"
    )
