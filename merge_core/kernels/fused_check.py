"""Whether the kernels in Triton compute on a card what plain torch does: asked once, before they are used there.

They need a compiler at run time, and cards and versions are many: a merge must be right, and end, on all of them.
"""

from __future__ import annotations

import torch

from merge_core.kernels import eager, fused
from merge_core.kernels.selection import MagnitudeRange, Move, RandomSelection, RankedSelection, Selection

_COUNT = 5003
_FACTORS = [0.30000001192092896, -0.699999988079071, 1.100000023841858]  # as float32 has them
_PART = 1 << 11


def same_bits(device: torch.device) -> bool:
    """Whether they do, on random numbers in bfloat16 and every kind of selection.

    Args:
        device: where.

    Raises:
        Exception: whatever Triton raises where it cannot compile.
    """
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(_COUNT, generator=generator)
    made = [(common + 0.1 * torch.randn(_COUNT, generator=generator)).bfloat16().to(device) for _ in range(4)]
    base, sources = made[0], made[1:]
    ranks = torch.arange(_COUNT, dtype=torch.int32, device=device)
    rules: list[Selection] = [
        MagnitudeRange(0x3D800000, _COUNT // 2),
        RandomSelection(0xF << 60 | 0x9 << 31, 1 << 15),
        RankedSelection(12, ranks, 0, 800_000),
    ]
    for elect, weights in ((False, []), (True, _FACTORS)):
        settings = (rules, _FACTORS, weights, elect, 0.5)
        out = torch.empty(_COUNT, dtype=torch.bfloat16, device=device)
        finite = fused.combine(sources, base, *settings, out, torch.bfloat16)
        if not finite or not torch.equal(out, eager.combined(sources, base, *settings).bfloat16()):
            return False
    products = (base, sources, base, rules, _FACTORS)
    if not torch.equal(fused.contract(*products), eager.contract(*products)):
        return False
    moves = [Move(1, rules[0], 0.25, 0.25), Move(2, rules[2], 1.5, 1.5)]
    elections = (*products[:4], _FACTORS, _FACTORS, moves)
    if not torch.equal(fused.contract_elected(*elections), eager.contract_elected(*elections)):
        return False
    counts = eager.count_magnitudes(sources[0], base)
    values = [code // 2 << eager.low_bits(base) for code in counts.nonzero().view(-1).tolist() if code % 2 == 0]
    expected = eager.count_by_part(sources[0], base, values, _PART)
    unit = 2.0**14
    return (
        fused.largest_magnitude(sources[0], base) == eager.largest_magnitude(sources[0], base)
        and all(
            fused.sum_magnitudes(sources[0], base, rule, unit) == eager.sum_magnitudes(sources[0], base, rule, unit)
            for rule in rules
        )
        and all(
            torch.equal(
                fused.sum_by_draw(sources[0], base, rule, unit), eager.sum_by_draw(sources[0], base, rule, unit)
            )
            for rule in rules
            if isinstance(rule, (RandomSelection, RankedSelection))
        )
        and torch.equal(fused.count_magnitudes(sources[0], base), counts)
        and torch.equal(fused.count_by_part(sources[0], base, values, _PART), expected)
    )
