"""Numbers that the kernels in torch, the compiled ones and their callers must agree on."""

from __future__ import annotations

import torch

BFLOAT16, FLOAT32, FLOAT16 = 0, 1, 2
CODES = {torch.bfloat16: BFLOAT16, torch.float32: FLOAT32, torch.float16: FLOAT16}
"""Of the dtypes that compiled kernels read and write."""

SELECT_ALL, SELECT_RANGE, SELECT_RANDOM, SELECT_RANKED = 0, 1, 2, 3
"""Codes of the kinds of `selection.Selection`."""

MIXED = -1
"""In the place of one of these codes: not every source has the same."""

PART = 1 << 16
"""Elements whose equal magnitudes are counted together."""

BLOCK = 4096
"""Elements per block: a part of the meaning of a sum, see `eager.contract`."""

LANES = 1024
"""Products that `eager.contract` adds side by side; divides `BLOCK`."""

DRAW_SUMS = 1 << 17
"""Differences of a draw and what its limit rises by with the rank, see `eager.sum_by_draw`."""

NO_WEIGHT = 1e-8
"""A sum of weights smaller than this stands for "nobody", and is not divided by."""

UNBOUNDED = 0x80000000
"""More than the bits of any float32 magnitude."""

INFINITY = 0x7F800000
"""The bits of float32's infinity; a NaN's magnitude has more."""
