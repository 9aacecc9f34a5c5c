"""What makes an encoder a sentence-transformers model: ``modules.json`` and a folder for each module it lists."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from merge_core.bounds import CONFIG_BYTES
from merge_core.errors import MergeError
from merge_core.input_files import FETCH, read_file, reading
from merge_core.json_files import parse_json

LIST = "modules.json"
_SETTINGS = ("config_sentence_transformers.json", "sentence_*_config.json")
_CONTENT = (".json", ".safetensors", ".bin", ".txt")
_WEIGHTS = (".safetensors", ".bin")


def copy_modules(source: Path, target: Path) -> None:
    """Copy the modules of a sentence-transformers model, and its settings; of any other model nothing.

    Args:
        source: the model.
        target: where the merged encoder is written.

    Raises:
        MergeError: a list that is none, or one that leads out of the directory.
    """
    folders = list(_folders(source))
    if not (source / LIST).is_file():
        return
    settings = [file for pattern in _SETTINGS for file in source.glob(pattern)]
    for file in (source / LIST, *settings):
        shutil.copyfile(file, target / file.name)
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _CONTENT:
                (target / folder.name).mkdir(exist_ok=True)  # a module without settings has an empty folder, or none
                shutil.copyfile(file, target / folder.name / file.name)


def weighted_modules(source: Path) -> list[str]:
    """The modules that have weights, such as a dense layer after the pooling."""
    return [folder.name for folder in _folders(source) if any(file.suffix in _WEIGHTS for file in folder.iterdir())]


def _folders(source: Path) -> Iterator[Path]:
    """The folders of the modules after the first, which is the encoder and lies in the directory itself."""
    file = source / LIST
    if not file.is_file():
        return
    # The file is a list, and the reader of JSON gives maps.
    modules = parse_json(b'{"modules": ' + read_file(file, CONFIG_BYTES) + b"}", file)["modules"]
    with reading(file):
        paths = [str(module["path"]) for module in modules]
    for path in filter(None, paths):
        if Path(path).name != path or path == ".." or "\0" in path:
            raise MergeError(f"{file}: names the folder {path!r} outside of the directory. {FETCH}")
        if (source / path).is_dir():
            yield source / path
