"""Documents that stack what others merge: one plan makes what they make one after the other, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_core import Checkpoint, MergeError, documents_of, merge, plan_recipes
from merge_core.execute.job_runner import run_job


def merging(method: str, **keys):
    own = {"weight": 0.6, **({"density": 0.5} if method != "linear" else {})}
    models = [{"model": name, "parameters": own} for name in "ab"]
    base = {} if method == "linear" else {"base_model": "base"}
    return {"merge_method": method, "models": models, "dtype": "bfloat16", **base, **keys}


def stacked(*methods: str, slices, **keys):
    documents = [merging(method, name=method) for method in methods]
    parts = [{"sources": [{"model": method, "layer_range": list(layers)}]} for method, layers in slices]
    return {"documents": [*documents, {"merge_method": "passthrough", "slices": parts, "dtype": "bfloat16", **keys}]}


@pytest.fixture
def checkpoints(zoo: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(zoo / name) for name in ("base", "a", "b")}


def layer_count(checkpoints) -> int:
    return int(checkpoints["a"].config["num_hidden_layers"])


@pytest.mark.parametrize("methods", [("ties", "linear"), ("dare_ties", "della")])
def test_one_plan_is_the_documents_one_after_the_other(zoo: Path, checkpoints, methods):
    depth = layer_count(checkpoints)
    recipe = stacked(*methods, slices=[(methods[0], (0, 1)), (methods[1], (1, depth))])
    plan = plan_recipes(documents_of(recipe), checkpoints, seed=3)
    saved = Checkpoint.open(merge(documents_of(recipe), zoo / "saved", relative_to=zoo, seed=3).path)
    assert {job.output for job in plan.jobs} == set(saved.tensors)
    for job in plan.jobs:
        assert run_job(job, checkpoints).equal(saved.read(job.output)), job.output
    assert plan.config == saved.config
    assert {source.model for job in plan.jobs for source in job.inputs} <= set(checkpoints)


def test_layers_may_be_repeated_where_nothing_is_drawn_by_name(zoo: Path, checkpoints):
    depth = layer_count(checkpoints)
    slices = [("ties", (0, depth)), ("linear", (0, depth))]
    recipe = stacked("ties", "linear", slices=slices)
    plan = plan_recipes(documents_of(recipe), checkpoints)
    saved = Checkpoint.open(merge(documents_of(recipe), zoo / "twice", relative_to=zoo).path)
    assert plan.layer_count == 2 * depth
    for job in plan.jobs:
        assert run_job(job, checkpoints).equal(saved.read(job.output)), job.output


def test_a_single_document_is_planned_as_ever(checkpoints):
    assert plan_recipes(documents_of(merging("ties")), checkpoints).jobs


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (stacked("dare_ties", slices=[("dare_ties", (1, 2)), ("dare_ties", (0, 1))]), "draws by names"),
        (
            {
                "documents": [
                    merging("ties", name="x"),
                    {
                        **merging("linear"),
                        "models": [
                            {"model": "x", "parameters": {"weight": 1.0}},
                            {"model": "a", "parameters": {"weight": 1.0}},
                        ],
                    },
                ]
            },
            "is merged by linear",
        ),
        (
            {
                "documents": [
                    merging("ties", name="x"),
                    {
                        "merge_method": "passthrough",
                        "models": [{"model": "x", "parameters": {"scale": 0.5}}],
                        "dtype": "bfloat16",
                    },
                ]
            },
            "changes",
        ),
    ],
)
def test_what_must_be_written_first_says_so(checkpoints, recipe, said):
    with pytest.raises(MergeError, match=said):
        plan_recipes(documents_of(recipe), checkpoints)
