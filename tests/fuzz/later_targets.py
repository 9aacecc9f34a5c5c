"""Readers of what tools and machines leave: quantized weights, PEFT adapters, mixtures, GGUF, bundles, standings."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mutations import as_json, damaged, mutated
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from targets import Target, headers, of_json, of_text, of_yaml, write_journal, writer

from evolve.actions.rerun_bundle import compare_with_bundle
from evolve.actions.status import read_run, run_status
from evolve.trials.bundle_directory import BundleDirectory
from evolve.trials.journal_lines import sealed
from evolve.trials.run_directory import RunDirectory
from evolve.trials.standing import StandingFile
from merge_core import Checkpoint
from merge_core.checkpoint.adapters import adapted_checkpoint
from merge_core.toolbox.extract_lora import extract_lora
from merge_core.toolbox.gguf_file import write_gguf
from merge_core.toolbox.moe_file import load_moe_file

ORACLES = Path(__file__).parents[1] / "merge_core" / "checkpoint" / "quantized" / "oracles.safetensors"
MIXTURE = {
    "base_model": "a",
    "experts": [{"source_model": name, "positive_prompts": ["x"], "noise_scale": 0.1} for name in "bc"],
    "shared_experts": [
        {"source_model": "d", "positive_prompts": ["x"], "negative_prompts": ["y"], "residual_scale": 0.5}
    ],
    "gate_mode": "cheap_embed",
    "dtype": "bfloat16",
    "experts_per_token": 2,
}
_MODULES: dict[str, Any] = {"target_modules": ["up_proj"], "base_model_name_or_path": "a"}
_DOWN_UP = {"lora_A.weight": (2, 4), "lora_B.weight": (4, 2)}
ADAPTERS: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "LOHA": (
        {"r": 2, "alpha": 4, **_MODULES},
        {"hada_w1_a": (4, 2), "hada_w1_b": (2, 4), "hada_w2_a": (4, 2), "hada_w2_b": (2, 4)},
    ),
    "LOKR": ({"r": 4, "alpha": 4, **_MODULES}, {"lokr_w1": (2, 2), "lokr_w2": (2, 2)}),
    "IA3": ({"feedforward_modules": ["up_proj"], **_MODULES}, {"ia3_l": (1, 4)}),
    "VERA": (
        {"r": 2, "projection_prng_key": 0, "save_projection": False, **_MODULES},
        {"vera_lambda_b": (4,), "vera_lambda_d": (2,)},
    ),
    "LORA of DoRA": (
        {
            "r": 2,
            "lora_alpha": 4,
            "use_dora": True,
            "rank_pattern": {"up": 1},
            "init_lora_weights": "olora",
            **_MODULES,
        },
        {**_DOWN_UP, "lora_magnitude_vector": (4,)},
    ),
}


def later_targets(root: Path, model: Path, other: Path) -> Iterator[Target]:
    """More readers, of two models that `targets` wrote.

    Args:
        root: an empty directory.
        model: a model.
        other: another of the same shapes.
    """
    yield from _quantized(root)
    yield from _adapters(root, model)
    mixture = root / "moe.yml"
    yield Target("mixture", of_yaml(MIXTURE), writer(mixture, lambda: load_moe_file(mixture)))

    def with_file(name: str, read: Any) -> Any:
        file = model / name
        sound = file.read_bytes()

        def reading(data: bytes) -> object:
            file.write_bytes(data)
            try:
                return read()
            finally:
                file.write_bytes(sound)

        return reading

    config = json.loads((model / "config.json").read_bytes())
    config |= {"max_position_embeddings": 64, "rms_norm_eps": 1e-6}
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer.json").read_bytes())
    trained = root / "trained"
    shutil.copytree(other, trained)
    changed = {
        name: tensor + torch.randn_like(tensor) for name, tensor in load_file(other / "model.safetensors").items()
    }
    save_file(changed, trained / "model.safetensors")
    extracted, file = root / "extracted", root / "model.gguf"

    def write_file() -> None:
        try:
            write_gguf(str(model), file, "F32")
        finally:
            file.unlink(missing_ok=True)

    yield Target("config.json of GGUF", of_json(config), with_file("config.json", write_file))
    yield Target("tokenizer.json of GGUF", of_json(tokenizer), with_file("tokenizer.json", write_file))
    yield Target(
        "config.json of an extraction",
        of_json(config),
        with_file("config.json", lambda: extract_lora(str(model), str(trained), extracted, rank=1, overwrite=True)),
    )
    yield from _runs(root)


def _quantized(root: Path) -> Iterator[Target]:
    """Every form that is read, one of them in an input: its header, and what its config says."""
    with safe_open(ORACLES, framework="pt") as file:
        configs = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        for name in configs:
            start = f"{name}/stored/"
            stored = {key.removeprefix(start): file.get_tensor(key) for key in file.keys() if key.startswith(start)}  # noqa: SIM118
            (root / name).mkdir()
            save_file(stored, root / name / "model.safetensors")
            _write_config(root / name, configs[name])
    makers = {name: headers(root / name / "model.safetensors") for name in configs}
    weights = {name: (root / name / "model.safetensors").read_bytes() for name in configs}
    which: list[str] = []

    def chosen(choose: random.Random) -> str:
        which[:] = [choose.choice(sorted(configs))]
        return which[0]

    def make_config(choose: random.Random) -> bytes:
        return as_json(mutated(configs[chosen(choose)], choose))

    def read_weights(data: bytes) -> object:
        name = which[0] if which else "awq"
        (root / name / "model.safetensors").write_bytes(data)
        return _read_all(root / name)

    def read_config(data: bytes) -> object:
        name = which[0] if which else "awq"
        (root / name / "model.safetensors").write_bytes(weights[name])
        try:
            _write_config(root / name, json.loads(data))
            return _read_all(root / name)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return None
        finally:
            _write_config(root / name, configs[name])

    yield Target("quantized header", lambda choose: makers[chosen(choose)](choose), read_weights)
    yield Target("quantization_config", make_config, read_config)


def _write_config(directory: Path, quantization: Any) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config))


def _read_all(directory: Path) -> object:
    checkpoint = Checkpoint.open(directory)
    return [checkpoint.read(name).shape for name in checkpoint.tensors]


def _adapters(root: Path, model: Path) -> Iterator[Target]:
    """One kind in an input: its config, beside tensors that are sound."""
    base, module = Checkpoint.open(model), "base_model.model.model.layers.0.mlp.up_proj"
    configs = {kind: {"peft_type": kind.partition(" ")[0], **settings} for kind, (settings, _) in ADAPTERS.items()}
    for kind, (_, shapes) in ADAPTERS.items():
        tensors = {f"{module}.{name}": torch.ones(shape) for name, shape in shapes.items()}
        (root / kind).mkdir()
        save_file(tensors, root / kind / "adapter_model.safetensors")
    which: list[str] = []

    def make(choose: random.Random) -> bytes:
        which[:] = [choose.choice(sorted(configs))]
        return as_json(mutated(configs[which[0]], choose))

    def fold(data: bytes) -> object:
        adapter = root / (which[0] if which else "LOHA")
        (adapter / "adapter_config.json").write_bytes(data)
        folded = adapted_checkpoint(base, adapter)
        return [folded.read(name).shape for name in folded.tensors]

    yield Target("adapter of PEFT", make, fold)


def _runs(root: Path) -> Iterator[Target]:
    """What `evolve status` reads beside a journal, and what a bundle says."""
    run = root / "run"
    run.mkdir()
    journal = write_journal(run / "journal.log")
    (run / "search.yml").write_text("seed: 1\n")
    standing = StandingFile(journal).path
    summary = {"best": 0, "candidates": 0, "held_out": {"m0": 0.5}, "scores": [], "versions": {"torch": "2"}}
    summary["scores"] = [{"name": "m0", "role": "best", "search": {"": [0.5, 0, 1]}, "held_out": {}}]
    kept = json.loads(standing.read_bytes())

    def resealed(choose: random.Random) -> bytes:
        changed = mutated(kept, choose)
        return sealed(changed, 0) if isinstance(changed, dict) else damaged(standing.read_bytes(), choose)

    yield Target("standing", resealed, writer(standing, lambda: run_status(run).text))
    standing.unlink(missing_ok=True)

    def read_summary() -> object:
        found = read_run(run)
        return run_status(run).text, found.best, found.scores, found.finished

    yield Target("run.json", of_json(summary), writer(run / "run.json", read_summary))
    (run / "run.json").unlink(missing_ok=True)
    bundle = BundleDirectory(root / "bundle")
    bundle.original.mkdir(parents=True)
    facts = {"seed": 1, "versions": {"torch": "2"}, "depends_on": {"task 't': items": "ab", "version of torch": "2"}}
    yield Target("bundle.json", of_json(facts), writer(bundle.facts, bundle.depends_on))
    table = "number,label,state,objective,gene.w,score.t\n0,m0,complete,0.5,,0.5\n1,m1,complete,0.25,0.1,0.25\n"
    there = RunDirectory(root / "again")
    there.path.mkdir()
    there.trials.write_text(table)
    trials = bundle.original / there.trials.name
    yield Target("trials of a bundle", of_text(table), writer(trials, lambda: compare_with_bundle(bundle, there)))
