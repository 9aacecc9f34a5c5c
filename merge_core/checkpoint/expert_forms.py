"""Routed experts, which one release of a model stores apart and another in one stack: read in either form.

Apart, a layer has ``experts.3.gate_proj.weight`` and so on (``w1``, ``w3`` and ``w2`` in Mixtral); stacked, it has
``experts.gate_up_proj`` with a matrix for each expert, of gate rows and then up rows, and ``experts.down_proj``. Some
stack the matrices transposed. A part here is a tensor in the form that another model has it in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader

_APART = re.compile(r"(.*\bexperts)\.(\d+)\.(gate_proj|up_proj|down_proj|w[123])\.weight")
_STACKED = re.compile(r"(.*\bexperts)\.(gate_up_proj|up_proj|down_proj)")
_MEANING = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class ExpertSlice:
    """One expert's matrix, of a stack.

    Attributes:
        tensor: the stack's name.
        expert: place in it.
        start, stop: rows of the expert's matrix.
        transposed: whether the stack holds its matrices transposed.
    """

    tensor: str
    expert: int
    start: int
    stop: int
    transposed: bool

    @property
    def stored(self) -> tuple[str, ...]:
        """None: who reads one expert after another must not bring the stack into memory and let it go for each."""
        return ()

    def header(self, checkpoint: Checkpoint) -> TensorHeader:
        """What is known of it without reading it."""
        header = checkpoint.tensors[self.tensor]
        columns = header.shape[1 if self.transposed else 2]
        return replace(header, shape=(self.stop - self.start, columns))

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """The matrix."""
        matrix = checkpoint.read(self.tensor)[self.expert]
        return (matrix.T if self.transposed else matrix)[self.start : self.stop].contiguous()


@dataclass(frozen=True, slots=True)
class ExpertStack:
    """All experts' matrices, in a stack.

    Attributes:
        tensors: for every expert the names of the tensors whose rows make its matrix.
        transposed: whether the stack holds its matrices transposed.
    """

    tensors: tuple[tuple[str, ...], ...]
    transposed: bool

    @property
    def stored(self) -> tuple[str, ...]:
        """The names of all tensors that are read."""
        return tuple(name for expert in self.tensors for name in expert)

    def header(self, checkpoint: Checkpoint) -> TensorHeader:
        """What is known of it without reading it."""
        first = [checkpoint.tensors[name] for name in self.tensors[0]]
        matrix = (sum(header.shape[0] for header in first), first[0].shape[1])
        return replace(first[0], shape=(len(self.tensors), *(matrix[::-1] if self.transposed else matrix)))

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """The stack."""
        matrices = [torch.cat([checkpoint.read(name) for name in expert]) for expert in self.tensors]
        return torch.stack([matrix.T if self.transposed else matrix for matrix in matrices])


@dataclass(frozen=True, slots=True)
class ExpertOfStack:
    """One expert's matrix, of a stack that is made of matrices stored apart.

    Attributes:
        stack: that stack.
        expert: place in it.
    """

    stack: ExpertStack
    expert: int

    @property
    def stored(self) -> tuple[str, ...]:
        """The names of all tensors that are read."""
        return self.stack.tensors[self.expert]

    def header(self, checkpoint: Checkpoint) -> TensorHeader:
        """What is known of it without reading it."""
        header = self.stack.header(checkpoint)
        return replace(header, shape=header.shape[1:])

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """The matrix."""
        return replace(self.stack, tensors=(self.stored,)).read(checkpoint)[0]


ExpertPart = ExpertSlice | ExpertStack | ExpertOfStack


def is_stack(name: str) -> bool:
    """Whether a tensor of three dimensions holds the matrices of all experts."""
    return _STACKED.fullmatch(name) is not None


def expert_of(tensor: str, part: ExpertPart | None, expert: int, rows: int) -> ExpertPart:
    """One expert's matrix of a stack.

    Args:
        tensor: name of the stack.
        part: what it is made of where it is not stored; a stack.
        expert: place in it.
        rows: of its matrices, as they are stored.
    """
    if isinstance(part, ExpertStack):
        return ExpertOfStack(part, expert)
    return ExpertSlice(tensor, expert, 0, rows, transposed=False)


def in_form_of(
    wanted: Mapping[str, str], wanted_in: Checkpoint, own: Mapping[str, str], own_in: Checkpoint
) -> dict[str, str | ExpertPart]:
    """The tensors of a layer by the names that another model's layer has for them.

    Args:
        wanted: name inside the layer → tensor name, of the model whose form is taken.
        wanted_in: that model.
        own: the same of the model that is read.
        own_in: that model.

    Returns:
        Name inside the layer → tensor name or part. What has no counterpart keeps its name.
    """
    groups = [_group(names) for names in (wanted, own)]
    if None in groups or wanted.keys() == own.keys():
        return dict(own)
    there, here = (str(group) for group in groups)
    parent, own_parent = (group.removesuffix("experts") for group in (there, here))
    found: dict[str, str | ExpertPart] = {}
    for inner, name in own.items():  # what stands beside the experts, such as the router, moves with them
        if not (_APART.fullmatch(inner) or _STACKED.fullmatch(inner)):
            found[parent + inner.removeprefix(own_parent) if inner.startswith(own_parent) else inner] = name
    apart = _matrices(own, own_in, _transposed(own, own_in, wanted, wanted_in))
    for inner in wanted:
        if (match := _APART.fullmatch(inner)) is not None:
            part = apart.get((int(match.group(2)), _MEANING.get(match.group(3), match.group(3))))
            if part is not None:
                found[inner] = part
        elif (match := _STACKED.fullmatch(inner)) is not None:
            stack = _stack(match.group(2), apart, _transposed(wanted, wanted_in, own, own_in))
            if stack is not None:
                found[inner] = stack
    return found


def _group(names: Mapping[str, str]) -> str | None:
    """What stands before the experts of a layer; None where there are none, or experts of several kinds."""
    matches = [_APART.fullmatch(inner) or _STACKED.fullmatch(inner) for inner in names]
    groups = {match.group(1) for match in matches if match is not None}
    return groups.pop() if len(groups) == 1 else None


def _matrices(
    names: Mapping[str, str], checkpoint: Checkpoint, transposed: bool
) -> dict[tuple[int, str], str | ExpertPart]:
    """Every expert's matrices, by its number and what they are."""
    found: dict[tuple[int, str], str | ExpertPart] = {}
    for inner, name in names.items():
        if (match := _APART.fullmatch(inner)) is not None:
            found[int(match.group(2)), _MEANING.get(match.group(3), match.group(3))] = name
        elif (match := _STACKED.fullmatch(inner)) is not None and len(checkpoint.tensors[name].shape) == 3:
            count, *matrix = checkpoint.tensors[name].shape
            halves = _HALVES.get(match.group(2), (match.group(2),))
            rows = matrix[1 if transposed else 0] // len(halves)
            for expert in range(count):
                for place, half in enumerate(halves):
                    found[expert, half] = ExpertSlice(name, expert, place * rows, (place + 1) * rows, transposed)
    return found


def _stack(kind: str, apart: Mapping[tuple[int, str], str | ExpertPart], transposed: bool) -> ExpertStack | None:
    halves = _HALVES.get(kind, (kind,))
    count = sum(half == halves[0] for _, half in apart)
    names = [[apart.get((expert, half)) for half in halves] for expert in range(count)]
    if not count or not all(isinstance(name, str) for expert in names for name in expert):
        return None
    return ExpertStack(tuple(tuple(map(str, expert)) for expert in names), transposed)


def _transposed(
    stacked: Mapping[str, str], stacked_in: Checkpoint, apart: Mapping[str, str], apart_in: Checkpoint
) -> bool:
    """Whether stacks hold their matrices transposed, seen from the shapes of the same ones stored apart."""
    shapes = {
        match.group(2): stacked_in.tensors[name].shape[1:]
        for inner, name in stacked.items()
        if (match := _STACKED.fullmatch(inner)) is not None
    }
    for inner, name in apart.items():
        match = _APART.fullmatch(inner)
        if match is None:
            continue
        meaning = _MEANING.get(match.group(3), match.group(3))
        rows, columns = apart_in.tensors[name].shape
        for kind, halves in (("gate_up_proj", 2), (meaning, 1)):
            # A square matrix does not tell; gate and up together and down are never both square.
            if kind in shapes and meaning in _HALVES.get(kind, (kind,)) and halves * rows != columns:
                return shapes[kind] == (columns, halves * rows)
    return False
