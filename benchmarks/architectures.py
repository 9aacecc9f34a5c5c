"""Families of models that are merged without a table of architectures: on disk, live, scored, and beside mergekit.

    [MERGEKIT_PYTHON=/path/to/python] python benchmarks/architectures.py > docs/families.md

Two tiny random models of every family are made by transformers and merged; transformers loads the result. `disk` says
that no key is missing or unexpected, for those of `NAMED` from every form of checkpoint alike; `live` that a live model
that is merged into in memory has the same fingerprint; `scored` that the model which a search builds gives a text the
probability that transformers gives it with the saved merge. The last column is what mergekit's merge of the same two
models has of ours. The models are those of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "merge_core"))
from tiny_families import FAMILIES, FORMS, NAMED, VISION_FAMILIES, model_class, save_pair

from evolve.scoring.backends.uninitialised_model import build_uninitialised_model
from merge_core import LiveMerge, Recipe, build_plan, live_fingerprint, live_parameters, merge, open_checkpoints

RECIPE = Recipe.from_mapping(
    {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
        "dtype": "float32",
    }
)
TEXT = torch.arange(4, 20)[None]
SCRIPT = """
import sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False)
for directory in sys.argv[1:]:
    try:
        recipe = yaml.safe_load(sys.stdin.read()) if directory == sys.argv[1] else recipe
        for model in recipe["models"]:
            model["model"] = directory + "/" + model["model"][-1]
        run_merge(MergeConfiguration.model_validate(recipe), directory + "/theirs", options)
    except Exception as error:
        print(directory, type(error).__name__, error, file=sys.stderr)
"""


def main() -> None:
    """Print the page."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    families = [*FAMILIES, *VISION_FAMILIES]
    with tempfile.TemporaryDirectory() as root:
        rows = {family: row(family, Path(root) / family) for family in families}
        theirs = mergekit_results(families, Path(root))
    print(
        "# Families that merge\n\n"
        "`benchmarks/architectures.py` merges two tiny random models of each family, with transformers "
        f'{transformers.__version__}. "disk": the merged model loads\nwithout a missing or unexpected key. '
        '"live": merging into a live model gives the same bits. "scored": the live model scores as\n'
        'transformers scores the saved one. "mergekit": the same merge by mergekit 0.1.5, where tensors '
        '"not there by name" are lost or\nnamed as in another release of transformers. '
        "No family needs code of its own here.\n\n"
        "| family | class | tensors | disk | live | scored | mergekit |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for family in families:
        print(f"| `{family}` | {rows[family]} | {theirs[family]} |")


def row(family: str, directory: Path) -> str:
    """The columns of a family but for its name and mergekit's."""
    prints = set()
    for form in FORMS if family in NAMED else FORMS[:1]:
        zoo = save_pair(family, directory / form if form != FORMS[0] else directory, form=form)
        prints.add(merge(RECIPE, directory / "ours", relative_to=zoo, overwrite=True).fingerprint)
    model, info = model_class(family).from_pretrained(directory / "ours", output_loading_info=True)
    on_disk = len(prints) == 1 and not info["missing_keys"] | info["unexpected_keys"]
    checkpoints = open_checkpoints(RECIPE.references(), directory)
    plan = build_plan(RECIPE, checkpoints)
    live = build_uninitialised_model(plan.config, "float32", torch.device("cpu"), None).eval()
    LiveMerge(checkpoints).write(plan, live_parameters(live))
    in_memory = live_fingerprint(plan, live_parameters(live)) in prints
    with torch.no_grad():
        alike = torch.allclose(live(TEXT).logits, model.eval()(TEXT).logits, atol=1e-4)
        causal = torch.allclose(live(TEXT[:, :8]).logits, live(TEXT).logits[:, :8], atol=1e-4)
    scored = "attends to both sides" if not causal else said(alike)
    return f"`{type(model).__name__}` | {len(plan.jobs)} | {said(on_disk)} | {said(in_memory)} | {scored}"


def said(value: bool) -> str:
    """A word for a cell."""
    return "yes" if value else "**no**"


def mergekit_results(families: list[str], root: Path) -> Mapping[str, str]:
    """What mergekit makes of every family."""
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        return dict.fromkeys(families, "not run")
    directories = [str(root / family) for family in families]
    done = subprocess.run(
        [python, "-c", SCRIPT, *directories], input=RECIPE.to_yaml(), text=True, capture_output=True, check=False
    )
    errors = dict(line.split(" ", 1) for line in done.stderr.splitlines() if line.startswith(str(root)))
    return {family: compared(root / family, errors.get(str(root / family))) for family in families}


def compared(directory: Path, error: str | None) -> str:
    """What is in mergekit's result of what is in ours."""
    if error is not None:
        return f"refused: {error[:60]}"
    ours, theirs = (tensors_of(directory / name) for name in ("ours", "theirs"))
    lost = len(ours.keys() - theirs.keys())
    other = sum(not torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours.keys() & theirs.keys())
    found = ([f"{lost} not there by name"] if lost else []) + ([f"{other} differ"] if other else [])
    return ", ".join(found) or "equal"


def tensors_of(directory: Path) -> dict[str, Any]:
    """Every tensor of a saved model."""
    found: dict[str, Any] = {}
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "pt") as content:
            found |= {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    return found


if __name__ == "__main__":
    main()
