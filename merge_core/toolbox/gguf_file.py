"""A model as one file of llama.cpp: the architectures whose every number is known to come through right.

For all others there is llama.cpp's own converter, whose command the error says.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more, did_you_mean, first_line
from merge_core.input_files import reading
from merge_core.recipe.model_reference import ModelReference, local_directories, model_in
from merge_core.toolbox.gguf_vocabulary import add_vocabulary

TYPES = ("F32", "F16", "BF16", "Q8_0")
"""Types of weights that are written here."""

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ROPE_BASE = 10_000.0  # where a config says none


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor of the file: its name there, its type, its shape, and its name in the model or what it holds."""

    name: str
    type: str
    shape: tuple[int, ...]
    tensor: str | Tensor


def write_gguf(
    model: ModelReference | str,
    output: Path | str,
    type_name: str = "Q8_0",
    *,
    progress: Callable[[int, int, str], None] | None = None,
    cache: Path | None = None,
) -> Path:
    """Write a model as a GGUF file, one tensor in memory at a time.

    Args:
        model: Llama, also with the scaled rotations of Llama 3.1, Mistral without a sliding window, Qwen2 or Qwen3;
            with a byte-level BPE tokenizer.
        output: the file; there must be none.
        type_name: one of `TYPES`, of matrices; norms and biases are in F32.
        progress: ``progress(done, total, tensor)``, called after every tensor.
        cache: where models of the hub are kept, in place of the hub's own setting.

    Raises:
        MergeError: the package ``gguf`` is missing, the output is there, or the model cannot be written here,
            with the command that can.
    """
    model, output = ModelReference.parse(model), Path(output).absolute()
    _check_free(output)
    check_type(type_name, model, output)
    checkpoint = open_checkpoints((model,), cache=cache)[str(model)]
    temporary = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        with _begun(checkpoint, temporary, model, output, type_name) as (writer, parts):
            _write_tensors(writer, checkpoint, parts, progress)
        _check_free(output)  # again: writing takes long
        os.replace(temporary, output)
    except OSError as error:  # of numpy's own without a number, as of a full disk
        raise MergeError(f"{output}: cannot be written: {error.strerror or error}. Name an output with room") from error
    finally:
        temporary.unlink(missing_ok=True)
    return output


def check_gguf(checkpoint: Checkpoint, model: ModelReference | str, output: Path, type_name: str) -> None:
    """Refuse what `write_gguf` would refuse of a model, also before there is one.

    Args:
        checkpoint: what is known of the model, of which no tensor is read.
        model: its name.
        output, type_name: as in `write_gguf`.

    Raises:
        MergeError: as `write_gguf`.
    """
    check_type(type_name, model, output)
    with _begun(checkpoint, Path(os.devnull), model, output, type_name):
        pass


def _check_free(output: Path) -> None:
    if os.path.lexists(output):
        raise MergeError(f"{output}: exists. Name another file, or move it away")


def check_type(type_name: str, model: ModelReference | str, output: Path) -> None:
    """Refuse a type that `write_gguf` has no form for.

    Args:
        type_name: of matrices.
        model: what is to be written.
        output: the file.

    Raises:
        MergeError: the package ``gguf`` is missing, or it is none of `TYPES`, with the command that may know it.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MergeError("GGUF files need the package gguf. pip install 'evolve-merge[gguf]'")
    if type_name not in TYPES:
        found = f"type {type_name}: not written here.{did_you_mean(type_name, TYPES)}"
        raise MergeError(f"{found} {_elsewhere(model, output, type_name)}")


@contextlib.contextmanager
def _begun(
    checkpoint: Checkpoint, file: Path, model: ModelReference | str, output: Path, type_name: str
) -> Iterator[tuple[Any, list[_Part]]]:
    """A file with all but the values of its tensors, which are then written; these.

    Raises:
        MergeError: the model cannot be written here, with the command that can.
    """
    import gguf

    try:
        with reading("its config or tokenizer"):
            parts = list(_parts(gguf, checkpoint, type_name))
            writer = gguf.GGUFWriter(file, _ARCHITECTURES[checkpoint.config["model_type"]])
            _add_numbers(gguf, writer, checkpoint, output.stem, type_name)
            embedding = checkpoint.tensors[str(checkpoint_layout(checkpoint).embedding)]
            add_vocabulary(writer, checkpoint, embedding.shape[0])
    except MergeError as error:
        raise MergeError(f"{model}: {error}. {_elsewhere(model, output, type_name)}") from error
    with contextlib.closing(writer):
        try:
            _write_head(gguf, writer, parts)
        except (ArithmeticError, struct.error, TypeError, ValueError) as error:  # what the file has no form for
            raise MergeError(f"{model}: its config or tokenizer makes no sense: {first_line(error)}") from error
        yield writer, parts


def _elsewhere(model: ModelReference | str, output: Path, type_name: str) -> str:
    return f"llama.cpp's own tools may know it: {_commands(model, output, type_name)}"


def _commands(model: ModelReference | str, output: Path, type_name: str) -> str:
    if isinstance(model, ModelReference) and model.lora is None:  # a text names what is not written yet
        model = next((str(model_in(directory)) for directory in local_directories(model)), str(model))
    if type_name in TYPES:
        return f"python llama.cpp/convert_hf_to_gguf.py {model} --outfile {output} --outtype {type_name.lower()}"
    whole = output.with_name(f"{output.stem}-F16.gguf")
    return (
        f"python llama.cpp/convert_hf_to_gguf.py {model} --outfile {whole} --outtype f16 && "
        f"llama-quantize {whole} {output} {type_name}"
    )


def _parts(gguf: Any, model: Checkpoint, type_name: str) -> Iterator[_Part]:
    """The tensors of the file, in the model's order.

    Raises:
        MergeError: what is known to be different from what the architecture computes.
    """
    config, kind = model.config, model.config.get("model_type")
    if kind not in _ARCHITECTURES:
        raise MergeError(f"models of type {kind} are not written here")
    rope = _rope(config)
    divisors = _frequency_divisors(config) if _ARCHITECTURES[kind] == "llama" else None
    if divisors is not None:
        yield _Part("rope_freqs.weight", "F32", tuple(divisors.shape), divisors)
    rope_type = rope.get("rope_type", rope.get("type", "default")) if divisors is None else "default"
    odd = [
        f"{name} {value}"
        for name, value, usual in (
            ("rope_type", rope_type, "default"),
            ("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0),
            ("sliding_window", config.get("sliding_window") if config.get("use_sliding_window", True) else None, None),
            ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        )
        if value != usual
    ]
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[_ARCHITECTURES[kind].upper()], checkpoint_layout(model).layer_count
    )
    tied = checkpoint_layout(model).tied
    unknown = []
    for tensor, header in model.tensors.items():
        name = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if (tied and name == "output.weight") or tensor.endswith("rotary_emb.inv_freq"):
            continue
        if name is None or (_ARCHITECTURES[kind] == "llama" and tensor.endswith(".bias")):
            unknown.append(tensor)
        elif len(header.shape) == 1:
            yield _Part(name, "F32", header.shape, tensor)
        else:
            block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]][0]
            yield _Part(name, type_name if header.shape[-1] % block == 0 else "F16", header.shape, tensor)
    if odd or unknown:
        raise MergeError(f"not written here with {and_more([*odd, *unknown])}")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {**({"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}), **found}


def _frequency_divisors(config: Mapping[str, Any]) -> Tensor | None:
    """What Llama 3.1 divides the frequencies of its rotations by, one for each; None where it does not.

    A frequency that turns less than ``low_freq_factor`` times within the context of the pretraining is divided by
    ``factor``, one that turns more than ``high_freq_factor`` times stays; between them the factor goes over.
    """
    rope = _rope(config)
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if rope.get("rope_type", rope.get("type")) != "llama3" or not all(key in rope for key in keys):
        return None
    factor, low, high, context = (float(rope[key]) for key in keys)
    places = torch.arange(0, _head_size(config), 2, dtype=torch.float64) / _head_size(config)
    turns = context * float(rope.get("rope_theta", _ROPE_BASE)) ** -places / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / (share + (1 - share) / factor)).to(torch.float32)


def _head_size(config: Mapping[str, Any]) -> int:
    size: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return size


def _add_numbers(gguf: Any, writer: Any, model: Checkpoint, name: str, type_name: str) -> None:
    config, heads = model.config, model.config["num_attention_heads"]
    head_size = _head_size(config)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if type_name == 'F32' else 'MOSTLY'}_{type_name}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(checkpoint_layout(model).layer_count)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", _ROPE_BASE)))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_vocab_size(model.tensors[str(checkpoint_layout(model).embedding)].shape[0])


def _write_head(gguf: Any, writer: Any, parts: Iterable[_Part]) -> None:
    for part in parts:
        kind = gguf.GGMLQuantizationType[part.type]
        shape = part.shape
        dtype = np.dtype({"F32": np.float32, "F16": np.float16}.get(part.type, np.uint8))
        if dtype == np.uint8:  # types that numpy has not go by their bytes
            shape = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(part.name, shape, dtype, math.prod(shape) * dtype.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _write_tensors(
    writer: Any, model: Checkpoint, parts: Sequence[_Part], progress: Callable[[int, int, str], None] | None
) -> None:
    for done, part in enumerate(parts, start=1):
        if isinstance(part.tensor, Tensor):
            content = part.tensor.numpy()
        else:
            with reading(f"{model.directory}: {part.tensor}"):
                values = _in_llama_order(model, part, model.read(part.tensor).to(torch.float32))
                content = _in_type(part, values)
            model.release(part.tensor)
        writer.write_tensor_data(content)
        if progress is not None:
            progress(done, len(parts), part.name)


def _in_type(part: _Part, values: Tensor) -> Any:
    import gguf

    try:
        with np.errstate(over="raise"):  # what comes of a number too large is infinity
            return gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[part.type])
    except FloatingPointError:
        raise MergeError(f"{part.tensor}: has numbers too large for {part.type}. Write the types BF16 or F32") from None


def _in_llama_order(model: Checkpoint, part: _Part, values: Tensor) -> Tensor:
    """Queries and keys of Llamas, whose halves of a head's rotations llama.cpp has in turns."""
    config = model.config
    if _ARCHITECTURES[config["model_type"]] != "llama" or not part.name.endswith(("attn_q.weight", "attn_k.weight")):
        return values
    heads = config["num_attention_heads"]
    if "attn_k" in part.name:
        heads = config.get("num_key_value_heads") or heads
    turns = values.view(heads, 2, -1, values.shape[1]).transpose(1, 2)
    return turns.reshape(values.shape)
