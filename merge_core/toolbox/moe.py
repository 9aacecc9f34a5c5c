"""A mixture of experts from dense models: their MLPs side by side in every layer, everything else from the base."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from merge_core.checkpoint.card_metadata import stated_licences
from merge_core.checkpoint.layout import checkpoint_layout, without_wrappers
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.writer import DEFAULT_SHARD_BYTES, ShardWriter
from merge_core.errors import MergeError, and_more
from merge_core.execute.model_card import plain_card
from merge_core.json_files import write_json
from merge_core.output_directory import make_vacant, new_directory
from merge_core.recipe.model_reference import local_directories
from merge_core.toolbox.gates import HiddenStates, alike, gate_directions
from merge_core.toolbox.moe_file import Expert, MoeFile, load_moe_file
from merge_core.toolbox.moe_forms import MoeForm, choose_form
from merge_core.vocabulary.differences import unaligned_rows
from merge_core.vocabulary.tokenizer_files import OutputTokenizer

MOE_FILE = "mergekit_moe_config.yml"


@dataclass(frozen=True, slots=True)
class MoeResult:
    """A finished mixture.

    Attributes:
        path: its directory.
        architecture: the name of its class.
        tensors: how many it has.
        warnings: what a user should know, one line each.
    """

    path: Path
    architecture: str
    tensors: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A tensor of the result: read from a model and changed, or made beforehand."""

    output: str
    source: Checkpoint | None
    tensor: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    scale: float = 1.0
    noise: float = 0.0


def make_mixture(
    file: Path | str,
    output: Path | str,
    *,
    hidden_states: Callable[[Checkpoint], HiddenStates],
    seed: int = 0,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    cache: Path | None = None,
) -> MoeResult:
    """Write the mixture that a file of mergekit-moe describes, one tensor in memory at a time.

    Args:
        file: the file; local models are looked for beside it first.
        output: directory to make; it appears whole or not at all.
        hidden_states: makes what runs the base model on prompts; asked for under ``gate_mode: hidden`` alone.
        seed: of random directions, and of noise.
        shard_bytes: largest size of a weights file.
        overwrite: replace a model that was made here.
        progress: ``progress(done, total, tensor)``, called after every tensor.
        cache: where models of the hub are kept, in place of the hub's own setting.

    Raises:
        MergeError: anything wrong with the file, the models or the output.
    """
    file, output = Path(file), Path(output).absolute()
    mixture, relative_to = load_moe_file(file), file.resolve().parent
    sources = [mixture.base_model, *(e.source_model for e in (*mixture.experts, *mixture.shared_experts))]
    references = list(dict.fromkeys(sources))
    needed = {f'model "{reference}"': local_directories(reference, relative_to) for reference in references}
    make_vacant(output, overwrite, {"the file": [file], **needed})
    opened = open_checkpoints(references, relative_to, cache=cache)
    base = opened[str(mixture.base_model)]
    form = choose_form(mixture.architecture, base.config, len(mixture.shared_experts))
    _check_alike(form, mixture, opened)
    directions = gate_directions(
        mixture.gate_mode, (*mixture.experts, *mixture.shared_experts), base, lambda: hidden_states(base), seed
    )
    dtype = None if mixture.dtype is None else getattr(torch, mixture.dtype)
    jobs = list(_jobs(form, mixture, opened, dtype))
    made = _made_gates(form, mixture, base, directions)
    with new_directory(output, overwrite) as directory:
        OutputTokenizer(base.directory, base.directory, None, None).write(directory)
        shutil.copyfile(file, directory / MOE_FILE)
        about = "A mixture of experts: MLPs of the models side by side, everything else from the base."
        card = plain_card(references, output.name, about, stated_licences(opened), relative_to)
        (directory / "README.md").write_text(card, encoding="utf-8")
        layout = [(job.output, job.dtype, job.shape) for job in jobs]
        ShardWriter(directory, layout, shard_bytes).write(_tensors(jobs, made, seed, progress))
        write_json(directory / "config.json", _config(form, mixture, base))
    alien = "The mixture has the base's tokens: give these models the base's tokenizer first (evolve tokensurgeon)"
    warnings = [*mixture.warnings, *unaligned_rows([str(reference) for reference in references], opened, alien, alien)]
    for a, b in alike(directions[:, : len(mixture.experts)]):
        warnings.append(
            f"experts[{a}] and experts[{b}]: their prompts mean the same to every router. Change one of them"
        )
    return MoeResult(output, str(form.config(1, 1, 1)["architectures"][0]), len(jobs), tuple(warnings))


def _mlp(name: str) -> tuple[str, str] | None:
    """Layer prefix and part of a tensor of a dense MLP: ``model.layers.0.`` and ``up_proj``."""
    prefix, found, part = name.rpartition("mlp.")
    return (prefix, part.removesuffix(".weight")) if found and part.endswith("_proj.weight") else None


def _name_in(source: Checkpoint, name: str) -> str:
    """A tensor's name in a model that may have been saved without its head, and so without ``model.``."""
    bare = source.memo(_name_in, lambda: {without_wrappers(own): own for own in source.tensors})
    return name if name in source.tensors else bare.get(without_wrappers(name), name)


def _check_alike(form: MoeForm, mixture: MoeFile, opened: Mapping[str, Checkpoint]) -> None:
    """Refuse experts whose MLPs are not those of the base, and biases that no mixture holds.

    Raises:
        MergeError: with a line for every model.
    """
    base = opened[str(mixture.base_model)]
    wanted = {name: base.tensors[name].shape for name in base.tensors if _mlp(name)}
    biases = [name for name in base.tensors if ".mlp." in name and name.endswith(".bias")]
    if not wanted or biases:
        found = f"biases in its MLPs ({and_more(biases)})" if biases else "no MLP of gate_proj, up_proj and down_proj"
        raise MergeError(f"base_model: {base.directory} has {found}, of which there are no experts")
    biases = [name for name in base.tensors if "attn." in name and name.endswith(".bias")]
    if biases and not form.attention_biases:
        raise MergeError(
            f"base_model: {base.directory} has biases in its attention ({and_more(biases)}), and the architecture "
            f"{form.name} has none. Use a base model without them"
        )
    problems = []
    for expert in (*mixture.experts, *mixture.shared_experts):
        source = opened[str(expert.source_model)]
        shapes = {name: own.shape for name in wanted if (own := source.tensors.get(_name_in(source, name))) is not None}
        wrong = [name for name, shape in wanted.items() if shapes.get(name) != shape]
        if wrong:
            found = f"{expert.source_model}: not there, or of another shape than in the base: {and_more(wrong)}"
            problems.append(f"{found}. Use models of one shape")
    if problems:
        raise MergeError(*problems)


def _jobs(
    form: MoeForm, mixture: MoeFile, opened: Mapping[str, Checkpoint], dtype: torch.dtype | None
) -> Iterator[_Job]:
    base = opened[str(mixture.base_model)]
    size = base.tensors[str(checkpoint_layout(base).embedding)].shape[1]
    begun: set[str] = set()
    for name, header in base.tensors.items():
        kept = dtype or header.dtype
        place = _mlp(name)
        if place is None:
            yield _Job(name, base, name, kept, header.shape)
            continue
        prefix, part = place
        block = f"{prefix}{form.block}"
        if block not in begun:
            begun.add(block)
            yield _Job(f"{block}.gate.weight", None, prefix, kept, (len(mixture.experts), size))
            if form.shared:
                yield _Job(f"{block}.shared_expert_gate.weight", None, prefix, kept, (1, size))
        for number, expert in enumerate(mixture.experts):
            yield _expert_job(f"{block}.experts.{number}.{form.parts[part]}.weight", name, expert, opened, kept)
        for expert in mixture.shared_experts:
            yield _expert_job(f"{block}.shared_expert.{form.parts[part]}.weight", name, expert, opened, kept)


def _expert_job(output: str, name: str, expert: Expert, opened: Mapping[str, Checkpoint], dtype: torch.dtype) -> _Job:
    source = opened[str(expert.source_model)]
    own = _name_in(source, name)
    scale = expert.residual_scale if "down_proj" in name else 1.0
    return _Job(output, source, own, dtype, source.tensors[own].shape, scale, expert.noise_scale)


def _made_gates(form: MoeForm, mixture: MoeFile, base: Checkpoint, directions: Tensor) -> dict[str, Tensor]:
    """Name → tensor of the routers."""
    layout, count = checkpoint_layout(base), len(mixture.experts)
    made = {}
    for layer in range(layout.layer_count):
        block = f"{layout.layers_name}.{layer}.{form.block}"
        made[f"{block}.gate.weight"] = directions[layer, :count]
        made[f"{block}.shared_expert_gate.weight"] = directions[layer, count:]
    return made


def _tensors(
    jobs: list[_Job],
    made: Mapping[str, Tensor],
    seed: int,
    progress: Callable[[int, int, str], None] | None,
) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for done, job in enumerate(jobs, start=1):
        if job.source is None:
            tensor = made[job.output]
        else:
            tensor = job.source.read(job.tensor)
            if job.noise:
                tensor = tensor.to(torch.float32) + job.noise * torch.randn(job.shape, generator=generator)
            if job.scale != 1.0:
                tensor = tensor.to(torch.float32) * job.scale
        yield job.output, tensor.to(job.dtype)
        if job.source is not None:
            job.source.release(job.tensor)
        if progress is not None:
            progress(done, len(jobs), job.output)


def _config(form: MoeForm, mixture: MoeFile, base: Checkpoint) -> dict[str, object]:
    size = base.config["intermediate_size"]
    own = form.config(len(mixture.experts), mixture.experts_per_token, size)
    config = {**base.config, "sliding_window": base.config.get("sliding_window"), **own}
    if mixture.dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = mixture.dtype
    return config
