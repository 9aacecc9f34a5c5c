"""The Triton kernels alone: the bits of plain torch, and their rate against a copy; or what they compile to.

    python benchmarks/gpu/kernels.py [--device cuda] [--megabytes 256]
    python benchmarks/gpu/kernels.py --compile 90        # no card: machine code for compute capability 9.0

A base and three bfloat16 sources of the given size each. "same" is of all entries of the result, or of all counts, and
GB/s count every input read once and the result written once. Times are the device's own, medians, its cache emptied
before each call: a clock around a call counts Python and the wait for it, a fifth of the shortest. With --device cpu
Triton's interpreter runs them, on 1500 entries, and rates mean nothing. With --compile: how many products are
contracted with sums (none may be), the widest reads and writes of global memory, and bytes of machine code.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.environment import ceilings, seconds
from merge_core.kernels import eager
from merge_core.kernels.constants import BFLOAT16, BLOCK, LANES, SELECT_RANGE
from merge_core.kernels.selection import MagnitudeRange, Move, RandomSelection, RankedSelection, Selection

KEY = 0x9E3779B97F4A7C15
FACTORS = [0.3, 0.5, -0.25]
LOW_BITS, PART = 15, 1 << 16
UNIT = 2.0**15


def main() -> None:
    """Prints a line for each kernel; exits with 1 when bits differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--megabytes", type=int, default=256, help="size of a tensor")
    parser.add_argument("--compile", type=int, metavar="CAPABILITY", help="compile, and run nothing")
    options = parser.parse_args()
    if options.compile:
        compile_all(options.compile)
        return
    device = torch.device(options.device)
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    from merge_core.kernels import fused

    count = 1500 if device.type == "cpu" else options.megabytes * 500_000
    generator = torch.Generator(device).manual_seed(0)
    common = 0.02 * torch.randn(count, generator=generator, device=device)
    base, *sources = (
        (common + 0.002 * torch.randn(count, generator=generator, device=device)).bfloat16() for _ in range(4)
    )
    copy = ceilings(device, small=device.type == "cpu")["copy"]
    print(f"{count / 1e6:.1f} M entries; a copy moves {copy:.0f} GB/s")
    print(f"{'kernel':<26}{'bits':<12}{'ms':>9}{'GB/s':>8}{'of copy':>9}{'plain torch, ms':>17}")
    failed = False
    for name, ours, theirs, bytes_moved in cases(fused, base, sources):
        same = torch.equal(ours(), theirs())
        failed |= not same
        took, plain = timed(ours, device), timed(theirs, device)
        rate = bytes_moved / took / 1e9
        line = f"{name:<26}{'same' if same else 'DIFFERENT':<12}{took * 1e3:>9.2f}{rate:>8.0f}{rate / copy:>9.0%}"
        print(f"{line}{plain * 1e3:>17.1f}", flush=True)
    sys.exit(int(failed))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call on the device; of a whole call on a CPU."""
    if device.type != "cuda":
        return seconds(work)
    from triton.testing import do_bench

    return do_bench(work, return_mode="median") / 1e3


def cases(
    fused: Any, base: Tensor, sources: list[Tensor]
) -> list[tuple[str, Callable[[], Tensor], Callable[[], Tensor], int]]:
    """Name, ours, the same in plain torch, and the bytes that must move."""
    count, size = base.numel(), base.numel() * 2
    ranks = torch.arange(count, dtype=torch.int32, device=base.device) * 7 % 2048
    rules: dict[str, Selection] = {
        "": None,
        ", range": MagnitudeRange(0x3B000000, count // 2),
        ", draws": RandomSelection(KEY, 1 << 15),
        ", ranks": RankedSelection(KEY, ranks, 1 << 14, 1 << 20),
    }
    out = torch.empty_like(base)
    found: list[tuple[str, Callable[[], Tensor], Callable[[], Tensor], int]] = []
    for name, rule in rules.items():
        more = 4 * count if isinstance(rule, RankedSelection) else 0
        for elect in (False, True):

            def ours(rule: Selection = rule, elect: bool = elect) -> Tensor:
                weights = FACTORS if elect else []
                fused.combine(sources, base, [rule] * 3, FACTORS, weights, elect, 1.0, out, torch.bfloat16)
                return out

            def theirs(rule: Selection = rule, elect: bool = elect) -> Tensor:
                weights, result = FACTORS if elect else [], torch.empty_like(base)
                eager.combine(sources, base, [rule] * 3, FACTORS, weights, elect, 1.0, result, torch.bfloat16)
                return result

            found.append((f"{'elected sum' if elect else 'sum'}{name}", ours, theirs, 5 * size + 3 * more))
        found.append(
            (
                f"magnitudes{name}",
                lambda rule=rule: torch.tensor(fused.sum_magnitudes(sources[0], base, rule, UNIT)),
                lambda rule=rule: torch.tensor(eager.sum_magnitudes(sources[0], base, rule, UNIT)),
                2 * size + more,
            )
        )
    found.append(
        (
            "magnitudes by draw",
            lambda: fused.sum_by_draw(sources[0], base, RandomSelection(KEY, 0), UNIT),
            lambda: eager.sum_by_draw(sources[0], base, RandomSelection(KEY, 0), UNIT),
            2 * size,
        )
    )
    codes = eager.count_magnitudes(sources[0], base)
    values = [int(code) // 2 << LOW_BITS for code in codes.nonzero().view(-1) if code % 2 == 0][-300:]
    found.append(
        (
            "counts",
            lambda: fused.count_magnitudes(sources[0], base),
            lambda: eager.count_magnitudes(sources[0], base),
            2 * size,
        )
    )
    found.append(
        (
            "counts by part",
            lambda: fused.count_by_part(sources[0], base, values, PART),
            lambda: eager.count_by_part(sources[0], base, values, PART),
            2 * size,
        )
    )
    selections = [rules[", range"]] * 3
    products = base, sources, base, selections
    moves = [Move(term, rule, 0.5, 0.5) for term in range(3) for rule in (rules[", range"], rules[", draws"])]
    both: list[tuple[str, str, tuple[Any, ...]]] = [
        ("products, range", "contract", (*products, [1.0] * 3)),
        ("elected, six moves", "contract_elected", (*products, FACTORS, FACTORS, moves)),
    ]
    for title, name, given in both:
        ours, theirs = (functools.partial(getattr(kernels, name), *given) for kernels in (fused, eager))
        found.append((title, ours, theirs, 5 * size))
    return found


def compile_all(capability: int) -> None:
    """Prints what the kernels compile to."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from merge_core.kernels import triton_contraction, triton_counts, triton_election, triton_passes

    words = {"table": "*i64", "base": "i64", "base_kind": "i32", "count": "i64", "out": "i64"}
    words |= {"numbers": "i64", "unit": "*fp32"}
    words |= {"gradient": "i64", "gradient_kind": "i32", "products": "*fp64", "blocks": "i32"}
    words |= {"scales": "i64", "terms": "i32", "rows": "i32", "moved_terms": "*i32"}
    words |= {"places": "*i32", "values": "i32", "counts": "*i64", "sums": "*i64", "total": "*i64"}
    shared: dict[str, Any] = {"HAS_BASE": True, "ALIGNED": True, "SIZE": triton_passes.STRIP}
    rule = {"RULE": SELECT_RANGE}
    output = {"OUT": BFLOAT16, "WIDE": False, "STORED": BFLOAT16, "BOUNDED": False, "TERMS": 3} | rule
    block = {"SIZE": LANES, "STEPS": BLOCK // LANES} | rule
    kernels = [
        (triton_passes.combine, shared | output | {"ELECT": False, "NORMALIZE": False}),
        (triton_passes.combine, shared | output | {"ELECT": True, "NORMALIZE": True}),
        (triton_contraction.contract, shared | block),
        (triton_election.contract_elected, shared | block | {"TERMS": 3}),
        (triton_counts.largest_magnitude, shared),
        (triton_counts.sum_magnitudes, shared),
        (triton_counts.sum_by_draw, shared | {"RANKED": True}),
        (triton_counts.count_magnitudes, shared | {"LOW_BITS": LOW_BITS}),
        (triton_counts.count_by_part, shared | {"LOW_BITS": LOW_BITS, "PART": PART}),
    ]
    print(f"{'kernel':<20}{'contracted':>11}  {'reads':<22}{'writes':<22}{'bytes':>8}")
    for kernel, constants in kernels:
        names = kernel.arg_names
        words["largest"] = "i64" if kernel is triton_passes.combine else "*i32"
        signature = {name: "constexpr" if name in constants else words[name] for name in names}
        places = {(names.index(name),): value for name, value in constants.items()}
        # As the launcher says of a tensor whose length is a multiple of 16.
        even = {(names.index("count"),): [["tt.divisibility", 16]]}
        source = ASTSource(kernel, signature, constexprs=places, attrs=even)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False})
        text = made.asm["ptx"]
        reads, writes = (
            max(re.findall(rf"{kind}\.global(\.\S*)", text), key=len, default="-") for kind in ("ld", "st")
        )
        contracted = len(re.findall(r"\bfma\.", text))
        print(f"{kernel.__name__:<20}{contracted:>11}  {reads:<22}{writes:<22}{len(made.asm['cubin']):>8}")


if __name__ == "__main__":
    main()
