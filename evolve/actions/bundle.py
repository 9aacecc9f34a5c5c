"""`evolve bundle`: what it takes to run a search again elsewhere, in one directory."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.actions.status import is_finished, open_journal
from evolve.config.reader import read_search
from evolve.config.run_models import run_called
from evolve.preflight.files_read import files_read
from evolve.preflight.fingerprints import fingerprints
from evolve.preflight.model_keys import MODIFIED
from evolve.preflight.prepare import Prepared, prepare
from evolve.problems import ConfigError, Place, Problem
from evolve.scoring import is_installed, task_library
from evolve.search_loop.environment import versions
from evolve.search_loop.opening import WARM_STARTS
from evolve.space.template import Template
from evolve.trials.bundle_directory import BundleDirectory, portable
from evolve.trials.run_directory import RunDirectory, dump_yaml
from merge_core import ModelReference, documents_of
from merge_core.output_directory import new_directory
from merge_core.ownership import list_files
from merge_core.recipe.documents import DOCUMENTS, outside_models
from merge_core.recipe.model_reference import ModelPath, local_directories
from merge_core.yaml_text import read_yaml


@dataclass(frozen=True)
class Bundled:
    """What is in a bundle.

    Attributes:
        directory: where it is.
        files: of tasks, scorers, constraints, methods and data, as seen from where they are looked for.
        missing: models that are not inside and must be there where it is run.
        earlier: runs that it begins from, of which nothing is known yet: this one has not begun.
    """

    directory: Path
    files: Sequence[str]
    missing: Sequence[str]
    earlier: Sequence[str]


def bundle_run(path: Path, output: Path | None, *, models: bool = False, journal: bool = False) -> Bundled:
    """Collect what a run was made from: its search, the files that this reads, the keys of its models, its results.

    Args:
        path: directory of the run.
        output: the bundle; by default the run's name with `-bundle` beside it.
        models: whether models that are directories here go along.
        journal: whether the journal does, with the scores of every item.

    Raises:
        ConfigError: it is no run, its search cannot be loaded, or a file, or a model that goes along, has a name under
            which nothing inside the bundle is found.
        MergeError: something is where the bundle goes.
    """
    run = RunDirectory(path)
    if not run.search.is_file():
        raise ConfigError(f"{path}: holds no run: search.yml is missing. Give the directory of a search")
    target = output or path.resolve().with_name(f"{path.resolve().name}-bundle")
    with files_read() as read:
        prepared = prepare(read_search(run.search))
        keys = fingerprints(prepared)
    runs = _run_models(prepared)
    own = _own_files(prepared, read, [run, *runs.values()])
    inside = _local_models(prepared) if models else {}
    content = _portable(prepared)
    warm_starts = open_journal(run).noted(WARM_STARTS) if prepared.config.warm_start else None
    with new_directory(target) as place:
        bundle = BundleDirectory(place)
        if own:
            content["task_search_path"] = [bundle.tasks.name]
        bundle.search.write_text(dump_yaml(content), encoding="utf-8")
        for name, file in own.items():
            _copy(file, bundle.tasks / name)
        for name, earlier in runs.items():
            _copy_best(earlier, place / name)
        for part, directory in inside.items():
            _copy_files(directory, place / part.path)  # `./a` and `a` are one
        results = [run.recipe, run.items, run.trials]
        if run.last_choice() is not None and is_finished(path):  # else they are of an earlier end
            results += [run.card, run.history, run.summary]
        for file in (*results, *([run.journal] if journal else [])):
            if file.is_file():
                _copy(file, bundle.original / file.name)
        facts = {
            "seed": prepared.config.seed,
            "versions": versions(),
            WARM_STARTS: warm_starts,
            "depends_on": {what: key for what, key in keys.items() if not what.endswith(MODIFIED)},
        }
        bundle.facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    missing = [model for model in _source_models(prepared) if not set(_parts(model)) <= inside.keys()]
    return Bundled(target, sorted(own), missing, () if warm_starts else prepared.config.warm_start)


def _portable(prepared: Prepared) -> dict[str, Any]:
    """The search without what is this machine's.

    Raises:
        ConfigError: it names a file by a path that leads out of the bundle.
    """
    content = portable(prepared.config.model_dump(mode="json", exclude_none=True))
    problems = [
        Problem(place, f"{text} leads out of the bundle. Name it as it is seen from the directory of the search")
        for place, text in _texts(content)
        if _leads_out(text) and any(_files(home, text) for home in _homes(prepared))
    ]
    if problems:
        raise ConfigError(*problems)
    return content


def _leads_out(text: str) -> bool:
    """Whether a name means a place that a copy of the directory does not have."""
    path = Path(text)
    return path.is_absolute() or ".." in path.parts or text.startswith("~") or not path.parts


def _files(home: Path, pattern: str) -> list[Path]:
    return [home / name for name in glob.iglob(pattern, root_dir=home, recursive=True) if (home / name).is_file()]


def _texts(value: Any, *place: str | int) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _texts(inner, *place, key)


def _homes(prepared: Prepared) -> list[Path]:
    """Where files of a search are looked for, in order."""
    places: list[str | Path] = [prepared.directory, *prepared.task_search_path, "."]
    return list(dict.fromkeys(Path(place).resolve() for place in places))


def _own_files(prepared: Prepared, read: set[Path], runs: Sequence[RunDirectory]) -> dict[str, Path]:
    """Files that the search reads and that are the user's own: name as seen from where it is looked for -> file.

    Raises:
        ConfigError: the YAML file of a task names data that lead out of the bundle.
    """
    homes = _homes(prepared)
    searched = {Path(place).resolve() for place in prepared.task_search_path}
    inner_first = sorted(homes, key=lambda home: home not in searched)  # that may lie in the directory of the search
    apart = [*(run.path.resolve() for run in runs), task_library().resolve()]
    apart += [directory.resolve() for one in prepared.checkpoints.values() for directory in one.directories]
    data = {Path(str(file)) for scorer in prepared.scorers for file in getattr(scorer, "data_files", ())}
    out = sorted(file for file in data if ".." in file.parts)
    if out:
        fix = "Name data of a task by a path from the directory of its YAML file down"
        raise ConfigError(f"{', '.join(map(str, out))}: leads out of the bundle. {fix}")
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted(path.resolve() for path in read | data):
        home = next((home for home in inner_first if file.is_relative_to(home)), None)
        if home is None or not file.is_file() or is_installed(file) or "__pycache__" in file.parts:
            continue
        if not any(file.is_relative_to(place) for place in apart):
            name, candidate = file.relative_to(home).as_posix(), (homes.index(home), file)
            found[name] = min(candidate, found.get(name, candidate))  # a search takes the first that is found
    return {name: file for name, (_, file) in found.items()}


def _parts(model: str) -> list[ModelPath]:
    reference = ModelReference.parse(model)
    return [part for part in (reference.model, reference.lora) if part is not None]


def _source_models(prepared: Prepared) -> list[str]:
    """Models that are read: where the best of a run stands for one, those that it is merged of."""
    made = prepared.template.run_models
    found = [model for model in prepared.checkpoints if model not in made]
    for documents in made.values():
        recipes = documents_of({DOCUMENTS: documents})
        found += [str(model) for recipe in recipes for model in outside_models(recipe, recipes)]
    return list(dict.fromkeys(found))


def _run_models(prepared: Prepared) -> dict[str, RunDirectory]:
    """Runs whose best stands for a model: as the search names them -> where they are.

    Raises:
        ConfigError: a name leads out of the bundle.
    """
    found = {}
    for name in Template.read(prepared.config.recipe or {}).places:
        run = run_called(name, prepared.directory)
        if run is not None:
            found[name] = run
    out = [name for name in found if _leads_out(name)]
    if out:
        raise ConfigError(
            f"{', '.join(out)}: such a name of a run leads out of the bundle. Search with names seen from the "
            "directory of the search, or merge the run's best recipe and name the model that it makes"
        )
    return found


def _copy_best(run: RunDirectory, target: Path) -> None:
    """What of a run stands for a model: its best recipe, and which seed and which directory that belongs to."""
    target.mkdir(parents=True)
    _copy(run.recipe, target / run.recipe.name)
    (search,) = read_yaml(run.search)
    known = {key: search[key] for key in ("seed", "relative_to") if key in search}
    (target / run.search.name).write_text(dump_yaml(known), encoding="utf-8")
    list_files(target)


def _local_models(prepared: Prepared) -> dict[ModelPath, Path]:
    """Models and adapters that are directories here: as the search names them -> where they are.

    They keep their names: random masks are drawn by them, and labels and fingerprints have them.

    Raises:
        ConfigError: a name leads out of the bundle.
    """
    found: dict[ModelPath, Path] = {}
    for part in dict.fromkeys(part for model in _source_models(prepared) for part in _parts(model)):
        directory = next(iter(local_directories(ModelReference(part), prepared.directory)), None)
        if directory is not None:
            found[part] = directory
    out = [part.path for part in found if _leads_out(part.path)]
    if out:
        raise ConfigError(
            f"--models: {', '.join(out)}: such a name leads out of the bundle, and by another one the search would not "
            "be the same. Leave --models out and put these models there by the same names, or search with names seen "
            "from the directory of the search"
        )
    return found


def _copy_files(directory: Path, target: Path) -> None:
    """What is in a directory, one by one: `shutil.copytree` makes a list of what failed, which nobody understands."""
    for root, _, names in os.walk(directory, followlinks=True):
        for file in (Path(root, name) for name in names):
            if file.is_file():
                _copy(file, target / file.relative_to(directory))


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
