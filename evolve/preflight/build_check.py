"""Whether the live model of a search can be built: tried on the meta device, where tensors have no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evolve.config.machines import BackendConfig
from evolve.scoring import Scorer, TaskError, runs_user_code
from evolve.scoring.backends.text_probability import why_texts_have_none
from evolve.scoring.backends.uninitialised_model import build_uninitialised_model
from merge_core import MergeError, MergePlan, live_parameters
from merge_core.errors import Problem
from merge_core.execute.live_parameters import live_names


def check_live_model(backend: BackendConfig, plan: MergePlan, scorers: Sequence[Scorer] = ()) -> None:
    """Build the live model of a search and match its parameters with what a candidate makes.

    An engine that builds models of its own, as vllm does, has to know the architecture itself.

    Args:
        backend: as in the search file.
        plan: of a candidate.
        scorers: what will be asked of it.

    Raises:
        TaskError: transformers cannot build the model, or a task asks for the probability of a text by a model that
            gives none.
        MergeError: the model has parameters that no candidate makes, or lacks some.
    """
    if backend.name == "hf":
        model = build_uninitialised_model(plan.config, None, torch.device("meta"), None)
        reason = why_texts_have_none(model.config)
        if reason is not None and not all(map(runs_user_code, scorers)):
            raise TaskError(reason)
        try:
            live_names(plan, live_parameters(model))
        except MergeError as error:
            found = error.problems[0].message
            message = f'the config.json of "{plan.template}" describes another model than its tensors are: {found}'
            raise MergeError(Problem(("recipe",), message)) from error
