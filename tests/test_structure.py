"""The architecture shows in the folders, and the page about it is true."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for package in ("merge_core", "evolve") for path in (ROOT / package).rglob("*.py"))
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
SCRIPTS = sorted(
    path for folder in ("benchmarks", "configs", "docs", "tasks") for path in (ROOT / folder).rglob("*.py")
)
SOURCES = [*MODULES, *SCRIPTS, *sorted((ROOT / "tests").rglob("*.py"))]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TESTS = sorted(path for package in ("merge_core", "evolve") for path in (ROOT / "tests" / package).rglob("test_*.py"))

# A wing imports itself and those before it.
LAYERS = {
    "merge_core": ["", "kernels", "methods", "recipe", "checkpoint", "vocabulary", "plan", "execute", "toolbox"],
    "evolve/scoring": ["", "backends", "scores", "scorers"],
    "evolve": [
        *(
            "scoring",
            "",
            "trials",
            "space",
            "racing",
            "optimizers",
            "trackers",
            "config",
            "evaluation",
            "inspection",
            "report",
            "preflight",
        ),
        *("search_loop", "sweep", "simplify", "actions", "api", "commands"),
    ],
}
HOMES = {
    "ray": "evolve/evaluation/ray_host.py",
    "lm_eval": "evolve/scoring/scorers/lm_eval/",
    "reasoning_gym": "evolve/scoring/scorers/reasoning_gym/",
    "vllm": "evolve/scoring/backends/vllm_engine.py",
    "sentence_transformers": "evolve/scoring/backends/sentence_encoder.py",
    "cma": "evolve/optimizers/cma_es.py",
    "mlflow": "evolve/trackers/mlflow.py",
    "wandb": "evolve/trackers/wandb.py",
    "cmaes": "evolve/optimizers/",
    "peft": "merge_core/checkpoint/peft_adapters.py",
    "gguf": "merge_core/toolbox/gguf_file.py",
}
OLD_WORDS = (
    *("the peer", "Told", "guide", "guided_score", "keep_apart", "HOPELESS", "_met", "say=", "made_of"),
    *("subjects", "Subject", "wording", "Places", "preparation", "Preparation", "ResidentMerge"),
)
# What earlier versions wrote keeps the names that it had.
READERS_OF_OLD_FILES = ("evolve/trials/trial_record.py", "merge_core/execute/intermediates.py")


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def wing(path: Path) -> tuple[str, int]:
    """The layering that a module is part of, and its height there."""
    parts = path.relative_to(ROOT).parts
    if parts[:2] == ("evolve", "scoring"):
        return "evolve/scoring", LAYERS["evolve/scoring"].index(parts[2] if len(parts) > 3 else "")
    return parts[0], LAYERS[parts[0]].index(parts[1] if len(parts) > 2 else "")


def is_face(path: Path) -> bool:
    """Whether a module hands on what the wings of its package have."""
    return path.stem == "__init__" and place(path.parent) in LAYERS


def imported(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{place(path)}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in NAMES else node.module


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_imports_go_one_way_between_packages_and_wings(path):
    layering, height = wing(path)
    if is_face(path):
        return
    for name in imported(path):
        if name in NAMES:
            other, other_height = wing(NAMES[name])
            if layering == "merge_core":
                assert other == "merge_core", f"{place(path)} imports {name}"
            if layering == "evolve/scoring":
                assert other == "evolve/scoring", f"{place(path)} imports {name}"
            if other == layering:
                assert not is_face(NAMES[name]), f"{place(path)} imports the face of its own package"
                assert other_height <= height, f"{place(path)} imports {name}, which stands above it"


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions and for types alone count: a circle is a meaning that has two homes."""
    arrows = {name: {other for other in imported(path) if other in NAMES} - {name} for name, path in NAMES.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_heavy_dependencies_have_one_home(path):
    names = {name.split(".")[0] for name in imported(path)}
    for dependency, home in HOMES.items():
        assert dependency not in names or place(path).startswith(home)


def loads_pretrained(path: Path) -> Iterator[str]:
    """What a file asks of transformers' loaders, which can run code that comes with a model."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in ("from_pretrained", "pipeline") or re.fullmatch(r"Auto(Config|Tokenizer|Processor|Model\w*)", name):
            yield name


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_what_comes_with_a_model_is_loaded_in_one_place_of_each_package(path):
    doors = ("evolve/scoring/backends/pretrained_files.py", "merge_core/vocabulary/vocabulary.py")
    assert place(path) in doors or not list(loads_pretrained(path))


def test_no_loader_is_left_to_ask_whether_code_may_run():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("from_pretrained", "from_config")):
                loader = ast.unparse(node.func)
                given = {keyword.arg for keyword in node.keywords} | {
                    ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None
                }
                told = any("trust_remote_code" in str(word) or word == "_DATA_ALONE" for word in given)
                assert told or "Auto" not in loader, f"{place(path)}: {loader}"


def test_only_two_names_can_be_imported():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == {"evolve", "merge_core"}


def test_the_page_on_the_architecture_names_every_module_once():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named: Counter[str] = Counter()
    folder = None
    for line in page.splitlines():
        if line.startswith("#"):
            found = re.search(r"`([\w/]+/)`", line)
            folder = found[1] if found else None
        elif folder and line.startswith("| `"):
            first_cell = line.split("|")[1]
            named.update(f"{folder}{name}" for name in re.findall(r"`([\w/]+)`", first_cell))
    expected = {place(path).removesuffix(".py") for path in MODULES if path.stem != "__init__"}
    assert not expected - named.keys(), "not on the page"
    assert not named.keys() - expected, "on the page, and not there"
    assert not [name for name, times in named.items() if times > 1], "more than once on the page"


def test_the_tables_on_the_architecture_are_those_that_the_modules_make():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tables = runpy.run_path(str(ROOT / "docs" / "module_tables.py"))
    assert page == tables["with_tables"](page), "run: make docs"


@pytest.mark.parametrize("path", TESTS, ids=place)
def test_tests_stand_where_what_they_test_stands(path):
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    assert folder.is_dir(), f"there is no {folder.relative_to(ROOT)}"
    subject = path.stem.removeprefix("test_")
    names = {other.stem if other.is_file() else other.name for other in folder.iterdir()}
    across = folder.name in ("merge_core", "evolve", "scoring") or subject.startswith("contract")
    assert across or any(subject == name or subject.startswith(f"{name}_") for name in names)


def imports_of_ours(text: str) -> Iterator[tuple[str, str]]:
    """Module and name of what a text of Python imports from our packages."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("evolve", "merge_core"):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if alias.name.split(".")[0] in ("evolve", "merge_core"))
            yield from ((name, "__name__") for name in names)


@pytest.mark.parametrize("path", [*SCRIPTS, *PAGES], ids=place)
def test_what_is_imported_of_us_exists(path):
    """In benchmarks, which no test runs, and in the examples of the pages too."""
    text = path.read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if path.suffix == ".md" else [text]:
        for module, name in imports_of_ours(code):
            try:
                found = importlib.import_module(module)
                if not hasattr(found, name):
                    importlib.import_module(f"{module}.{name}")
            except ModuleNotFoundError as error:
                if error.name != "triton":  # an extra, which the kernels of GPUs need
                    raise


@pytest.mark.parametrize("path", PAGES, ids=place)
def test_pages_name_files_that_exist(path):
    named = re.findall(
        r"(?:evolve|merge_core|tests|tasks|configs|benchmarks|docs)/[\w./-]+\.(?:py|md|ya?ml|sh)",
        path.read_text(encoding="utf-8"),
    )
    invented = ("NAME", "FAMILY", "midpoint", "climber")  # of the examples
    assert not [name for name in named if not any(word in name for word in invented) and not (ROOT / name).exists()]


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_annotations_are_written_in_one_style(path):
    """Names as they are, without quotes, wherever they are defined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "__future__" in imports or not tree.body[1:], "begin with: from __future__ import annotations"


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_docstrings_speak_in_one_voice(path):
    """Functions: a command (`Read a file.`), or what they give (`The content of a file.`)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            first = (ast.get_docstring(node) or "-").split()[0]
            assert first not in {"Return", "Returns", "Reads", "Writes", "Makes", "Finds", "Checks", "Opens", "Adds"}, (
                f"{node.name}: begins with {first}"
            )


def test_no_word_of_the_old_dialect():
    for path in [*MODULES, *ROOT.glob("benchmarks/**/*.py"), *PAGES]:
        if place(path) not in READERS_OF_OLD_FILES and path.name != "CHANGELOG.md":
            text = path.read_text(encoding="utf-8")
            found = [word for word in OLD_WORDS if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
            assert not found, f"{place(path)}: {found}"


def test_no_file_is_called_after_nothing():
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


@pytest.mark.parametrize("path", sorted((ROOT / "merge_core" / "methods").glob("*.py")), ids=lambda path: path.name)
def test_methods_know_no_files_configuration_or_logging(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & {"pathlib", "os", "yaml", "json", "logging", "safetensors"}
