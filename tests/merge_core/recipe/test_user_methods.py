"""`merge_method: module:function`: what may be one, and that it merges as any other method does."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_core import METHODS, JobInput, MergeError, ParameterSlot, Recipe, TensorJob, load_recipes, merge
from merge_core.execute.job_runner import JobRunner, job_parameters
from merge_core.recipe import user_modules
from merge_core.recipe.ignored import refuse_ignored
from merge_core.recipe.user_methods import find_method

TOWARDS = '''
from torch import Tensor

def towards(tensors: list[Tensor], base: Tensor, *, weight: list[float], strength: float = 1.0, flip: bool = False):
    """A step from the base towards each of the models."""
    result = base.clone()
    for tensor, share in zip(tensors, weight):
        result += (-1 if flip else 1) * strength * share * tensor.sub_(base)  # writes to what it is given
    return result
'''
RECIPE = """
merge_method: {method}
base_model: base
models:
  - {{model: a, parameters: {{weight: 0.25}}}}
  - {{model: b, parameters: {{weight: 0.5}}}}
parameters: {{strength: 0.5}}
dtype: float32
"""


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[Callable[[], None]]:
    """Forgets the modules of a test, at its end and when it is called."""
    methods, modules, path = dict(METHODS), set(sys.modules), list(sys.path)

    def forget() -> None:
        METHODS.clear()
        METHODS.update(methods)
        user_modules._ORIGINS.clear()
        for name in {name for name in sys.modules if name.startswith("own_")} - modules:
            del sys.modules[name]
        sys.path[:] = path
        importlib.invalidate_caches()

    yield forget
    forget()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_module(text: str, name: str = "own_methods") -> Path:
        (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    return write_module


def write_recipe(directory: Path, method: str = "own_methods:towards") -> Path:
    (directory / "recipe.yml").write_text(RECIPE.format(method=method))
    return directory / "recipe.yml"


def test_a_module_that_changes_the_working_directory_changes_nobody_elses(write: Callable[[str, str], Path]):
    directory, before = write(f"import os\nos.chdir('/')\n{TOWARDS}"), os.getcwd()
    find_method("own_methods:towards", directory)
    assert os.getcwd() == before


def said(name: str, directory: Path) -> str:
    with pytest.raises(MergeError) as caught:
        find_method(name, directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_merges_what_the_function_says_and_leaves_the_sources_alone(zoo: Path):
    (zoo / "own_methods.py").write_text(TOWARDS)
    before = (zoo / "a" / "model.safetensors").read_bytes()
    result = merge(write_recipe(zoo), zoo / "merged")
    a, b, base = (load_file(zoo / name / "model.safetensors") for name in ("a", "b", "base"))
    for name, tensor in load_file(result.path / "model.safetensors").items():
        torch.testing.assert_close(tensor, base[name] + 0.125 * (a[name] - base[name]) + 0.25 * (b[name] - base[name]))
    assert (zoo / "a" / "model.safetensors").read_bytes() == before


def test_a_user_is_told_that_mergekit_does_not_know_it_and_so_is_who_reads_the_card(zoo: Path):
    (zoo / "own_methods.py").write_text(TOWARDS)
    result = merge(write_recipe(zoo), zoo / "merged")
    notice = "own_methods:towards: mergekit does not know it, and whoever merges by this recipe needs own_methods.py"
    assert notice in " ".join(result.warnings)
    card = (result.path / "README.md").read_text()
    assert notice in card
    assert "any tool" not in card


def test_the_merged_model_brings_the_module_so_that_it_can_be_made_again(
    zoo: Path, as_in_a_new_process: Callable[[], None]
):
    (zoo / "own_methods.py").write_text(TOWARDS)
    result = merge(write_recipe(zoo), zoo / "merged")
    (zoo / "own_methods.py").unlink()
    as_in_a_new_process()
    models = {name: zoo / name for name in ("a", "b", "base")}
    assert merge(result.path / "mergekit_config.yml", zoo / "again", models=models).fingerprint == result.fingerprint


def test_a_copy_elsewhere_is_the_same_module_and_another_text_is_refused(tmp_path: Path):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_methods.py").write_text(TOWARDS + ("# another\n" if name == "three" else ""))
    method = find_method("own_methods:towards", tmp_path / "one")
    assert find_method("own_methods:towards", tmp_path / "two") is method
    assert "differs from the one in" in said("own_methods:towards", tmp_path / "three")


def test_the_parameters_are_those_of_the_signature(write: Callable[..., Path]):
    parameters = find_method("own_methods:towards", write(TOWARDS)).by_name
    assert {name: (p.kind, p.scope) for name, p in parameters.items()} == {
        "weight": ("number", "model"),
        "strength": ("number", "global"),
        "flip": ("flag", "global"),
    }
    assert parameters["strength"].default == 1.0


@pytest.mark.parametrize(
    ("head", "base"),
    [
        ("tensors, base: Tensor", "required"),
        ("tensors, base: Tensor | None = None", "optional"),
        ("tensors, *, weight: list[float]", "unused"),
    ],
)
def test_the_signature_says_whether_there_is_a_base(head: str, base: str, write: Callable[..., Path]):
    directory = write(f"from torch import Tensor\ndef mean({head}): ...\n", f"own_{base}")
    assert find_method(f"own_{base}:mean", directory).base == base


def test_it_may_be_a_row_of_the_table_of_methods(write: Callable[..., Path]):
    directory = write(
        "from merge_core import Method\n"
        "FIRST = Method('first', 'The first', lambda inputs: inputs.tensors[0], (), 'unused', 'https://example.org')\n"
    )
    method = find_method("own_methods:FIRST", directory)
    assert (method.name, method.title) == ("own_methods:FIRST", "The first")


def test_its_numbers_have_slopes_where_it_says_so(write: Callable[..., Path]):
    page = (Path(__file__).parents[3] / "docs" / "extending.md").read_text()
    example = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Derivative" in code)
    directory = write(example)
    method = "own_methods:TOWARDS"
    assert find_method(method, directory).differentiable == ("weight",)
    with torch.no_grad():
        base, first, second = torch.randn(3, 4, 5)
    inputs = (JobInput("a", "x", (("weight", 0.5),)), JobInput("base", "x"), JobInput("b", "x", (("weight", 0.25),)))
    job = TensorJob("x", method, inputs, 1, (), (4, 5), torch.float32, 0)
    tensors, gradient = {"a": first, "base": base, "b": second}, torch.randn(4, 5)
    found = JobRunner(tensors, read=lambda source: tensors[source.model]).differentiate(job, gradient)
    assert found[ParameterSlot("weight", 0)] == pytest.approx(float((gradient * (first - base)).sum()), rel=1e-5)
    assert found[ParameterSlot("weight", 2)] == pytest.approx(float((gradient * (second - base)).sum()), rel=1e-5)
    assert found.keys() == job_parameters(job).keys()


def test_without_slopes_differences_are_taken_and_slopes_left_out_are_an_error(write: Callable[..., Path]):
    directory = write(
        TOWARDS
        + """
from merge_core import Derivative, Method, METHODS
from dataclasses import replace
HALF = replace(METHODS["linear"], derivative=Derivative(("weight",), lambda inputs, gradient: {}))
"""
    )
    inputs = (JobInput("a", "x", (("weight", 0.5),)), JobInput("base", "x"))
    tensors = {"a": torch.ones(2), "base": torch.zeros(2)}
    settings = (("strength", 0.5), ("flip", False))
    job = TensorJob("x", "own_methods:towards", inputs, 1, settings, (2,), torch.float32, 0)
    assert "weight" in find_method(job.method, directory).differentiable
    found = JobRunner(tensors, read=lambda source: tensors[source.model]).differentiate(job, torch.ones(2))
    assert found[ParameterSlot("weight", 0)] == pytest.approx(0.5 * 2, rel=1e-4)
    assert found[ParameterSlot("strength")] == pytest.approx(0.5 * 2, rel=1e-4)
    find_method("own_methods:HALF", directory)
    half = replace(job, method="own_methods:HALF", settings=(("normalize", False),))
    with pytest.raises(MergeError, match="derivative of own_methods:HALF gives nothing for weight of input 0"):
        JobRunner(tensors, read=lambda source: tensors[source.model]).differentiate(half, torch.ones(2))


def test_parameters_that_it_does_not_have_are_told(write: Callable[..., Path]):
    path = write_recipe(write(TOWARDS))
    path.write_text(path.read_text().replace("strength", "strenght"))
    with pytest.raises(MergeError, match=r'unknown parameter "strenght".*"strength"'):
        refuse_ignored(load_recipes(path))


def test_a_name_that_is_no_method_is_one_line_with_the_fix(write: Callable[..., Path]):
    directory = write(TOWARDS)
    assert "no module 'own_method'. Looked in" in said("own_method:towards", directory)
    assert "Did you mean" in said("own_methods:toward", directory)
    assert "expected the name of a method, or MODULE:FUNCTION" in said("own_methods.py:towards", directory)
    assert 'Did you mean "ties"' in said("tiess", directory)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(): ...", "first parameter must be the models' tensors"),
        ("def f(*, weight: list[float]): ...", "first parameter must be the models' tensors"),
        ("def f(tensors, weight): ...", "parameter weight: expected list[float]"),
        ("def f(tensors, *, name: str): ...", "parameter name: str: expected list[float]"),
        ("def f(tensors, **values: float): ...", "parameter **values: float: expected list[float]"),
        ("def f(tensors, *, t: float = 'x'): ...", "its default must be a number"),
        ("def f(tensors, base: 'Missing'): ...", "signature cannot be read: name 'Missing' is not defined"),
        ("f = 3", "signature cannot be read"),
        ("import no_such_package", "'own_methods' cannot be imported: No module named 'no_such_package'"),
        ("1 / 0", "'own_methods' cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(0)", "'own_methods' cannot be imported: SystemExit: 0"),
    ],
)
def test_a_function_that_cannot_be_one_is_one_line_with_the_fix(text: str, expected: str, write: Callable[..., Path]):
    assert expected in said("own_methods:f", write(text + "\n"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return tensors[0][:1]", r"own_methods:f returned \[1, 16\], expected a tensor of shape"),
        ("return 3", r"own_methods:f returned int, expected a tensor of shape"),
        ("return 1 / 0", r"own_methods:f: ZeroDivisionError: division by zero \(own_methods.py:1\)"),
        ("raise SystemExit(0)", r"own_methods:f: SystemExit: 0 \(own_methods.py:1\)"),
        ("return tensors[0] * float('nan')", "do not fit float32"),
    ],
)
def test_what_it_does_wrong_is_told_with_its_name(zoo: Path, body: str, expected: str):
    (zoo / "own_methods.py").write_text(f"def f(tensors): {body}\n")
    recipe = "{merge_method: own_methods:f, models: [{model: a}], dtype: float32}"
    (zoo / "recipe.yml").write_text(recipe)
    with pytest.raises(MergeError, match=expected):
        merge(zoo / "recipe.yml", zoo / "merged")
    assert not (zoo / "merged").exists()


@pytest.mark.parametrize("error", ["MemoryError", "torch.OutOfMemoryError"])
def test_that_the_machine_has_no_memory_is_no_fault_of_the_function(zoo: Path, error: str):
    (zoo / "own_methods.py").write_text(f"import torch\ndef f(tensors): raise {error}('no room')\n")
    (zoo / "recipe.yml").write_text("{merge_method: own_methods:f, models: [{model: a}], dtype: float32}")
    with pytest.raises((MemoryError, torch.OutOfMemoryError), match="no room"):
        merge(zoo / "recipe.yml", zoo / "merged")
    assert not (zoo / "merged").exists()


def test_a_kept_intermediate_is_made_anew_when_the_function_has_changed(
    zoo: Path, as_in_a_new_process: Callable[[], None]
):
    text = (
        "name: half\n"
        "merge_method: own_methods:f\n"
        "models: [{model: a}, {model: b}]\n"
        "---\n"
        "merge_method: passthrough\n"
        "models: [{model: half}]\n"
    )
    (zoo / "recipe.yml").write_text(text)
    found = []
    for factor in (0.5, 0.25):
        (zoo / "own_methods.py").write_text(f"def f(tensors): return sum(tensors) * {factor}\n")
        as_in_a_new_process()
        result = merge(zoo / "recipe.yml", zoo / "merged", intermediates=zoo / "kept", overwrite=True)
        found.append(load_file(result.path / "model.safetensors")["model.norm.weight"])
    torch.testing.assert_close(found[0], 2 * found[1])


def test_a_recipe_given_as_data_looks_where_it_is_told(write: Callable[..., Path]):
    mapping = {"merge_method": "own_methods:towards", "base_model": "base", "models": [{"model": "a"}]}
    directory = write(TOWARDS)
    recipe = Recipe.from_mapping(mapping, directory=directory)
    assert recipe.merge_method == "own_methods:towards"
    assert "merge_method: own_methods:towards" in recipe.to_yaml()
