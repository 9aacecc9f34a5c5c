"""What the sources of a tensor must have in common: names, shapes, a dtype that holds the values of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError, and_more


def common_names(names: Sequence[Mapping[str, str]], models: Sequence[str], prefix: str) -> list[str]:
    """The names that all sources have, in order.

    Args:
        names: of every source: name in every release of a model → tensor name.
        models: their references.
        prefix: what stands before the names in a message.

    Raises:
        MergeError: a source lacks a tensor that another has.
    """
    first = names[0]
    if all(own.keys() == first.keys() for own in names[1:]):
        return list(first)
    problems = []
    everything = dict.fromkeys(name for own in names for name in own)
    for own, model in zip(names, models, strict=True):
        missing = [prefix + name for name in everything if name not in own]
        if missing:
            problems.append(
                f'model "{model}" lacks {and_more(missing)}, which another model of the merge has. '
                "Merge models of one architecture"
            )
    raise MergeError(*problems)


def common_rows(
    output: str, models: Sequence[str], headers: Sequence[TensorHeader], crop: bool
) -> tuple[tuple[int, ...], str]:
    """The largest common submatrix of tensors whose shapes differ, and a warning that it is no more than that.

    Args:
        output: the result's name.
        models: references of the sources.
        headers: of their tensors.
        crop: whether they may be embeddings, whose numbers of rows may differ.

    Raises:
        MergeError: anything else differs.
    """
    shapes = [header.shape for header in headers]
    found = ", ".join(f'"{model}" {list(shape)}' for model, shape in zip(models, shapes, strict=True))
    vocabularies = all(len(shape) == 2 and shape[1:] == shapes[0][1:] for shape in shapes)
    if not crop or not vocabularies:
        raise MergeError(f"{output}: shapes differ: {found}. Merge models of one size")
    rows = min(shape[0] for shape in shapes)
    warning = (
        f"{output}: vocabularies differ: {found}. The first {rows} rows are merged; "
        "set tokenizer: {source: union} to align the vocabularies"
    )
    return (rows, *shapes[0][1:]), warning


def widened_dtype(headers: Sequence[TensorHeader]) -> torch.dtype | None:
    """A dtype that holds the values of all sources; None where they have one."""
    dtypes = {header.dtype for header in headers if header.dtype.is_floating_point}
    if len(dtypes) == 1:
        return None
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)
    alone = all(dtype == widest or dtype.itemsize < widest.itemsize for dtype in dtypes)
    return widest if alone else torch.float32  # float16 and bfloat16 do not hold one another's values
