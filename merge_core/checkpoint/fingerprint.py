"""One hash for a whole model, the same for a saved and a live one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import Tensor

from merge_core.checkpoint.writer import tensor_bytes


def tensor_digest(name: str, tensor: Tensor) -> bytes:
    """sha256 of a tensor's name, dtype, shape and bytes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    digest = hashlib.sha256(f"{name}\0{dtype}\0{list(tensor.shape)}\0".encode())
    digest.update(tensor_bytes(tensor))
    return digest.digest()


def combine_digests(digests: Iterable[tuple[str, bytes]]) -> str:
    """sha256 over tensor digests in the order of their names."""
    return hashlib.sha256(b"".join(digest for _, digest in sorted(digests))).hexdigest()


def fingerprint(pairs: Iterable[tuple[str, Tensor]]) -> str:
    """Hash named tensors; the order in which they come does not matter.

    Args:
        pairs: name and tensor; one tensor is in memory at a time.

    Returns:
        64 hexadecimal digits.
    """
    return combine_digests((name, tensor_digest(name, tensor)) for name, tensor in pairs)
