"""What a ``config.json`` says of how weights are quantized, as far as names and shapes do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.checkpoint.patterns import matches
from merge_core.checkpoint.quantized.number_formats import Block

_KEYS = ("quantization_config", "compression_config")
_REGEX = "re:"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some modules are quantized.

    Attributes:
        targets: their names, patterns of names after ``re:``, or classes.
        bits: of an integer.
        block: rows and columns that share a scale.
    """

    targets: tuple[str, ...] = ()
    bits: int | None = None
    block: Block | None = None

    def names(self, module: str) -> bool:
        """Whether a module is named, rather than its class."""
        return any(
            matches(target.removeprefix(_REGEX), module) if target.startswith(_REGEX) else target == module
            for target in self.targets
        )

    @property
    def names_classes(self) -> bool:
        """Whether it is for all modules, or for all of some class, such as ``Linear``."""
        return not self.targets or any("." not in target.removeprefix(_REGEX) for target in self.targets)


@dataclass(frozen=True, slots=True)
class QuantizationSettings:
    """See above.

    Attributes:
        method: such as ``fp8``; empty where the config says nothing.
        schemes: of all modules, or of some.
        checkpoint_format: which release of its format GPTQ wrote.
    """

    method: str = ""
    schemes: tuple[Scheme, ...] = ()
    checkpoint_format: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> QuantizationSettings:
        """Read a model's config, in which a language model beside towers may have a part of its own.

        Raises:
            TypeError, ValueError: sizes that are none.
        """
        found = next(_sections(config), None)
        if found is None:
            return cls()
        groups = found.get("config_groups")
        schemes = [_of_group(group) for group in groups.values()] if isinstance(groups, dict) else []
        size = found.get("weight_block_size")
        method = str(found.get("quant_method") or found.get("quantization_method") or "unnamed")
        whole = Scheme(block=None if size is None else _block(size))
        return cls(method, (*schemes, whole), str(found.get("checkpoint_format", "")))

    def scheme(self, module: str) -> Scheme:
        """Of a module: the one that names it, or else the first that names classes."""
        named = (scheme for scheme in self.schemes if scheme.names(module))
        others = (scheme for scheme in self.schemes if scheme.names_classes)
        return next(named, next(others, Scheme()))


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same model with float weights."""
    return {
        key: without_quantization(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _KEYS
    }


def _sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (found for key in _KEYS if isinstance(found := config.get(key), dict) and found)
    for value in config.values():
        if isinstance(value, dict):
            yield from _sections(value)


def _of_group(group: Mapping[str, Any]) -> Scheme:
    weights = group.get("weights") or {}
    structure = weights.get("block_structure")
    if isinstance(structure, str):  # of early releases: "128x128"
        structure = [int(size) for size in structure.split("x")]
    bits = weights.get("num_bits")
    return Scheme(
        tuple(map(str, group.get("targets") or ())),
        None if bits is None else _size(bits),
        None if structure is None else _block(structure),
    )


def _block(sizes: Any) -> Block:
    if not isinstance(sizes, list) or len(sizes) != 2:
        raise ValueError(f"weight_block_size: expected two sizes, got {str(sizes)[:40]}")
    return _size(sizes[0]), _size(sizes[1])


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"quantization_config: expected a whole number from 1, got {str(value)[:40]}")
    return value
