"""``out_dtype: fp8`` and ``mxfp4``: which tensors of a result are written quantized, and what its config says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from merge_core.checkpoint.layout import Layout
from merge_core.checkpoint.quantized.forms import BlockFloat8, Mxfp4Stack, QuantizedForm
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, Problem
from merge_core.plan.tensor_job import TensorJob

QUANTIZED_DTYPES = ("fp8", "mxfp4")

_EXPERTS = re.compile(r"\.experts\.(gate_up_proj|up_proj|down_proj)$")
# Small, and what decides which experts run: left as they are by whoever publishes quantized models.
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)(\.\w+)?\.weight$")
_BLOCK = (128, 128)
_GROUP = 32


def quantize_outputs(
    kind: str, jobs: Sequence[TensorJob], template: Layout, checkpoint: Checkpoint
) -> tuple[list[TensorJob], dict[str, Any]]:
    """Choose a form for the tensors that are written quantized.

    Those of the layers that the template has quantized itself; of a float template all matrices of layers, but for
    routers and what is smaller than a block.

    Args:
        kind: one of `QUANTIZED_DTYPES`.
        jobs: of the result.
        template: layout of the model that it is modelled on.
        checkpoint: that model.

    Returns:
        The jobs with their forms; the ``quantization_config`` of the result.

    Raises:
        MergeError: the result has nothing that such a form is for.
    """
    if kind == "mxfp4":
        return _experts(jobs, checkpoint)
    form = BlockFloat8(checkpoint.quantization.scheme("").block or _BLOCK)
    own = {
        inner
        for layer in (*template.layers, *template.extra)
        for inner, name in layer.items()
        if name in checkpoint.quantized
    }
    made = [replace(job, form=form) if _is_matrix(job, template, own, form) else job for job in jobs]
    config = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(form.block),
        "modules_to_not_convert": [
            job.output.removesuffix(".weight")
            for job in made
            if job.form is None and len(job.shape) == 2 and job.output != template.embedding
        ],
    }
    return made, config


def _is_matrix(job: TensorJob, template: Layout, own: set[str], form: BlockFloat8) -> bool:
    inner = _inner(job.output, template)
    if inner is None or not job.dtype.is_floating_point:
        return False
    if own:
        return inner in own
    stacked = len(job.shape) == 3 and _EXPERTS.search(job.output) is not None
    plain = len(job.shape) == 2 and job.output.endswith(".weight") and _ROUTER.search(job.output) is None
    return (stacked or plain) and job.shape[-2] >= form.block[0] and job.shape[-1] >= form.block[1]


def _inner(output: str, template: Layout) -> str | None:
    """A tensor's name inside its layer; None outside of layers."""
    match = re.match(rf"{re.escape(template.layers_name)}\.\d+\.(.+)", output)
    return None if match is None else match.group(1)


def _experts(jobs: Sequence[TensorJob], checkpoint: Checkpoint) -> tuple[list[TensorJob], dict[str, Any]]:
    form: QuantizedForm = Mxfp4Stack()
    fits = {job.output for job in jobs if len(job.shape) == 3 and _EXPERTS.search(job.output)}
    odd = [job.output for job in jobs if job.output in fits and job.shape[1] % _GROUP]
    if checkpoint.config.get("model_type") != "gpt_oss" or not fits or odd:
        message = "mxfp4 is a form for the experts of gpt-oss, and this is no such model. Use fp8, or bfloat16"
        raise MergeError(Problem(("out_dtype",), message))
    patterns = ("model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head")
    config: Mapping[str, Any] = {"quant_method": "mxfp4", "modules_to_not_convert": list(patterns)}
    return [replace(job, form=form) if job.output in fits else job for job in jobs], dict(config)
