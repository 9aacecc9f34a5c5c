"""Which models a text has a probability by: those whose tokens see nothing of what comes after them."""

from __future__ import annotations

from typing import Any

from evolve.scoring.backends.activation_memory import text_config
from evolve.scoring.backends.pretrained_files import is_encoder


def why_texts_have_none(config: Any) -> str | None:
    """Why no text has a probability by a model; None where texts have one.

    Args:
        config: Of the model, as transformers has it.
    """
    if is_encoder(config):
        return (
            f"config.json: {config.model_type} is an encoder, which writes no text and gives none a probability. "
            "Score its vectors with a python: task"
        )
    if text_config(config.to_dict()).get("use_bidirectional_attention") not in (True, "all"):
        return None
    return (
        "config.json: with use_bidirectional_attention tokens attend to those after them, so no text has a "
        "probability. Score the model's vectors with a python: task"
    )
