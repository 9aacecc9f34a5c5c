"""Which models a text has a probability by: those whose tokens see nothing of what comes after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evolve.scoring.backends.activation_memory import text_config


def why_texts_have_none(config: Mapping[str, Any]) -> str | None:
    """Why no text has a probability by a model; None where texts have one.

    Args:
        config: Of the model, with what its config.json leaves out.
    """
    if text_config(config).get("use_bidirectional_attention") not in (True, "all"):
        return None
    return (
        "config.json: with use_bidirectional_attention tokens attend to those after them, so no text has a "
        "probability. Score the model's vectors with a python: task"
    )
