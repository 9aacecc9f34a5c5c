"""Layers for multi-token prediction: the model's own, or grafted from another one.

They are not run in sequence with the others (https://arxiv.org/abs/2412.19437, section 2.2), so they are copied, not
merged. DeepSeek and GLM have them as layers beyond those that the config counts, Qwen as a module ``mtp``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from merge_core.checkpoint.layout import PREDICTION, Layout, is_prediction_setting
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.plan.merged_config import language_section


def prediction_tensors(layout: Layout, template: Layout, start: int) -> Iterator[tuple[str, str]]:
    """The tensors for multi-token prediction of a model.

    Args:
        layout: of the model.
        template: of the model that the result is modelled on.
        start: how many layers the result has.

    Returns:
        Name in the result, and in the model.
    """
    for index, content in enumerate(layout.extra, start):
        for inner, name in content.items():
            yield f"{template.layers_name}.{index}.{inner}", name
    own = template.modules.get(PREDICTION, {})
    for inner, name in layout.modules.get(PREDICTION, {}).items():
        yield own.get(inner, name), name


def check_graft(model: str, graft: Checkpoint, layout: Layout, own: Checkpoint, template: Layout) -> None:
    """Refuse layers of a model that has none, or is of another width.

    Args:
        model: its reference.
        graft: the model.
        layout: of it.
        own: the model that the result is modelled on.
        template: of that.

    Raises:
        MergeError: it is.
    """
    if not layout.extra and PREDICTION not in layout.modules:
        raise MergeError(f'model "{model}" has no layers for multi-token prediction. Name one that has')
    embeddings = (graft, layout.embedding), (own, template.embedding)
    widths = {found.tensors[name].shape[1:] for found, name in embeddings if name is not None}
    if len(widths) > 1:
        raise MergeError(f'model "{model}" is of another size than the models of the merge. Name one of their size')


def take_prediction_settings(
    config: dict[str, Any], template: Layout, other: Mapping[str, Any], layout: Layout
) -> None:
    """Let a config say of multi-token prediction what that of the model says whose layers for it the result has.

    Args:
        config: of the result; written over.
        template: of the model that it is modelled on.
        other: config of the model that the layers are of.
        layout: of that.
    """
    section, theirs = (language_section(one, its.count_key) for one, its in ((config, template), (other, layout)))
    for key in [key for key in section if is_prediction_setting(key)]:
        del section[key]
    section.update({key: copy.deepcopy(value) for key, value in theirs.items() if is_prediction_setting(key)})
