"""The merge engine. It knows nothing of `evolve`.

>>> from merge_core import Recipe, merge
>>> # merge("recipe.yml", "merged-model")
"""

from __future__ import annotations

from merge_core.checkpoint.fingerprint import fingerprint
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError, Problem
from merge_core.execute.job_runner import run_job
from merge_core.execute.live_gradient import LiveGradient, plan_parameters
from merge_core.execute.live_parameters import live_parameters
from merge_core.execute.shared_parameters import repeated_outputs
from merge_core.execute.to_disk import MergeResult, merge
from merge_core.execute.to_live_model import LiveMerge, LiveMergeReport, live_fingerprint
from merge_core.methods import (
    METHODS,
    REQUIRED,
    Derivative,
    Method,
    MethodInputs,
    Parameter,
    ParameterSlot,
    SearchRange,
)
from merge_core.plan.merged_config import layer_settings
from merge_core.plan.plan import MergePlan, build_plan
from merge_core.plan.stacked_plan import plan_recipes
from merge_core.plan.tensor_job import JobInput, TensorJob
from merge_core.recipe.documents import documents_of
from merge_core.recipe.model_reference import ModelReference, resolve_model
from merge_core.recipe.recipe import Recipe, dump_recipes, load_recipes, parse_recipes
from merge_core.vocabulary.tokenizer_files import OutputTokenizer

__all__ = [
    "METHODS",
    "REQUIRED",
    "Checkpoint",
    "Derivative",
    "JobInput",
    "LiveGradient",
    "LiveMerge",
    "LiveMergeReport",
    "MergeError",
    "MergePlan",
    "MergeResult",
    "Method",
    "MethodInputs",
    "ModelReference",
    "OutputTokenizer",
    "Parameter",
    "ParameterSlot",
    "Problem",
    "Recipe",
    "SearchRange",
    "TensorHeader",
    "TensorJob",
    "build_plan",
    "documents_of",
    "dump_recipes",
    "fingerprint",
    "layer_settings",
    "live_fingerprint",
    "live_parameters",
    "load_recipes",
    "merge",
    "open_checkpoints",
    "parse_recipes",
    "plan_parameters",
    "plan_recipes",
    "repeated_outputs",
    "resolve_model",
    "run_job",
]
