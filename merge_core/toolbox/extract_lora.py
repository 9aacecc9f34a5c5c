"""A fine-tuned model as an adapter of its base, in PEFT's format: what differs, in low rank.

The task vector of a matrix is replaced by the nearest matrix of a lower rank, ``W - W_base ≈ B·A``; the adapter's scale
is 1 (``lora_alpha`` is the rank). What LoRA cannot hold is kept whole where PEFT has a place for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merge_core.checkpoint.layout import HEAD, checkpoint_layout
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more
from merge_core.execute.devices import find_device
from merge_core.json_files import write_json
from merge_core.output_directory import make_vacant, new_directory
from merge_core.recipe.model_reference import ModelReference, local_directories
from merge_core.toolbox.adapter_card import adapter_card
from merge_core.toolbox.adapter_places import AdapterPlaces, Selection, find_places
from merge_core.toolbox.low_rank import low_rank
from merge_core.toolbox.peft_adapter import PeftAdapter
from merge_core.vocabulary.differences import unaligned_rows

ERRORS_FILE = "extraction.json"
DEFAULT_RANK = 32


@dataclass(frozen=True, slots=True)
class ExtractedModule:
    """What became of a module that differs from the base's.

    Attributes:
        name: the module; a tensor where it is left out.
        rank: of its update; None where it is kept whole or left out.
        norm: Frobenius norm of the difference.
        error: the Frobenius norm of what the adapter does not hold of it, by ``norm``: 0 whole, 1 left out.
    """

    name: str
    rank: int | None
    norm: float
    error: float


@dataclass(frozen=True, slots=True)
class ExtractedLora:
    """A finished adapter.

    Attributes:
        path: its directory.
        modules: what became of every module that differs.
        bytes: size of its weights.
        warnings: what a user should know, one line each.
    """

    path: Path
    modules: tuple[ExtractedModule, ...]
    bytes: int
    warnings: tuple[str, ...]

    @property
    def error(self) -> float:
        """The relative error of all modules together, in the Frobenius norm."""
        lost = math.fsum((module.error * module.norm) ** 2 for module in self.modules)
        return math.sqrt(lost / math.fsum(module.norm**2 for module in self.modules))

    @property
    def report(self) -> dict[str, Any]:
        """All numbers, as plain data."""
        rows = [{"name": m.name, "rank": m.rank, "norm": m.norm, "error": m.error} for m in self.modules]
        return {"error": self.error, "modules": rows}


def extract_lora(
    model: ModelReference | str,
    base: ModelReference | str,
    output: Path | str,
    *,
    rank: int | None = None,
    energy: float | None = None,
    selection: Selection | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    cache: Path | None = None,
    trust_remote_code: bool = False,
) -> ExtractedLora:
    """Write what a model differs from its base in as a LoRA adapter, one tensor in memory at a time.

    Args:
        model: the fine-tuned model.
        base: what it was made of.
        output: directory to make; it appears whole or not at all.
        rank: the largest rank of an update; `DEFAULT_RANK` where neither it nor ``energy`` is given.
        energy: the share in (0, 1] of every update's squared norm to keep, at the lowest rank that does.
        selection: which modules are brought to low rank, kept whole or left out.
        dtype: of the updates; the model's by default.
        seed: of the randomised SVD of large matrices.
        device: where the arithmetic runs; ``auto`` for a GPU where there is one.
        overwrite: replace an adapter that was made here.
        progress: ``progress(done, total, module)``, called after every module.
        cache: where models of the hub are kept, in place of the hub's own setting.
        trust_remote_code: let Python code that comes with a model be fetched with it.

    Raises:
        MergeError: the models cannot be read, do not belong together or do not differ; the output is taken.
    """
    if rank is None and energy is None:
        rank = DEFAULT_RANK
    model, base = ModelReference.parse(model), ModelReference.parse(base)
    if base.lora is not None:
        raise MergeError(f"{base}: an adapter names one model as its base. Merge the base and its adapter first")
    output = Path(output).absolute()
    needed = {f'model "{reference}"': local_directories(reference) for reference in (model, base)}
    make_vacant(output, overwrite, needed)
    opened = open_checkpoints((model, base), cache=cache, trust_remote_code=trust_remote_code)
    tuned, original = opened[str(model)], opened[str(base)]
    places = find_places(tuned, original, selection or Selection())
    adapter, modules = PeftAdapter(bool(places.transposed)), list[ExtractedModule]()
    with torch.inference_mode():
        work = _Extraction(tuned, original, places, adapter, find_device(device), rank, energy, dtype, seed)
        for done, (name, found) in enumerate(work.steps(), start=1):
            modules += found
            if progress is not None:
                progress(done, work.count, name)
    if not modules:
        raise MergeError(f"{model}: equal to {base} in all that it has, so that there is nothing to extract")
    if not adapter.ranks:
        raise MergeError(f"{model}: no matrix that differs from {base} is brought to low rank. Include more modules")
    alien = "The adapter is for the base's tokens: give the model the base's tokenizer first (evolve tokensurgeon)"
    warnings = (
        *_warnings(modules, adapter, places, tuned, original),
        *unaligned_rows([str(base), str(model)], opened, alien, alien),
    )
    result = ExtractedLora(output, tuple(modules), adapter.bytes, warnings)
    is_causal = any("CausalLM" in name for name in tuned.config.get("architectures") or ())
    all_modules = places.tensors if places.live_modules is None else places.live_modules
    with new_directory(output, overwrite) as directory:
        write_json(directory / ERRORS_FILE, result.report)
        (directory / "README.md").write_text(adapter_card(model, base, output.name, result.error), encoding="utf-8")
        adapter.write(directory, adapter.config(str(base), all_modules, "CAUSAL_LM" if is_causal else None))
    return result


@dataclass(frozen=True, slots=True)
class _Extraction:
    """One pass over the modules of a model, which fills an adapter."""

    model: Checkpoint
    base: Checkpoint
    places: AdapterPlaces
    adapter: PeftAdapter
    device: torch.device
    rank: int | None
    energy: float | None
    dtype: torch.dtype | None
    seed: int

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.places.low_rank) + len(self.places.whole) + len(self.places.nowhere)

    def steps(self) -> Iterator[tuple[str, list[ExtractedModule]]]:
        """Names of modules as they are done, with what became of those that differ."""
        for module in self.places.low_rank:
            yield module, self._bring_to_low_rank(module)
        for module in self.places.whole:
            yield module, self._keep_whole(module)
        for tensor in self.places.nowhere:
            norm = self._norm(tensor)
            yield tensor, [ExtractedModule(tensor, None, norm, 1.0)] if norm else []

    def _bring_to_low_rank(self, module: str) -> list[ExtractedModule]:
        found = []
        for name in self.places.tensors[module]:
            change = self._change(name)
            norm = float(torch.linalg.vector_norm(change, dtype=torch.float64))
            if norm and name.endswith(".bias"):
                self.adapter.add_bias(self.places.live[module], self.model.read(name))
                found.append(ExtractedModule(name, None, norm, 0.0))
            elif norm:
                rank, error = self._add_update(module, change, self.model.tensors[name].dtype)
                found.append(ExtractedModule(module, rank, norm, error / norm))
            self._release(name)
        if found and self.places.live[module] not in self.adapter.ranks:
            # PEFT reads the bias of a module with an update alone: here is one of zeros.
            header = self.model.tensors[f"{module}.weight"]
            outputs, inputs = header.shape[::-1] if module in self.places.transposed else header.shape
            dtype = self.dtype or header.dtype
            down, up = torch.zeros(1, inputs, dtype=dtype), torch.zeros(outputs, 1, dtype=dtype)
            self.adapter.add_update(self.places.live[module], down, up, is_embedding=False)
        return found

    def _add_update(self, module: str, change: Tensor, dtype: torch.dtype) -> tuple[int, float]:
        """Add the low-rank form of a change; its rank and the norm of what is lost, rounding included."""
        is_embedding = module == self.places.embedding
        turned = is_embedding or module in self.places.transposed
        update = low_rank(change.T if turned else change, self.rank, self.energy, self.seed)
        down, up = (part.to(self.dtype or dtype) for part in (update.down, update.up))
        kept = up.to(torch.float32) @ down.to(torch.float32)
        lost = change.sub_(kept.T if turned else kept)
        error = float(torch.linalg.vector_norm(lost, dtype=torch.float64))
        self.adapter.add_update(self.places.live[module], down, up, is_embedding=is_embedding)
        return update.rank, error

    def _keep_whole(self, module: str) -> list[ExtractedModule]:
        names = self.places.tensors[module]
        norm = math.hypot(*(self._norm(name) for name in names))
        if not norm:
            return []
        parts = {name.removeprefix(f"{module}."): self.model.read(name) for name in names}
        self.adapter.keep_whole(self.places.live[module], parts)
        if module == self.places.embedding and checkpoint_layout(self.model).tied:
            # PEFT replaces the embedding alone, and would leave the base's to the head.
            self.adapter.keep_whole(HEAD.removesuffix(".weight"), parts)
        return [ExtractedModule(module, None, norm, 0.0)]

    def _change(self, name: str) -> Tensor:
        """The difference from the base in float32; that of added rows is what they are.

        Raises:
            MergeError: it is not finite.
        """
        change = self._difference(name)
        if not change.isfinite().all():
            raise MergeError(
                f"{self.model.directory} or {self.base.directory}: tensor {name} has NaN or infinite values. Fetch its "
                "files again"
            )
        return change

    def _difference(self, name: str) -> Tensor:
        own = self.model.read(name).to(self.device, torch.float32)
        other = self.places.in_base[name]
        if other not in self.base.tensors:
            return own.clone()
        there = self.base.read(other).to(self.device, torch.float32)
        if own.shape == there.shape:
            return own - there
        change = own.clone()
        rows = min(len(own), len(there))
        change[:rows] -= there[:rows]
        return change

    def _norm(self, name: str) -> float:
        norm = float(torch.linalg.vector_norm(self._change(name), dtype=torch.float64))
        self._release(name)
        return norm

    def _release(self, name: str) -> None:
        self.model.release(name)
        if self.places.in_base[name] in self.base.tensors:
            self.base.release(self.places.in_base[name])


def _warnings(
    modules: Iterable[ExtractedModule],
    adapter: PeftAdapter,
    places: AdapterPlaces,
    model: Checkpoint,
    base: Checkpoint,
) -> Iterator[str]:
    left_out = [module.name for module in modules if module.error == 1.0 and module.rank is None]
    if left_out:
        yield f"differ and are left out: {and_more(left_out)}; the error counts them"
    if places.live_modules is None:
        yield (
            f"{base.directory}: names no class of transformers. The adapter has the checkpoint's names of modules: "
            "see that PEFT finds them"
        )
    if places.live.get(places.embedding or "") in adapter.ranks and checkpoint_layout(model).tied:
        yield (
            f"{places.embedding}: is the head too, which has its update only once the adapter is merged. To apply it "
            "unmerged, keep the embedding whole"
        )
    whole = [module for module in places.whole if places.live[module] in adapter.whole]
    for name in (name for module in whole for name in places.tensors[module]):
        there, rows = base.tensors.get(places.in_base[name]), model.tensors[name].shape[0]
        if there is not None and there.shape[0] != rows:
            found = f"{name}: has {rows} rows, the base {there.shape[0]}"
            yield f"{found}. Before PEFT loads the adapter, resize the base's embedding"
