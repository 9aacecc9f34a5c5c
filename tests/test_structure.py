"""The architecture shows in the folders, and the page about it is true."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from functools import cache
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


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(syntax(path)))


def is_face(path: Path) -> bool:
    """Whether a module hands on what the wings of its package have."""
    return path.stem == "__init__" and place(path.parent) in LAYERS


@cache
def imported(path: Path) -> list[str]:
    """Full names of everything that a file imports, wherever in it."""
    names: list[str] = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and called(node).endswith("import_module"):
            names += (word.value for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{place(path)}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.append(name if name in NAMES else node.module)
    return names


def called(node: ast.Call) -> str:
    """What a call calls, with dots; nothing where that has no name."""
    words, function = [], node.func
    while isinstance(function, ast.Attribute):
        words.append(function.attr)
        function = function.value
    return ".".join(reversed([*words, function.id if isinstance(function, ast.Name) else ""]))


def wrong_ways(path: Path) -> Iterator[str]:
    """What a module imports and must not."""
    layering, height = wing(path)
    for name in imported(path):
        if name in NAMES:
            other, other_height = wing(NAMES[name])
            if layering in ("merge_core", "evolve/scoring") and other != layering:
                yield f"{place(path)} imports {name}"
            if other == layering and is_face(NAMES[name]):
                yield f"{place(path)} imports the face of its own package"
            elif other == layering and other_height > height:
                yield f"{place(path)} imports {name}, which stands above it"


def test_imports_go_one_way_between_packages_and_wings():
    modules = [path for path in MODULES if not is_face(path) and path.stem != "__main__"]  # which is the command line's
    assert not [wrong for path in modules for wrong in wrong_ways(path)]


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions and for types alone count: a circle is a meaning that has two homes."""
    arrows = {name: (NAMES.keys() & imported(path)) - {name} for name, path in NAMES.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_heavy_dependencies_have_one_home():
    assert not [
        f"{place(path)} imports {dependency}"
        for path in MODULES
        for dependency in HOMES.keys() & packages(path)
        if not place(path).startswith(HOMES[dependency])
    ]


def loads_pretrained(path: Path) -> bool:
    """Whether a file asks anything of transformers' loaders, which can run code that comes with a model."""
    names = {getattr(node, "attr", None) or getattr(node, "id", "") for node in nodes(path)}
    return any(
        re.fullmatch(r"from_pretrained|pipeline|Auto(Config|Tokenizer|Processor|Model\w*)", name) for name in names
    )


def test_what_comes_with_a_model_is_loaded_in_one_place_of_each_package():
    doors = ["evolve/scoring/backends/pretrained_files.py", "merge_core/vocabulary/vocabulary.py"]
    assert [place(path) for path in MODULES if loads_pretrained(path)] == doors


def test_no_loader_is_left_to_ask_whether_code_may_run():
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and called(node).endswith(("from_pretrained", "from_config")):
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


def stands_by_its_subject(path: Path) -> bool:
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    subject = path.stem.removeprefix("test_")
    names = {other.stem for other in folder.iterdir()} if folder.is_dir() else set()
    across = folder.name in ("merge_core", "evolve", "scoring") or subject.startswith("contract")
    return bool(names) and (across or any(subject == name or subject.startswith(f"{name}_") for name in names))


def test_tests_stand_where_what_they_test_stands():
    assert not [place(path) for path in TESTS if not stands_by_its_subject(path)]


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


def has_annotations_as_text(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "\nfrom __future__ import annotations\n" in text or not syntax(path).body[1:]


def test_annotations_are_written_in_one_style():
    """Names as they are, without quotes, wherever they are defined."""
    found = [place(path) for path in SOURCES if not has_annotations_as_text(path)]
    assert not found, "begin with: from __future__ import annotations"


def test_docstrings_speak_in_one_voice():
    """Functions: a command (`Read a file.`), or what they give (`The content of a file.`)."""
    other_voices = ("Return", "Returns", "Reads", "Writes", "Makes", "Finds", "Checks", "Opens", "Adds")
    assert not [
        f"{place(path)}: {node.name}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef) and (ast.get_docstring(node) or "-").split()[0] in other_voices
    ]


def test_no_word_of_the_old_dialect():
    old = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, OLD_WORDS))})(?!\w)")
    for path in [*MODULES, *ROOT.glob("benchmarks/**/*.py"), *PAGES]:
        if place(path) not in READERS_OF_OLD_FILES and path.name != "CHANGELOG.md":
            found = re.findall(old, path.read_text(encoding="utf-8"))
            assert not found, f"{place(path)}: {found}"


def test_no_file_is_called_after_nothing():
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_methods_know_no_files_configuration_or_logging():
    outside = {"pathlib", "os", "yaml", "json", "logging", "safetensors"}
    assert not [path.name for path in (ROOT / "merge_core/methods").glob("*.py") if packages(path) & outside]
