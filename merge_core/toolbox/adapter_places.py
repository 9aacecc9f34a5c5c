"""Where PEFT has a place for what differs between two models: in low rank, whole, or nowhere. From headers alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from merge_core.checkpoint.layout import Layout, checkpoint_layout, is_head, without_wrappers
from merge_core.checkpoint.patterns import matches
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more
from merge_core.input_files import reading
from merge_core.toolbox.live_modules import live_modules

# Routed experts are one module in some releases of transformers and many in others, so that no name of theirs holds.
_EXPERT = re.compile(r"(^|\.)experts(\.|$)")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which modules become what.

    Attributes:
        include: patterns (``.*mlp`` for every MLP) of the modules that the adapter has; all where there are none.
        exclude: patterns of the modules that it leaves out.
        save: last parts of the names of modules that are kept whole.
        embeddings: whether embedding and head are brought to low rank, too, rather than kept whole.
        whole: whether what LoRA cannot hold (norms) is kept whole, rather than left out.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    save: tuple[str, ...] = ()
    embeddings: bool = False
    whole: bool = True

    def covers(self, module: str) -> bool:
        """Whether anything of a module goes into the adapter."""
        included = not self.include or any(matches(pattern, module) for pattern in self.include)
        return included and not any(matches(pattern, module) for pattern in self.exclude)

    def saves(self, module: str) -> bool:
        """Whether a module is named to be kept whole."""
        return any(f".{module}".endswith(f".{name}") for name in self.save)


@dataclass(frozen=True, slots=True)
class AdapterPlaces:
    """Modules by what an adapter does with them; a module goes by the name of its tensors without the last part.

    Attributes:
        low_rank: modules whose weight is a matrix that LoRA adds to.
        whole: modules that are kept as they are (``modules_to_save``).
        nowhere: tensors that there is no place for.
        tensors: module → the names of its tensors.
        in_base: tensor → its name in the base.
        embedding: the module with the input embedding.
        transposed: modules whose matrix is [inputs, outputs], as GPT-2's.
        live: module → its name in transformers, by which PEFT finds it.
        live_modules: names of all modules there; None where transformers does not know the model, and the
            checkpoint's names have to do.
    """

    low_rank: tuple[str, ...]
    whole: tuple[str, ...]
    nowhere: tuple[str, ...]
    tensors: Mapping[str, tuple[str, ...]]
    in_base: Mapping[str, str]
    embedding: str | None
    transposed: frozenset[str]
    live: Mapping[str, str]
    live_modules: tuple[str, ...] | None


def find_places(model: Checkpoint, base: Checkpoint, selection: Selection) -> AdapterPlaces:
    """Sort the modules of a model by what an adapter for its base can do with them.

    Args:
        model: the fine-tuned model.
        base: what it was made of.
        selection: what the user wants of it.

    Raises:
        MergeError: the models differ in tensors, or in shapes other than the number of tokens.
    """
    layout = checkpoint_layout(model)
    of_tokens = {_module(name) for name in layout.vocabulary_tensors}
    in_base = _names_in_base(model, base, layout)
    modules: dict[str, list[str]] = defaultdict(list)
    for name in in_base:
        modules[_module(name)].append(name)
    shapes = {
        name: (model.tensors[name].shape, base.tensors[other].shape)
        for name, other in in_base.items()
        if other in base.tensors
    }
    resized = {_module(name) for name, (own, there) in shapes.items() if own != there}
    wrong = resized - of_tokens | {_module(name) for name, (own, there) in shapes.items() if own[1:] != there[1:]}
    if wrong:
        raise MergeError(
            f"{model.directory}: of other shapes than in {base.directory}: {and_more(wrong)}. Name its base"
        )
    tables = {_module(name) for name in layout.before.values()}
    routers = {f"{name.partition('.experts.')[0]}.gate" for name in model.tensors if ".experts." in name}
    with reading(base.directory / "config.json"):
        known = live_modules(base.config)
    live: dict[str, str] = {}
    low_rank: list[str] = []
    whole: list[str] = []
    nowhere: list[str] = []
    for module, names in modules.items():
        name_in_base = _module(in_base[names[0]])
        there = name_in_base if known is None else known.name_of(name_in_base)
        has_place = not _EXPERT.search(module) and all(name.endswith((".weight", ".bias")) for name in names)
        if module in of_tokens:
            may_be_low = selection.embeddings and module not in resized
        else:
            may_be_low = _has_matrix(module, model) and module not in tables and module not in routers
        if there is None or not has_place or not selection.covers(module):
            nowhere += names
            continue
        live[module] = there
        may_be_low = may_be_low and (known is None or known.is_matrix(there))
        if may_be_low and not selection.saves(module) and all(in_base[name] in base.tensors for name in names):
            low_rank.append(module)
        elif selection.whole or module in of_tokens or selection.saves(module):
            whole.append(module)
        else:
            nowhere += names
    mistaken = set(_mistaken([live[module] for module in whole], live.values() if known is None else known.names))
    nowhere += [name for module in whole if live[module] in mistaken for name in modules[module]]
    whole = [module for module in whole if live[module] not in mistaken]
    layer_matrices = [module for module in low_rank if module not in of_tokens]
    return AdapterPlaces(
        tuple(low_rank),
        tuple(whole),
        tuple(nowhere),
        {module: tuple(names) for module, names in modules.items()},
        in_base,
        None if layout.embedding is None else _module(layout.embedding),
        frozenset(layer_matrices if any(_has_outputs_last(module, model) for module in layer_matrices) else ()),
        live,
        None if known is None else known.names,
    )


def _mistaken(whole: Collection[str], names: Iterable[str]) -> Iterator[str]:
    """Modules for which PEFT would take others too: it looks for a text, as ``norm`` in ``input_layernorm``."""
    others = set(names) - set(whole)
    return (module for module in whole if any(other.endswith(module) for other in others))


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _names_in_base(model: Checkpoint, base: Checkpoint, layout: Layout) -> dict[str, str]:
    """Tensors that the model reads → their names in the base, which may have been saved in another wrapper."""
    bare = {without_wrappers(name): name for name in base.tensors}
    names = {
        name: name if name in base.tensors else bare.get(without_wrappers(name), name) for name in _tensors_read(layout)
    }
    unknown = [name for name, other in names.items() if other not in base.tensors and not is_head(name)]
    read_there = [name for name in _tensors_read(checkpoint_layout(base)) if not is_head(name)]
    missing = set(read_there) - set(names.values())
    if unknown or missing:
        raise MergeError(
            f"{model.directory}: does not have the tensors of {base.directory}, but for "
            f"{and_more(sorted({*unknown, *missing}))}. Name the base that it was made of"
        )
    return names


def _tensors_read(layout: Layout) -> Iterator[str]:
    yield from layout.before.values()
    for layer in (*layout.layers, *layout.extra):
        yield from layer.values()
    for module in layout.modules.values():
        yield from module.values()
    yield from layout.after.values()


def _has_matrix(module: str, model: Checkpoint) -> bool:
    header = model.tensors.get(f"{module}.weight")
    return header is not None and len(header.shape) == 2


def _has_outputs_last(module: str, model: Checkpoint) -> bool:
    """Whether a matrix is [inputs, outputs]: its bias is as long as its rows."""
    bias = model.tensors.get(f"{module}.bias")
    outputs, inputs = model.tensors[f"{module}.weight"].shape
    return bias is not None and outputs != bias.shape[0] == inputs
