"""``PATH_OR_HUB_ID[@REVISION][+LORA[@REVISION]]`` → a directory on this machine."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError, check_name, first_line, shown
from merge_core.recipe.hub_headers import active_headers

HUB_FILES = [
    "model*.safetensors",
    "adapter_model.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
    "adapter_config.json",
    "README.md",
]
"""What is fetched from the hub: safetensors weights, configuration and tokenizer, and the card with its licence."""

CODE_FILES = ["*.py"]
"""What is fetched too where code of the model's own may run."""

PICKLE_FILES = ["pytorch_model*.bin", "pytorch_model.bin.index.json", "adapter_model.bin"]
"""What is fetched of a model that has no safetensors."""


@dataclass(frozen=True, slots=True)
class ModelPath:
    """A local directory or a hub id, at a revision."""

    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.path if self.revision is None else f"{self.path}@{self.revision}"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model as a recipe names it. Two references are the same model when their texts are equal.

    Attributes:
        model: the model's path or hub id and revision.
        lora: an adapter to fold into the model first.
        override_architecture: accepted for compatibility; architectures are found, not looked up.
        written_as_map: whether the recipe used the map form, so that it is written back the same way.
    """

    model: ModelPath
    lora: ModelPath | None = None
    override_architecture: str | None = None
    written_as_map: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return str(self.model) if self.lora is None else f"{self.model}+{self.lora}"

    @classmethod
    def parse(cls, value: object) -> ModelReference:
        """Read a reference from its text or map form.

        Raises:
            MergeError: the text is empty or has two ``+`` or two ``@`` in one part; the map lacks ``model``. The
                message does not say where: the caller knows.
        """
        if isinstance(value, ModelReference):
            return value
        if isinstance(value, str):
            return cls._from_text(value)
        if isinstance(value, Mapping):
            return cls._from_map(value)
        raise MergeError(f"expected a model (path or hub id), got {shown(value)}. Example: model: org/name")

    @classmethod
    def _from_text(cls, text: str) -> ModelReference:
        parts = text.split("+")
        if len(parts) > 2:
            raise MergeError(f'"{text}" names more than one adapter. Write MODEL+LORA')
        paths = [_model_path(part, text) for part in parts]
        return cls(paths[0], paths[1] if len(paths) == 2 else None)

    @classmethod
    def _from_map(cls, value: Mapping[Any, Any]) -> ModelReference:
        if "model" not in value:
            raise MergeError("a model map needs the key model. Example: {model: {path: org/name}}")
        lora = value.get("lora")
        return cls(
            _map_path(value["model"]),
            None if lora is None else _map_path(lora),
            value.get("override_architecture"),
            written_as_map=True,
        )

    def to_mapping(self) -> object:
        """Plain YAML data: the text, or the map when the recipe used a map."""
        if not self.written_as_map:
            return str(self)
        result: dict[str, object] = {"model": _path_mapping(self.model)}
        if self.lora is not None:
            result["lora"] = _path_mapping(self.lora)
        if self.override_architecture is not None:
            result["override_architecture"] = self.override_architecture
        return result


def _model_path(text: str, whole: str) -> ModelPath:
    check_name(text)
    path, _, revision = text.partition("@")
    if not path.strip():
        raise MergeError(f'"{whole}" has an empty model name. Write MODEL[@REVISION][+LORA[@REVISION]]')
    if "@" in revision:
        raise MergeError(f'"{whole}" has more than one @. Write MODEL@REVISION')
    return ModelPath(path, revision or None)


def _map_path(value: object) -> ModelPath:
    if isinstance(value, str):
        return _model_path(value, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("path"), str):
        raise MergeError(f"expected {{path: ..., revision?: ...}}, got {shown(value)}")
    path, revision = value["path"], value.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise MergeError(f'revision: expected a text, got {shown(revision)}. Example: revision: "5"')
    for text in (path, revision or ""):
        check_name(text)
    if not path.strip():
        raise MergeError("path: the model has no name. Example: path: org/name")
    return ModelPath(path, revision)


def _path_mapping(path: ModelPath) -> dict[str, str]:
    result = {"path": path.path}
    if path.revision is not None:
        result["revision"] = path.revision
    return result


def resolve_model(reference: ModelReference | str, relative_to: Path | None = None) -> Path:
    """Find the directory that holds a model's files, fetching it from the hub when it is not local.

    A local directory is looked for beside the recipe (``relative_to``), then in the working directory; that of a
    finished search stands for the model that it found.
    Anything else is taken for a hub id; the hub's own settings (``HF_HUB_OFFLINE``, ``HF_HOME``, tokens) hold.

    Args:
        reference: the model; an adapter in it is not looked at here.
        relative_to: the recipe's directory.

    Returns:
        A directory.

    Raises:
        MergeError: neither a local directory nor on the hub.
    """
    model = ModelReference.parse(reference).model
    return resolve_path(model, relative_to)


def resolve_path(
    model: ModelPath, relative_to: Path | None = None, *, cache: Path | None = None, code: bool = False
) -> Path:
    """As `resolve_model`, for one path of a reference (the model's or its adapter's).

    Args:
        model: the path.
        relative_to: the recipe's directory.
        cache: where models of the hub are kept, in place of the hub's own setting.
        code: whether Python files of the model are fetched too.
    """
    candidates = _local_candidates(model, relative_to)
    for candidate in candidates:
        if os.path.isdir(candidate):  # unlike `Path.is_dir` of any name, one that is too long for a file included
            return model_in(candidate)
        if os.path.isfile(candidate):
            raise MergeError(f'model "{model}": {candidate} is a file. Name the directory that holds it')
    if _looks_local(model):
        looked = " or ".join(str(candidate) for candidate in candidates)
        hint = _taken_apart(candidates)
        raise MergeError(f'model "{model}": no directory {looked}. {hint}Correct the path in the recipe')
    return _from_hub(model, candidates, cache, code)


def _taken_apart(candidates: Iterable[Path]) -> str:
    """What to know where a directory is there by a name that a reference has another use for."""
    for candidate in candidates:
        with contextlib.suppress(OSError, ValueError):
            named = sorted(candidate.parent.glob(f"{glob.escape(candidate.name)}[+@]*"))
            if named:
                return f"What follows + is an adapter, and @ a revision: give {named[0].name} a name without. "
    return ""


def local_directories(
    reference: ModelReference, relative_to: Path | None = None, known: Mapping[str, Path] | None = None
) -> list[Path]:
    """The directories here that a model and its adapter may be read from; none for what is on the hub alone.

    Args:
        reference: the model.
        relative_to: the recipe's directory.
        known: directories of models that are not looked for by their name.
    """
    parts = [part for part in (reference.model, reference.lora) if part is not None]
    named = [found for text in map(str, (reference, *parts)) if (found := (known or {}).get(text)) is not None]
    there = [*named, *(path for part in parts for path in _local_candidates(part, relative_to) if os.path.isdir(path))]
    return list(dict.fromkeys([*there, *map(model_in, there)]))


def hub_ids(reference: ModelReference, relative_to: Path | None = None) -> tuple[str, ...]:
    """The names under which the hub may know a model and its adapter: OWNER/NAME, and no directory here.

    Args:
        reference: the model.
        relative_to: the recipe's directory.
    """
    return tuple(
        part.path
        for part in (reference.model, reference.lora)
        if part is not None
        and part.path.count("/") == 1
        and not _looks_local(part)
        and not any(os.path.isdir(candidate) for candidate in _local_candidates(part, relative_to))
    )


def model_in(directory: Path) -> Path:
    """The directory itself, or ``model/`` in one that holds its model there, as a finished search does."""
    inner = directory / "model"
    return inner if (inner / "config.json").is_file() and not (directory / "config.json").exists() else directory


def _looks_local(model: ModelPath) -> bool:
    return Path(model.path).is_absolute() or model.path.startswith((".", "~")) or model.path.count("/") > 1


def _local_candidates(model: ModelPath, relative_to: Path | None) -> list[Path]:
    """The directories that a path can mean, in the order in which they are looked for."""
    try:
        written = Path(model.path).expanduser()
        beside = written if relative_to is None else relative_to / written
        return [written] if beside.resolve() == written.resolve() else [beside, written]
    except (OSError, RuntimeError, ValueError) as error:  # a user whom ~ names, and who is not there
        raise MergeError(f'model "{model}": no path: {first_line(error)}. Correct the path in the recipe') from error


def _from_hub(model: ModelPath, candidates: list[Path], cache: Path | None, code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    looked = " or ".join(str(candidate) for candidate in candidates)

    def fetch(*patterns: str) -> Path:
        # Patterns match across directories; copies in other formats live in those (``original/``, ``onnx/``).
        return Path(
            snapshot_download(
                model.path,
                revision=model.revision,
                cache_dir=cache,
                allow_patterns=[*HUB_FILES, *(CODE_FILES if code else ()), *patterns],
                ignore_patterns="*/*",
            )
        )

    headers = active_headers()
    try:
        if headers is not None:
            others = [pattern for pattern in HUB_FILES if not pattern.endswith(".safetensors")]
            snapshot = Path(
                snapshot_download(
                    model.path, revision=model.revision, cache_dir=cache, allow_patterns=others, ignore_patterns="*/*"
                )
            )
            weights = ([pattern for pattern in HUB_FILES if pattern.endswith(".safetensors")], ["*.safetensors"])
            stand_in = headers.directory(model.path, model.revision, weights, snapshot)
            if stand_in is not None:
                return stand_in
        directory = fetch()
        if not any(directory.glob("*.safetensors")):
            directory = fetch("*.safetensors")
        if not any(directory.glob("*.safetensors")):
            directory = fetch(*PICKLE_FILES)
    except LocalEntryNotFoundError as error:
        download = f", or run `hf download {model.path}` where there is a network" if "/" in model.path else ""
        raise MergeError(
            f'model "{model}": no directory {looked}, and the hub cannot be reached nor has a cached copy. '
            f"{_taken_apart(candidates)}Correct the path{download}"
        ) from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise MergeError(
            f'model "{model}": no directory {looked}, and the hub says: {first_line(error)}. '
            "Correct the name, or log in with `hf auth login` if the model is gated"
        ) from error
    return directory
