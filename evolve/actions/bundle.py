"""`evolve bundle`: what it takes to run a search again elsewhere, in one directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.reader import read_search
from evolve.preflight.files_read import files_read
from evolve.preflight.fingerprints import fingerprints
from evolve.preflight.model_keys import MODIFIED
from evolve.preflight.prepare import Prepared, prepare
from evolve.problems import ConfigError, Place, Problem
from evolve.scoring import is_installed, task_library
from evolve.search_loop.results import versions
from evolve.trials.bundle_directory import BundleDirectory, portable
from evolve.trials.run_directory import RunDirectory, dump_yaml
from merge_core import ModelReference
from merge_core.output_directory import new_directory
from merge_core.recipe.model_reference import ModelPath, local_directories

_MODELS = "models"  # for those whose names lead out of the bundle


@dataclass(frozen=True)
class Bundled:
    """What is in a bundle.

    Attributes:
        directory: where it is.
        files: of tasks, scorers, constraints, methods and data, as seen from where they are looked for.
        missing: models that are not inside and must be there where it is run.
    """

    directory: Path
    files: Sequence[str]
    missing: Sequence[str]


def bundle_run(path: Path, output: Path | None, *, models: bool = False, journal: bool = False) -> Bundled:
    """Collect what a run was made from: its search, the files that this reads, the keys of its models, its results.

    Args:
        path: directory of the run.
        output: the bundle; by default the run's name with `-bundle` beside it.
        models: whether models that are directories here go along.
        journal: whether the journal does, with the scores of every item.

    Raises:
        ConfigError: it is no run, or its search cannot be loaded or names a file by an absolute path.
        MergeError: something is where the bundle goes.
    """
    run = RunDirectory(path)
    if not run.search.is_file():
        raise ConfigError(f"{path}: holds no run: search.yml is missing. Give the directory of a search")
    target = output or path.resolve().with_name(f"{path.resolve().name}-bundle")
    with files_read() as read:
        prepared = prepare(read_search(run.search))
        keys = fingerprints(prepared)
    own = _own_files(prepared, read, path)
    inside = _local_models(prepared) if models else {}
    content = _portable(prepared, {name: place for name, (place, _) in inside.items()})
    with new_directory(target) as place:
        bundle = BundleDirectory(place)
        if own:
            content["task_search_path"] = [bundle.tasks.name]
        bundle.search.write_text(dump_yaml(content), encoding="utf-8")
        for name, file in own.items():
            _copy(file, bundle.tasks / name)
        for name, directory in inside.values():
            shutil.copytree(directory, place / name)
        results = (run.recipe, run.card, run.history, run.summary, run.items, run.trials)
        for file in (*results, *([run.journal] if journal else [])):
            if file.is_file():
                _copy(file, bundle.original / file.name)
        facts = {
            "seed": prepared.config.seed,
            "versions": versions(),
            "depends_on": {what: key for what, key in keys.items() if not what.endswith(MODIFIED)},
        }
        bundle.facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    missing = [model for model in prepared.checkpoints if not set(map(str, _parts(model))) <= set(inside)]
    return Bundled(target, sorted(own), missing)


def _portable(prepared: Prepared, moved: Mapping[str, str]) -> dict[str, Any]:
    """The search without what is this machine's.

    Args:
        prepared: the search.
        moved: name of a model that goes along -> its name in the bundle.

    Raises:
        ConfigError: it names a file by an absolute path.
    """
    content = portable(prepared.config.model_dump(mode="json", exclude_none=True))
    problems = [
        Problem(place, f"{text} is where it is on this machine alone. Name it from the directory of the search")
        for place, text in _texts(content)
        if Path(text).is_absolute() and Path(text).is_file()
    ]
    if problems:
        raise ConfigError(*problems)
    names = {model: _renamed(model, moved) for model in prepared.checkpoints}
    return {key: _replaced(value, names) if key in ("recipe", "genome") else value for key, value in content.items()}


def _renamed(model: str, moved: Mapping[str, str]) -> str:
    return "+".join(moved.get(str(part), str(part)) for part in _parts(model))


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _texts(value: Any, *place: str | int) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _texts(inner, *place, key)


def _own_files(prepared: Prepared, read: set[Path], run: Path) -> dict[str, Path]:
    """Files that the search reads and that are the user's own: name as seen from where it is looked for -> file."""
    places: list[str | Path] = [*prepared.task_search_path, prepared.directory, "."]
    homes = list(dict.fromkeys(Path(place).resolve() for place in places))
    apart = [run.resolve(), task_library().resolve()]
    apart += [directory.resolve() for one in prepared.checkpoints.values() for directory in one.directories]
    data = {Path(str(file)) for scorer in prepared.scorers for file in getattr(scorer, "data_files", ())}
    found: dict[str, Path] = {}
    for file in sorted(path.resolve() for path in read | data):
        home = next((home for home in homes if file.is_relative_to(home)), None)
        if home is None or not file.is_file() or is_installed(file) or "__pycache__" in file.parts:
            continue
        if not any(file.is_relative_to(place) for place in apart):
            found[file.relative_to(home).as_posix()] = file
    return found


def _parts(model: str) -> list[ModelPath]:
    reference = ModelReference.parse(model)
    return [part for part in (reference.model, reference.lora) if part is not None]


def _local_models(prepared: Prepared) -> dict[str, tuple[str, Path]]:
    """Models and adapters that are directories here: name -> its name in the bundle, and where it is now."""
    found: dict[str, tuple[str, Path]] = {}
    for part in dict.fromkeys(part for model in prepared.checkpoints for part in _parts(model)):
        directory = next(iter(local_directories(ModelReference(part), prepared.directory)), None)
        if directory is not None:
            written = Path(part.path)
            leads_out = written.is_absolute() or ".." in written.parts or part.path.startswith("~")
            name = f"{_MODELS}/{len(found)}-{directory.resolve().name}" if leads_out else written.as_posix()
            found[str(part)] = name, directory
    return found


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
