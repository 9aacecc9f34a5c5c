"""Paths through the layers of models: repeated layers are one tensor, and the scored model is the saved one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from zoo_requests import ITEMS, ROOT, ZOO, recipe, settings

from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker
from merge_core import Recipe, merge

MODELS = ("sorting", "reversal", "base")
LAYERS = 6


def path(*steps: tuple[str, int, int], **keys) -> dict:
    slices = [{"sources": [{"model": f"{ZOO}/{model}", "layer_range": [low, high]}]} for model, low, high in steps]
    return {"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16", **keys}


def random_path(generator: random.Random) -> dict:
    steps = []
    for _ in range(generator.randint(1, 6)):
        low = generator.randrange(LAYERS)
        steps.append((generator.choice(MODELS), low, generator.randint(low + 1, LAYERS)))
    return path(*steps)


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(settings())


def live_model(worker: Worker):
    return worker.live.engine.model


def memory(model: torch.nn.Module) -> int:
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}.values())


def test_a_block_repeated_takes_the_memory_of_one_model(worker: Worker):
    whole = memory(worker.load(path(("base", 0, 6))).model)
    model = worker.load(path(("base", 0, 5), ("base", 1, 6))).model
    assert len(model.model.layers) == LAYERS + 4
    assert memory(model) == whole
    assert model.model.layers[5].mlp.up_proj.weight is model.model.layers[1].mlp.up_proj.weight
    layers = [layer.self_attn.layer_idx for layer in model.model.layers]
    assert layers == list(range(10)), "each has keys and values of its own"


@pytest.mark.parametrize("seed", range(4))
def test_a_path_is_what_is_saved_and_loaded(worker: Worker, tmp_path: Path, seed: int):
    generator = random.Random(seed)
    for number in range(3):
        mapping = random_path(generator)
        live = worker.load(mapping).model
        saved = merge(Recipe.from_mapping(mapping), tmp_path / str(number), relative_to=ROOT)
        assert worker.fingerprint(mapping) == saved.fingerprint
        loaded = AutoModelForCausalLM.from_pretrained(saved.path, dtype=torch.float32).eval()
        tokens = torch.randint(0, loaded.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            expected = loaded(input_ids=tokens).logits
            assert torch.equal(live(input_ids=tokens).logits, expected)
            cache = DynamicCache(config=live.config)
            live(input_ids=tokens[:, :5], past_key_values=cache)
            continued = live(input_ids=tokens[:, 5:], past_key_values=cache).logits
            torch.testing.assert_close(continued, expected[:, 5:], atol=1e-4, rtol=1e-4)


def test_what_the_model_before_held_is_not_written_again(worker: Worker):
    worker.load(path(("base", 0, 6)))
    writes = count_writes(worker)
    worker.load(path(("base", 0, 5), ("base", 1, 6)))
    assert writes == []
    worker.load(path(("base", 0, 2), ("base", 4, 6)))
    worker.load(path(("base", 0, 3), ("sorting", 3, 4), ("base", 4, 6)))
    inside = {name.split(".")[2] for name in writes if ".layers." in name}
    # Layers 2 and 3 were given up by the model that skipped them, or were kept beside it.
    assert inside <= {"2", "3"}
    assert not [name for name in writes if ".layers." not in name], "embedding and head stay"


def count_writes(worker: Worker) -> list[str]:
    live_merge, written = worker.live._merge, []
    write = live_merge._write

    def counted(job, *rest):
        written.append(job.output)
        write(job, *rest)

    live_merge._write = counted
    return written


def test_layers_of_a_merge_that_are_passed_twice_are_merged_once_and_saved_so(worker: Worker, tmp_path: Path):
    def part(low: int, high: int, weight: float) -> dict:
        entries = [("sorting", {"parameters": {"weight": weight}}), ("reversal", {"parameters": {"weight": 0.4}})]
        named = [*entries, ("base", {})]
        return {"sources": [{"model": f"{ZOO}/{name}", "layer_range": [low, high], **more} for name, more in named]}

    slices = [part(0, 3, 0.2), part(3, 4, 0.9), part(1, 3, 0.2), part(3, 4, 0.9), part(5, 6, 0.9)]
    merged = {"merge_method": "task_arithmetic", "base_model": f"{ZOO}/base", "slices": slices, "dtype": "bfloat16"}
    whole = memory(worker.load(path(("base", 0, 5))).model)
    live = worker.load(merged).model
    assert len(live.model.layers) == 8
    assert live.model.layers[4].mlp.up_proj.weight is live.model.layers[1].mlp.up_proj.weight
    assert live.model.layers[6].mlp.up_proj.weight is live.model.layers[3].mlp.up_proj.weight
    assert memory(live) == whole, "eight layers, five of them different"
    saved = merge(Recipe.from_mapping(merged), tmp_path / "merged", relative_to=ROOT)
    loaded = AutoModelForCausalLM.from_pretrained(saved.path, dtype=torch.float32).eval()
    tokens = torch.randint(0, loaded.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(live(input_ids=tokens).logits, loaded(input_ids=tokens).logits)
    assert worker.fingerprint(merged) == saved.fingerprint


def test_layers_that_are_equal_have_a_gradient_each(worker: Worker):
    steps = [("base", 0, 4), ("base", 2, 6)]
    mapping = path(*steps, parameters={"scale": 1.0})
    worker.load(mapping)
    assert (
        live_model(worker).model.layers[4].mlp.up_proj.weight is live_model(worker).model.layers[2].mlp.up_proj.weight
    )
    worker.live.write(mapping, shares=False)
    weights = [layer.mlp.up_proj.weight for layer in live_model(worker).model.layers]
    assert len({weight.data_ptr() for weight in weights}) == 8
    assert torch.equal(weights[4], weights[2])


def test_scores_do_not_depend_on_what_was_scored_before():
    generator = random.Random(7)
    requests = [Request(number, random_path(generator), ITEMS) for number in range(4)]
    requests.insert(2, Request(9, recipe(0.3), ITEMS))
    one_after_the_other = Worker(settings())
    found = [one_after_the_other.evaluate(request).scores for request in requests]
    fresh = [Worker(settings()).evaluate(request).scores for request in requests]
    assert found == fresh


def test_only_what_is_scaled_takes_memory_of_its_own(worker: Worker):
    mapping = path(("base", 0, 4), ("base", 2, 6))
    scale = [{"filter": "o_proj", "value": 0.5}, {"filter": "down_proj", "value": 0.5}]
    mapping["slices"][1]["sources"][0]["parameters"] = {"scale": scale}
    layers = worker.load(mapping).model.model.layers
    assert layers[4].self_attn.q_proj.weight is layers[2].self_attn.q_proj.weight
    assert layers[4].self_attn.o_proj.weight is not layers[2].self_attn.o_proj.weight
    assert torch.equal(layers[4].self_attn.o_proj.weight, layers[2].self_attn.o_proj.weight * 0.5)


def test_an_engine_that_fails_on_a_path_is_started_anew_for_the_next(worker: Worker, monkeypatch):
    worker.load(path(("base", 0, 6)))

    def refused(*arguments):
        raise ValueError("no such depth")

    monkeypatch.setattr(worker.live.engine, "reshape", refused)
    assert worker.evaluate(Request(0, path(("base", 0, 3)), ITEMS)).failure == "no such depth"
    assert worker.evaluate(Request(1, path(("base", 0, 3)), ITEMS)).failure is None
