"""What a live model computes by, remembered, so that whatever user code does to it is noticed.

Python functions of the user's run in the process of the model and can reach it. A search writes only what a candidate
changes, so one tensor that such a function leaves changed would be scored with every candidate after it.

Contents are compared by checksums: version counters of torch do not see writes through `.data` or NumPy. A tensor's
words are summed by rows and by columns, modulo 2^64, each sum times an odd number of its own; a change of one word
changes them for certain, since odd numbers have inverses. This costs two passes over the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_COLUMNS = 512
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)
# Modules that keep what they saw last, by the length of their inputs.
_STATEFUL_ROPE = ("dynamic", "longrope")
_SHOWN = 3


class ModelState:
    """The state of a model at one moment.

    Args:
        model: a live one.
        tokenizer: its own.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._forwards = {type(module): type(module).forward for _, module in self._modules()}
        self._structure = self._find_structure()
        self._settings = self._find_settings()
        self.tensors_written()

    def tensors_written(self) -> None:
        """Take the tensors as they are now, which a candidate was written into."""
        self._tensors = self._find_tensors()

    def changes(self) -> list[str]:
        """What is different now, in words; empty where nothing is."""
        found = []
        for kind, before, now in (
            ("tensors", self._tensors, self._find_tensors()),
            ("modules", self._structure, self._find_structure()),
            ("settings", self._settings, self._find_settings()),
        ):
            names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                found.append(f"{kind} {', '.join(names[:_SHOWN])}{more}")
        classes = [kind for kind, forward in self._forwards.items() if kind.forward is not forward]
        if classes:
            found.append(f"code of {', '.join(kind.__name__ for kind in classes)}")
        return found

    def restore_code(self) -> None:
        """Give classes their own `forward` back. Everything else a new model has by itself."""
        for kind, forward in self._forwards.items():
            if kind.forward is not forward:
                kind.forward = forward

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self._model.named_modules(remove_duplicate=False):
            yield name or "the model", module

    @torch.no_grad()
    def _find_tensors(self) -> dict[str, object]:
        """Name -> place, form and checksum. Of a tensor under two names both count."""
        names, forms, sums = [], [], []
        known: dict[tuple[object, ...], Tensor] = {}
        model, passing = self._model, _passing_buffers(self._model)
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            if name in passing:
                continue
            plain = tensor.data
            place = (plain.data_ptr(), tuple(plain.shape), plain.stride(), plain.dtype, str(plain.device))
            if place not in known:
                known[place] = _checksum(plain)
            names.append(name)
            forms.append((place, tensor.grad is not None))
            sums.append(known[place])
        # One transfer from a device for all of them.
        by_device: dict[torch.device, list[int]] = {}
        for place_in_list, one in enumerate(sums):
            by_device.setdefault(one.device, []).append(place_in_list)
        values: list[object] = [None] * len(sums)
        for members in by_device.values():
            told = torch.stack([sums[member] for member in members]).tolist()
            for member, value in zip(members, told, strict=True):
                values[member] = value
        return {name: (form, value) for name, form, value in zip(names, forms, values, strict=True)}

    def _find_structure(self) -> dict[str, object]:
        """Name of a module -> the module itself, its mode, its hooks and the plain values it computes with."""
        return {name: _form_of(module) for name, module in self._modules()}

    def _find_settings(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for name in ("config", "generation_config"):
            settings = getattr(self._model, name, None)
            if settings is not None:
                found[name] = json.dumps(settings.to_dict(), sort_keys=True, default=str)
        if self._tokenizer is not None:
            for name in ("padding_side", "truncation_side", "chat_template", "special_tokens_map"):
                found[f"tokenizer.{name}"] = str(getattr(self._tokenizer, name, None))
            found["tokenizer.vocabulary"] = len(self._tokenizer)
        return found


def _passing_buffers(model: nn.Module) -> set[str]:
    """The buffers that a forward writes by itself."""
    return {
        f"{name}.{buffer}".removeprefix(".")
        for name, module in model.named_modules()
        if getattr(module, "rope_type", None) in _STATEFUL_ROPE
        for buffer, _ in module.named_buffers(recurse=False)
    }


def _form_of(module: nn.Module) -> tuple[object, ...]:
    own = vars(module)
    hooks = tuple((name, *own[name].values()) for name in _HOOKS if own.get(name))
    stateful = own.get("rope_type") in _STATEFUL_ROPE
    plain = {name: value for name, value in own.items() if isinstance(value, bool | int | float | str | None)}
    replaced = {name: value for name, value in own.items() if callable(value) and not isinstance(value, nn.Module)}
    children = tuple(id(child) for child in own.get("_modules", {}).values())
    return (id(module), type(module), module.training, hooks, children, None if stateful else plain, replaced)


def _checksum(tensor: Tensor) -> Tensor:
    """Two numbers of 64 bits, on the tensor's device, of which a change of any word changes one."""
    if tensor.is_meta or not tensor.numel():
        return torch.zeros(2, dtype=torch.int64)
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    whole = flat.numel() // 8 * 8
    words = flat[:whole]
    # Memory that begins between words is copied; torch allocates none such.
    words = (words if words.data_ptr() % 8 == 0 else words.clone()).view(torch.int64)
    rest = flat[whole:].to(torch.int64)
    rows = words[: words.numel() // _COLUMNS * _COLUMNS].view(-1, _COLUMNS)
    tail = words[rows.numel() :]
    by_rows, by_columns = torch.cat([rows.sum(dim=1), tail, rest]), rows.sum(dim=0)
    return torch.stack([(one * _odd_numbers(one.numel(), tensor.device)).sum() for one in (by_rows, by_columns)])


def _odd_numbers(count: int, device: torch.device) -> Tensor:
    """Different odd numbers, spread over 64 bits (multiples of the golden ratio's; Knuth, volume 3, section 6.4)."""
    golden = -7046029254386353131  # 2^64 / golden ratio, as a signed number
    return (torch.arange(1, count + 1, device=device, dtype=torch.int64) * golden) | 1
