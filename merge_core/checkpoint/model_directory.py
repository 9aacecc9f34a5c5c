"""The files of a model directory: its config, and those of its weights, which must belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merge_core.bounds import INDEX_BYTES
from merge_core.checkpoint.config_numbers import check_numbers
from merge_core.checkpoint.weight_files import TensorHeader, read_headers, read_pickle_headers
from merge_core.errors import MergeError, and_more
from merge_core.input_files import reading
from merge_core.json_files import read_json

INDEX_NAME = "model.safetensors.index.json"
PICKLE_INDEX_NAME = "pytorch_model.bin.index.json"


def read_directory(directory: Path) -> tuple[dict[str, Any], dict[str, TensorHeader]]:
    """The config ({} where there is none) and the headers of all tensors.

    Raises:
        MergeError: as `Checkpoint.open`.
    """
    config = read_json(directory / "config.json") if (directory / "config.json").exists() else {}
    with reading(directory / "config.json"):
        check_numbers(config)
    tensors: dict[str, TensorHeader] = {}
    files = _weight_files(directory)
    for file in files:
        headers = read_pickle_headers(file) if file.suffix == ".bin" else read_headers(file)
        for name, header in headers.items():
            if name in tensors:
                raise MergeError(f"{file}: tensor {name} is in {tensors[name].file.name} too. Remove the stale shard")
            tensors[name] = header
    _check_index(directory / (PICKLE_INDEX_NAME if files[0].suffix == ".bin" else INDEX_NAME), tensors)
    return config, tensors


def _weight_files(directory: Path) -> list[Path]:
    index = directory / INDEX_NAME
    if index.exists():
        return _indexed_files(index)
    files = sorted(file for file in directory.glob("*.safetensors") if not file.name.startswith("adapter_"))
    if (directory / "model.safetensors") in files:
        return [directory / "model.safetensors"]
    if files:
        return files
    if (directory / PICKLE_INDEX_NAME).exists():
        return _indexed_files(directory / PICKLE_INDEX_NAME)
    files = sorted(directory.glob("pytorch_model*.bin"))
    if files:
        return files
    if (directory / "adapter_config.json").exists():
        base = read_json(directory / "adapter_config.json").get("base_model_name_or_path") or "MODEL"
        raise MergeError(f"{directory}: an adapter, not a model. Name it with its base: {base}+{directory}")
    if packed := sorted(directory.glob("*.gguf")):
        raise MergeError(
            f"{directory}: its weights are in {packed[0].name}, for inference. Name the model that it was made of, or "
            f'load it with transformers, from_pretrained(DIRECTORY, gguf_file="{packed[0].name}"), and save that'
        )
    found = and_more(sorted(entry.name for entry in directory.iterdir())) or "nothing"
    raise MergeError(f"{directory}: no *.safetensors file (found {found}). Name a model directory")


def _indexed_files(index: Path) -> list[Path]:
    weight_map = read_json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MergeError(f"{index}: no weight_map. Fetch the file again")
    files = []
    for name in weight_map.values():
        # An index is data from outside: it may not make us open files elsewhere.
        if not isinstance(name, str) or Path(name).name != name or name in ("", "..") or "\0" in name:
            raise MergeError(f"{index}: names the file {name!r} outside the directory. Fetch the model again")
    for name in dict.fromkeys(weight_map.values()):
        file = index.parent / name
        if not file.exists():
            raise MergeError(f"{index}: names {name}, which is missing. Fetch the model again")
        files.append(file)
    return files


def _check_index(index: Path, tensors: Mapping[str, TensorHeader]) -> None:
    if index.exists():
        missing = [name for name in read_json(index, INDEX_BYTES)["weight_map"] if name not in tensors]
        if missing:
            raise MergeError(f"{index}: names tensors that no shard holds: {and_more(missing)}. Fetch the model again")
