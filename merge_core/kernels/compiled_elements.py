"""Reading, writing and rounding elements in loops that numba compiles; what its kernels are made of.

Tensors come as (address, dtype code), which spares a compilation for every number of models and every dtype. Every
operation is rounded by itself: numba contracts nothing to fused multiply-adds.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from merge_core.kernels import constants
from merge_core.kernels.constants import BFLOAT16, FLOAT32

STRIP = 1024
"""Elements that are worked on together: seven float32 rows of them stay in the first-level cache."""

# numba compiles anew when a function's own file changes, and not when one that it calls does; hence a cache for
# every state of these files.
_FILES = [*sorted(Path(__file__).parent.glob("compiled_*.py")), Path(constants.__file__)]
_SOURCES = b"".join(file.read_bytes() for file in _FILES)
_CACHE = Path(__file__).parent / "__pycache__" / f"kernels-{hashlib.sha256(_SOURCES).hexdigest()[:16]}"


@functools.cache
def _is_kept() -> bool:
    """Whether there is a place for what is compiled: for a user without a home numba makes a directory called ``~``."""
    is_writable = os.access(Path(__file__).parent, os.W_OK)
    return is_writable or bool(config.CACHE_DIR) or os.path.expanduser("~") != "~"


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function for all processes of this machine; it runs without Python's lock.

    Fast-math stays off: it would let sums be reordered. Where neither the package nor the user has a place for what is
    compiled, every process does it anew.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(_CACHE)
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=_is_kept(), **options)(function)
    except RuntimeError:  # nobody may write there
        return njit(**options)(function)
    finally:
        config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels."""
    return compiled(function, inline="never")


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def as_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def as_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch_line(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To read, into the second-level cache, as data.
        settings = [integer(0), integer(2), integer(1)]
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), *settings])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@inlined
def prefetch(address: int, kind: int, start: int, end: int) -> None:
    """Ask for elements that are needed soon, so that memory works while the processor does."""
    itemsize = 4 if kind == FLOAT32 else 2
    for place in range(address + itemsize * start, address + itemsize * end, 64):
        prefetch_line(place)


@inlined
def from_half(half: Any) -> Any:
    magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
    # 2**112 is the difference of the exponents' biases; exact, for subnormal numbers too.
    scaled = as_bits(np.float32(as_float(magnitude) * np.float32(2.0**112)))
    special = np.uint32(magnitude | np.uint32(0x7F800000))
    magnitude = special if np.uint32(half & np.uint32(0x7C00)) == np.uint32(0x7C00) else scaled
    return as_float(np.uint32(magnitude | np.uint32((half & np.uint32(0x8000)) << np.uint32(16))))


@inlined
def load(address: int, kind: int, start: int, values: Any) -> None:
    """Elements from ``start`` on, as float32."""
    size = values.size
    if kind == FLOAT32:
        wide = carray(pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            values[i] = wide[i]
        return
    narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            values[i] = as_float(np.uint32(narrow[i]) << np.uint32(16))
        return
    for i in range(size):
        values[i] = from_half(np.uint32(narrow[i]))


@inlined
def to_half(value: Any) -> Any:
    """Bits of the nearest float16, ties to even: the exponent is aligned by adding a power of two."""
    bits = as_bits(value)
    doubled = np.uint32(bits << np.uint32(1))
    magnitude = as_float(np.uint32(bits & np.uint32(0x7FFFFFFF)))
    rounded = np.float32(np.float32(magnitude * np.float32(2.0**112)) * np.float32(2.0**-110))
    bias = max(np.uint32(doubled & np.uint32(0xFF000000)), np.uint32(0x71000000))
    aligned = np.float32(as_float(np.uint32((bias >> np.uint32(1)) + np.uint32(0x07800000))) + rounded)
    word = as_bits(aligned)
    result = np.uint32(((word >> np.uint32(13)) & np.uint32(0x7C00)) + (word & np.uint32(0x0FFF)))
    if doubled > np.uint32(0xFF000000):
        result = np.uint32(0x7E00)
    return np.uint16(result | ((bits >> np.uint32(16)) & np.uint32(0x8000)))


@inlined
def round_to(values: Any, kind: int) -> Any:
    """Round in place to what a dtype can hold; returns the largest magnitude's bits (infinity's or more: bad)."""
    largest = np.uint32(0)
    if kind == BFLOAT16:
        for i in range(values.size):
            bits = as_bits(values[i])
            # To nearest, ties to even. A NaN would round into the sign bit; it stays as it is.
            rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
            rounded = np.uint32(rounded & np.uint32(0xFFFF0000))
            magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
            kept = rounded if magnitude <= np.uint32(0x7F800000) else bits
            largest = max(largest, np.uint32(kept & np.uint32(0x7FFFFFFF)))
            values[i] = as_float(kept)
    elif kind == FLOAT32:
        for i in range(values.size):
            largest = max(largest, np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF)))
    else:
        for i in range(values.size):
            values[i] = from_half(np.uint32(to_half(values[i])))
            largest = max(largest, np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF)))
    return largest


@inlined
def store(values: Any, kind: int, address: int, start: int) -> None:
    size = values.size
    if kind == FLOAT32:
        wide = carray(pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            wide[i] = values[i]
        return
    narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            narrow[i] = np.uint16(as_bits(values[i]) >> np.uint32(16))
    else:
        for i in range(size):
            narrow[i] = to_half(values[i])


@inlined
def task_vector(address: int, kind: int, start: int, base: Any, has_base: bool, values: Any) -> None:
    """Load and subtract the base, in one pass."""
    size = values.size
    if not has_base:
        load(address, kind, start, values)
    elif kind == BFLOAT16:
        narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            values[i] = as_float(np.uint32(narrow[i]) << np.uint32(16)) - base[i]
    elif kind == FLOAT32:
        wide = carray(pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            values[i] = wide[i] - base[i]
    else:
        narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            values[i] = from_half(np.uint32(narrow[i])) - base[i]


@inlined
def difference(source: Any, base: Any, start: int, size: int, scratch: Any) -> Any:
    """The task vector's elements from ``start`` on."""
    has_base = base[0] != 0
    origin, delta = scratch[0, :size], scratch[1, :size]
    prefetch(source[0], source[1], start + STRIP, start + 2 * STRIP)
    if has_base:
        prefetch(base[0], base[1], start + STRIP, start + 2 * STRIP)
        load(base[0], base[1], start, origin)
    task_vector(source[0], source[1], start, origin, has_base, delta)
    return delta
