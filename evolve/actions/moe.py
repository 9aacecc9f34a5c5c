"""`evolve moe` from its file to a model: the base model runs on the prompts, where their hidden states are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evolve.report.progress_bar import progress_bar
from evolve.scoring.backends.pretrained_files import load_model
from merge_core import Checkpoint, MergeError
from merge_core.toolbox.gates import HiddenStates
from merge_core.toolbox.moe import MoeResult, make_mixture


def make_moe(file: Path, output: Path, *, quiet: bool = False, **options: Any) -> MoeResult:
    """`merge_core.toolbox.moe.make_mixture`, showing on stderr what is done.

    Args:
        file, output, options: as there.
        quiet: show nothing.
    """
    with progress_bar("writing", "none" if quiet else "bar") as report:
        return make_mixture(file, output, hidden_states=last_hidden_states, progress=report, **options)


def last_hidden_states(base: Checkpoint) -> HiddenStates:
    """What enters each layer of a model at the last of some tokens, in float32.

    Raises:
        MergeError: a model with an adapter, which is not on the disk as one.
    """
    if len(base.directories) > 1:
        raise MergeError(f"base_model: {base.directory} has an adapter, and cannot be run so. Merge both first")
    model = load_model(base.directory, torch.float32).eval()
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    @torch.inference_mode()
    def run(ids: Sequence[int]) -> Tensor:
        if isinstance(longest, int) and len(ids) > longest:  # of what follows the model knows nothing
            raise MergeError(f"a prompt has {len(ids)} tokens, of which {base.directory} reads {longest}. Shorten it")
        states = model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False).hidden_states
        return torch.stack([state[0, -1] for state in states[:-1]]).clone()

    return run
