"""The genome format of mergekit-evolve, against the recipes that it writes itself."""

from __future__ import annotations

import json
import os
import random
import subprocess

import pytest

from evolve.space.genome_space import GenomeDefinition, GenomeSpace

GENOMES = [
    {"models": ["a", "b"], "merge_method": "linear", "layer_granularity": 2},
    {
        "models": ["a", "b"],
        "merge_method": "linear",
        "allow_negative_weights": True,
        "filters": ["self_attn", "mlp"],
    },
    {
        "models": ["a", "b"],
        "base_model": "base",
        "merge_method": "ties",
        "layer_granularity": 4,
        "normalize": False,
    },
    {
        "models": ["a", "b"],
        "base_model": "base",
        "merge_method": "dare_ties",
        "layer_granularity": 2,
        "smooth": True,
        "filters": ["mlp"],
        "tokenizer_source": "base",
    },
    {"models": ["a", "b", "c"], "merge_method": "slerp", "layer_granularity": 2},
    {"models": ["a", "b"], "base_model": "base", "merge_method": "task_arithmetic", "layer_granularity": -1},
    {"models": ["base", "a"], "base_model": "base", "merge_method": "ties", "layer_granularity": 1},
    {
        "models": ["a", "b"],
        "base_model": "a",
        "merge_method": "task_arithmetic",
        "smooth": True,
        "layer_granularity": 4,
    },
]

MERGEKIT = """
import json, sys, torch, yaml
from transformers import LlamaConfig
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
for name in ("base", "a", "b", "c"):
    LlamaConfig(hidden_size=32, num_hidden_layers=4, architectures=["LlamaForCausalLM"]).save_pretrained(name)
answers = []
for definition, values in json.load(sys.stdin):
    genome = ModelGenome(ModelGenomeDefinition.model_validate(definition))
    initial = genome.initial_genotype(random=False)
    recipe = genome.genotype_merge_config(torch.tensor(values).view(initial.shape))
    answers.append([initial.flatten().tolist(), yaml.safe_load(recipe.to_yaml())])
print("ANSWERS" + json.dumps(answers))
"""


@pytest.fixture(scope="module")
def cases():
    generator = random.Random(0)
    made = []
    for written in GENOMES:
        space = GenomeSpace(GenomeDefinition.model_validate(written), layer_count=4)
        vector = [generator.random() for _ in space.coordinates]
        native = [axis.gene.value(unit) for axis, unit in zip(space.coordinates, vector, strict=True)]
        made.append((written, space, vector, native))
    return made


@pytest.fixture(scope="module")
def mergekit_answers(cases, tmp_path_factory):
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python:
        pytest.skip("MERGEKIT_PYTHON, the Python of an environment with mergekit 0.1.5, is not set")
    found = subprocess.run(
        [python, "-c", MERGEKIT],
        input=json.dumps([[written, native] for written, _, _, native in cases]),
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("mergekit"),
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.split("ANSWERS", 1)[1])


@pytest.mark.parametrize("index", range(len(GENOMES)))
def test_recipes_equal_those_of_mergekit_evolve(cases, mergekit_answers, index):
    _, space, vector, _ = cases[index]
    assert_same(space.decode(vector), mergekit_answers[index][1])


@pytest.mark.parametrize("index", range(len(GENOMES)))
def test_the_search_starts_where_mergekit_evolve_starts(cases, mergekit_answers, index):
    _, space, _, _ = cases[index]
    start = [axis.gene.value(unit) for axis, unit in zip(space.coordinates, space.start(None), strict=True)]
    assert start == pytest.approx(mergekit_answers[index][0], abs=1e-5)


def assert_same(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=2e-6)
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"merge_method": "breadcrumbs"}, "genome knows linear"),
        ({"merge_method": "ties"}, "base_model: is required"),
        ({"merge_method": "slerp", "smooth": True}, "smooth: is not supported"),
        ({"merge_method": "slerp", "filters": ["mlp"]}, "filters: are not supported"),
        ({"layer_granularty": 2}, "not permitted"),
    ],
)
def test_wrong_genomes_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        GenomeDefinition.model_validate({"models": ["a", "b"], "merge_method": "linear", **change})


def test_granularity_must_divide_the_layers():
    definition = GenomeDefinition(models=("a", "b"), merge_method="linear", layer_granularity=3)
    with pytest.raises(ValueError, match="4 layers, not a multiple of 3"):
        GenomeSpace(definition, layer_count=4)
