"""The architectures that mixtures of dense models are written in: names of their tensors, and their configs.

Experts are stored one by one, the form that every reader of these architectures knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError, did_you_mean

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MoeForm:
    """An architecture.

    Attributes:
        name: as ``architecture`` in a file.
        of: values of ``model_type`` whose models it takes.
        block: the module of a layer that has router and experts.
        parts: part of a dense MLP → its name in an expert.
        shared: how many shared experts it has.
        attention_biases: whether its attention can have biases.
        config: number of experts, experts a token, inner size of an expert → keys of its config.
    """

    name: str
    of: tuple[str, ...]
    block: str
    parts: Mapping[str, str]
    shared: int
    attention_biases: bool
    config: Callable[[int, int, int], dict[str, Any]]


_SAME = {part: part for part in ("gate_proj", "up_proj", "down_proj")}
_COMMON = {"output_router_logits": False, "router_aux_loss_coef": 0.001}


def _mixtral(experts: int, per_token: int, size: int) -> dict[str, Any]:
    return _COMMON | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": experts,
        "num_experts_per_tok": per_token,
        "router_jitter_noise": 0.0,
    }


def _qwen(kind: str, experts: int, per_token: int, size: int) -> dict[str, Any]:
    return _COMMON | {
        "architectures": [f"{kind.title()}MoeForCausalLM"],
        "model_type": f"{kind}_moe",
        "num_experts": experts,
        "num_experts_per_tok": per_token,
        "moe_intermediate_size": size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        # The chosen experts' weights add up to one, as those of a Mixtral: the dense models' scale.
        "norm_topk_prob": True,
    }


def _qwen2(experts: int, per_token: int, size: int) -> dict[str, Any]:
    return _qwen("qwen2", experts, per_token, size) | {"shared_expert_intermediate_size": size}


def _qwen3(experts: int, per_token: int, size: int) -> dict[str, Any]:
    return _qwen("qwen3", experts, per_token, size)


FORMS = {
    form.name: form
    for form in (
        MoeForm(
            "mixtral",
            ("llama", "mistral"),
            "block_sparse_moe",
            {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
            0,
            False,
            _mixtral,
        ),
        MoeForm("qwen", ("qwen2",), "mlp", _SAME, 1, True, _qwen2),
        MoeForm("qwen3", ("qwen3",), "mlp", _SAME, 0, True, _qwen3),
    )
}
"""Name → architecture."""


def choose_form(wanted: str | None, config: Config, shared: int) -> MoeForm:
    """The architecture that holds a mixture.

    Args:
        wanted: its name in a file, or None.
        config: the base model's.
        shared: how many shared experts there are.

    Raises:
        MergeError: there is none of that name, or none that takes these models.
    """
    kind = config.get("model_type")
    if wanted is not None and wanted not in FORMS:
        raise MergeError(f"architecture: there is no {wanted}.{did_you_mean(wanted, FORMS)}")
    form = FORMS[wanted] if wanted else next((form for form in FORMS.values() if kind in form.of), None)
    if form is None or kind not in form.of:
        known = "; ".join(f"{form.name} of {' and '.join(form.of)}" for form in FORMS.values())
        raise MergeError(f"base_model: no architecture holds a mixture of models of type {kind}. Known: {known}")
    if shared != form.shared:
        needed = "exactly one" if form.shared else "none"
        raise MergeError(f"shared_experts: {shared} given, architecture {form.name} has {needed}")
    return form
