"""The architecture shows in the folders, and the page about it is true."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for package in ("merge_core", "tasks", "evolve") for path in (ROOT / package).rglob("*.py"))
HOMES = {"ray": "evolve/ray_pool.py", "lm_eval": "tasks/lm_eval_scorer/", "vllm": "tasks/vllm_engine.py"}
FORBIDDEN = {"merge_core": {"evolve", "tasks"}, "tasks": {"evolve", "merge_core"}, "evolve": set()}


def imported(path):
    """Top-level names of everything that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path, ours):
    """Names of our modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in ours else node.module for name in inner}
    return found & ours


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions and for types alone count: a circle is a meaning that has two homes."""
    names = {module_name(path): path for path in MODULES}
    arrows = {name: imported_modules(path, names.keys()) - {name} for name, path in names.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way_and_heavy_dependencies_have_one_home(path):
    place = path.relative_to(ROOT).as_posix()
    names = imported(path)
    assert not names & FORBIDDEN[place.split("/")[0]]
    for dependency, home in HOMES.items():
        assert dependency not in names or place.startswith(home)


def test_the_page_on_the_architecture_names_every_module():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in MODULES:
        place = path.relative_to(ROOT)
        name = f"{place.parts[1]}/" if len(place.parts) > 2 else place.stem
        assert name == "__init__" or f"`{name}`" in page, f"docs/architecture.md does not name {place}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_annotations_are_written_in_one_style(path):
    """Names as they are, without quotes, wherever they are defined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "__future__" in imports or not tree.body[1:], "begin with: from __future__ import annotations"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_speak_in_one_voice(path):
    """Functions: a command (`Read a file.`), or what they give (`The content of a file.`)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            first = (ast.get_docstring(node) or "-").split()[0]
            assert first not in {"Return", "Returns", "Reads", "Writes", "Makes", "Finds", "Checks", "Opens", "Adds"}, (
                f"{node.name}: begins with {first}"
            )


def test_no_file_is_called_after_nothing():
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


@pytest.mark.parametrize("path", sorted((ROOT / "merge_core" / "methods").glob("*.py")), ids=lambda path: path.name)
def test_methods_know_no_files_configuration_or_logging(path):
    assert not imported(path) & {"pathlib", "os", "yaml", "json", "logging", "safetensors"}
