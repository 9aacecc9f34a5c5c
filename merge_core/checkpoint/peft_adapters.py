"""``MODEL+ADAPTER`` for adapters other than plain LoRA: PEFT itself folds them in, tensor by tensor, as they are read.

LoHa, LoKr, IA3, VeRA, AdaLoRA and others, and LoRA on single parameters, tokens and biases or with an initialisation
that changes the base. PEFT's layers are put on a skeleton of the model, whose matrices are there while they are read.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from merge_core.checkpoint.adapter_files import AdaptedCheckpoint, open_adapter
from merge_core.checkpoint.layout import checkpoint_layout, without_wrappers
from merge_core.checkpoint.patterns import check_patterns
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more
from merge_core.input_files import reading

# Initialisations that put into the adapter what they take out of the base: PEFT does it again on each matrix.
TAKEN_FROM_BASE = ("pissa", "olora")
_ROOT = "base_model.model."


class PeftCheckpoint(AdaptedCheckpoint):
    """A base model with an adapter folded in by PEFT.

    Args:
        base: the model.
        adapter: directory of the adapter.

    Raises:
        MergeError: the package ``peft`` is missing; PEFT does not know the adapter, cannot fold it in, or it does not
            fit the base.
    """

    def __init__(self, base: Checkpoint, adapter: Path) -> None:
        self._base, self._adapter = base, open_adapter(adapter)
        self._lock = threading.Lock()
        self._replaced = self._whole_modules()
        start = self._adapter.config.get("init_lora_weights")
        self._one_by_one = isinstance(start, str) and start.startswith(TAKEN_FROM_BASE)
        with reading(adapter, "Merge the adapter with PEFT first"):
            self._skeleton = _Skeleton(base, base.tensors)
            self._skeleton.adapt(self._adapter, self._replaced.values())
        self._folded = self._skeleton.layers
        tensors = dict(base.tensors)
        for name, stored in self._replaced.items():
            tensors[name] = self._adapter.tensors[stored]
        super().__init__(base.directory, base.config, tensors, base.trust_remote_code)

    def read(self, name: str) -> Tensor:
        """Read a tensor, the adapter folded in."""
        if name in self._replaced:
            return self._adapter.read(self._replaced[name])
        if name not in self._folded:
            return self._base.read(name)
        with self._lock, reading(f"{self._adapter.directory}: {name}", "Merge the adapter with PEFT first"):
            if not self._one_by_one:
                return self._skeleton.fold(name)
            alone = _Skeleton(self._base, [name], real=True)
            alone.adapt(self._adapter, self._replaced.values())
            return alone.fold(name)

    def _whole_modules(self) -> dict[str, str]:
        """Tensors of the base → those that the adapter has in their place."""
        names = {without_wrappers(name): name for name in self._base.tensors}
        saved = self._adapter.config.get("modules_to_save") or ()
        whole = {}
        for stored in self._adapter.tensors:
            own = stored.removeprefix(_ROOT).replace(".modules_to_save", "").replace(".default", "")
            if any(f".{own.rpartition('.')[0]}".endswith(f".{module}") for module in saved):
                found = own if own in self._base.tensors else names.get(without_wrappers(own))
                if found is not None:
                    whole[found] = stored
        return whole


class _Skeleton:
    """A model of modules whose weights have shapes and no memory, with an adapter's layers on it.

    Attributes:
        model: the modules, by the names of the base's tensors.
        layers: tensor → PEFT's layers that change it.
    """

    def __init__(self, base: Checkpoint, names: Iterable[str], *, real: bool = False) -> None:
        self._base, self._real = base, real
        self.model = nn.Module()
        self.layers: dict[str, list[Any]] = {}
        self._modules: dict[str, nn.Module] = {}
        tables = set(checkpoint_layout(base).before.values())
        parts: dict[str, list[str]] = defaultdict(list)
        for name in names:
            parts[name.rpartition(".")[0]].append(name)
        for module, tensors in parts.items():
            self._add(module, tensors, tables)

    def _add(self, name: str, tensors: list[str], tables: set[str]) -> None:
        shapes = {tensor.rpartition(".")[2]: self._base.tensors[tensor].shape for tensor in tensors}
        shape = shapes.get("weight", ())
        made: Any = nn.Module()
        with torch.device("meta"):  # nothing is allocated
            if len(shape) == 2 and f"{name}.weight" in tables:
                made = nn.Embedding(shape[0], shape[1])
            elif len(shape) == 2:
                made = nn.Linear(shape[1], shape[0], bias="bias" in shapes)
        # PEFT nests its layers on a module's parameters in the order in which transformers declares those.
        for tensor in sorted(tensors, key=lambda tensor: "down_proj" in tensor):
            setattr(made, tensor.rpartition(".")[2], self._placeholder(tensor))
        made.is_transposed = _is_transposed(shapes)  # as transformers says it of experts, for PEFT to know
        above = self.model
        *path, last = name.split(".")
        for part in path:
            if part not in above._modules:
                above.add_module(part, nn.Module())
            above = above.get_submodule(part)
        for child, module in above.get_submodule(last).named_children() if last in above._modules else ():
            made.add_module(child, module)
        above.add_module(last, made)
        self._modules[name] = made

    def _placeholder(self, tensor: str) -> nn.Parameter:
        if self._real:
            return nn.Parameter(self._base.read(tensor).to(torch.float32).clone(), requires_grad=False)
        # One number, seen as many: PEFT asks for shape, dtype and device, and takes a meta tensor's for its own.
        return nn.Parameter(torch.zeros(()).expand(self._base.tensors[tensor].shape), requires_grad=False)

    def adapt(self, adapter: Checkpoint, whole: Iterable[str]) -> None:
        """Put an adapter's layers on the modules, and its tensors into them.

        Raises:
            MergeError: tensors of the adapter that no layer takes, or no layer at all.
        """
        try:
            import peft
        except ImportError as error:
            raise MergeError(
                f"{adapter.directory}: an adapter that PEFT folds in, which is not installed. "
                "pip install 'evolve-merge[peft]'"
            ) from error
        kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(adapter.config.get("peft_type", "LORA"))]
        known = {field.name for field in dataclasses.fields(kind) if field.init}  # what later versions add is left out
        config = kind(**{key: value for key, value in adapter.config.items() if key in known})
        config.modules_to_save = config.task_type = None
        config.inference_mode = True
        if hasattr(config, "megatron_config"):
            config.megatron_config = None  # for which PEFT imports a module that the adapter names
        self._refuse_ranks(adapter)
        check_patterns(adapter.config, (name for name, _ in self.model.named_modules()))
        if not self._real and hasattr(config, "init_lora_weights"):
            config.init_lora_weights = True  # what takes from the base has nothing to take from here
        adapted = peft.get_peft_model(self.model, config)
        loaded = peft.set_peft_model_state_dict(adapted, self._renamed(adapter, set(whole)))
        if loaded.unexpected_keys and not self._real:
            hint = adapter.config.get("base_model_name_or_path")
            raise MergeError(
                f"{adapter.directory}: the base {self._base.directory} has nothing for "
                f"{and_more(loaded.unexpected_keys)}. Name the base it was made for{f': {hint}' if hint else ''}"
            )
        names = {id(module): name for name, module in self._modules.items()}
        for layer in adapted.modules():
            if hasattr(layer, "get_base_layer") and hasattr(layer, "merge"):
                name = names.get(id(layer.get_base_layer()))
                if name is not None:
                    self._note(name, layer)

    def _refuse_ranks(self, adapter: Checkpoint) -> None:
        """Memory is allocated by what the config says, before it is found that the tensors have other shapes.

        Raises:
            MergeError: a rank that no matrix of the base has.
        """
        settings = adapter.config
        if settings.get("peft_type") == "LOKR":  # where it means that a factor is whole
            return
        largest = max((size for header in self._base.tensors.values() for size in header.shape), default=0)
        patterns = settings.get("rank_pattern")
        named = {f"rank_pattern.{key}": rank for key, rank in (patterns if isinstance(patterns, dict) else {}).items()}
        for name, rank in ({key: settings.get(key) for key in ("r", "init_r", "target_r")} | named).items():
            if isinstance(rank, int) and rank > largest:
                raise MergeError(f"{adapter.directory}: {name} {rank}: no matrix of the base has more than {largest}")

    def _note(self, module: str, layer: Any) -> None:
        parts = {getattr(layer, "parameter_name", "weight")}
        scales_outputs = getattr(layer, "is_feedforward", None) is False  # IA3
        if scales_outputs or any(getattr(layer, "lora_bias", {}).values()):
            parts.add("bias")
        for part in parts:
            if f"{module}.{part}" in self._base.tensors:
                self.layers.setdefault(f"{module}.{part}", []).append(layer)

    def _renamed(self, adapter: Checkpoint, whole: set[str]) -> dict[str, Tensor]:
        """The adapter's tensors, modules named as the base names them."""
        bare = {without_wrappers(f"{name}."): name for name in self._modules}
        renamed = {}
        for stored in adapter.tensors:
            if stored in whole:
                continue
            own = stored.removeprefix(_ROOT)
            parts = own.split(".")
            for count in range(len(parts) - 1, 0, -1):
                head = ".".join(parts[:count])
                found = head if head in self._modules else bare.get(without_wrappers(f"{head}."))
                if found is not None:
                    own = ".".join([found, *parts[count:]])
                    break
            renamed[f"{_ROOT if stored.startswith(_ROOT) else ''}{own}"] = adapter.read(stored)
        return renamed

    def fold(self, name: str) -> Tensor:
        """A tensor with the adapter's change, float32."""
        module, _, part = name.rpartition(".")
        layers = self.layers[name]
        changed = {part, *(other for other in ("weight", "bias") if layers == self.layers.get(f"{module}.{other}"))}
        with self._filled(module, changed), torch.no_grad():
            for layer in layers:
                layer.merge(adapter_names=["default"])
            folded: Tensor = getattr(self._modules[module], part).detach().to(torch.float32).contiguous()
            for layer in layers:
                layer.merged_adapters.clear()
        return folded

    @contextmanager
    def _filled(self, module: str, parts: Iterable[str]) -> Any:
        """Give parts of a module their numbers, for a while."""
        holder = self._modules[module]
        before = {part: holder._parameters[part] for part in parts}
        try:
            for part in parts:
                numbers = self._base.read(f"{module}.{part}").to(torch.float32).clone()
                if not self._real:
                    holder._parameters[part] = nn.Parameter(numbers, requires_grad=False)
            yield
        finally:
            if not self._real:
                holder._parameters.update(before)


def _is_transposed(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether stacked experts have their matrices as [inputs, outputs]."""
    up, down = shapes.get("gate_up_proj", ()), shapes.get("down_proj", ())
    return len(up) == len(down) == 3 and up[2] == 2 * down[1] and up[1] != 2 * down[2]
