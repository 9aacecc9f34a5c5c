"""The merge engine stands alone."""

import ast
from pathlib import Path

import merge_core

PACKAGE = Path(merge_core.__file__).parent


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names


def test_the_engine_imports_neither_the_search_nor_the_tasks():
    for file in PACKAGE.rglob("*.py"):
        assert not imported(file) & {"evolve", "tasks", "ray", "vllm", "lm_eval", "mergekit"}, file


def test_methods_know_no_files_configuration_or_devices():
    for file in (PACKAGE / "methods").glob("*.py"):
        assert not imported(file) & {"pathlib", "os", "yaml", "json", "logging", "safetensors"}, file
