"""Every method, ours against the installed mergekit, tensor by tensor.

    MERGEKIT_PYTHON=/path/to/python python benchmarks/parity.py [--seeds 16]

MERGEKIT_PYTHON is the Python of an environment with mergekit 0.1.5. Both merge tiny random Llama checkpoints, stored
in float32 and in bfloat16, with `dtype: float32`. A deterministic method's row says how far its worst tensor is from
mergekit's, max |ours − theirs| / max |theirs|, and how many of the model's entries are apart by more than 1e-4 of that.
Methods that cut at a threshold may leave an entry on it on either side, a whole step apart: a few in a thousand in
bfloat16, where many magnitudes are equal, and in float32 only where rounding decides. A wrong formula shows in float32.

Random draws differ, so a random method's row compares, over as many seeds of each, what moved from the base: the share
of entries, the L2 norm and the mean, with the standard error of the difference of the two averages. The rows share
their seeds, so they are not independent. `-` is a variant that the method does not have.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from merge_core import METHODS, MergeError, Method, merge, parse_recipes

LAYERS, HIDDEN, INNER, VOCABULARY, HEADS = 4, 64, 96, 48, 4
STORED = ("float32", "bfloat16")
VARIANTS = ("plain", "gradient", "filter", "slices")
SHARES = (1.0, 0.8, 0.6)  # of models a, b, c in a parameter that each model has
APART = 1e-4
FIXED = {"lambda": 0.8, "gamma": 0.1, "r": 0.5, "alpha": 0.7}
# The first of these that a method has is varied, between these two values, by the variants.
VARIED: dict[str, tuple[float, float]] = {
    "density": (0.4, 0.8),
    "select_topk": (0.3, 0.8),
    "weight": (0.9, 0.3),
    "t": (0.3, 0.8),
    "scale": (0.5, 1.2),
    "epsilon": (0.03, 0.08),
    "filter_wise": (False, True),
    "max_iter": (10, 1),
}
OVERRIDES = {"nearswap": {"t": (0.02, 0.06)}}

MERGEKIT = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
errors = {}
for name, (recipe, seed) in json.load(sys.stdin).items():
    options = MergeOptions(quiet=True, random_seed=seed, copy_tokenizer=False, write_model_card=False)
    try:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(recipe)), "mergekit/" + name, options)
    except Exception as error:
        errors[name] = f"{type(error).__name__}: {error}"
json.dump(errors, open("mergekit.json", "w"))
"""

Row = tuple[str, str, Method, bool]
Tensors = dict[str, torch.Tensor]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16, help="of each side, for the random methods; at least 2")
    options = parser.parse_args()
    python = os.environ.get("MERGEKIT_PYTHON")
    if not python or options.seeds < 2:
        complaint = "--seeds: at least 2" if python else "MERGEKIT_PYTHON: set it to a Python with mergekit 0.1.5"
        print(complaint, file=sys.stderr)
        sys.exit(2)
    rows = list(every_row())
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for stored in STORED:
            for seed, name in enumerate(("base", "a", "b", "c"), start=1):
                write_model(directory / stored / name, seed, getattr(torch, stored))
        recipes: dict[str, tuple[str, int]] = {}  # the name of an output → its recipe and seed
        for label, variant, method, with_base in rows:
            seeds = range(options.seeds) if method.randomised else range(1)
            for stored in STORED[: 1 if method.randomised else None]:
                text = recipe(method, variant, with_base, stored)
                recipes |= {f"{label}.{variant}.{stored}.{seed}": (text, seed) for seed in seeds if text}
        run_mergekit(python, recipes, directory)
        run_ours(recipes, directory)
        deterministic = report_deterministic([row for row in rows if not row[2].randomised], directory)
        random = report_random([row for row in rows if row[2].randomised], directory, options.seeds)
    print(f"\n{deterministic}; {random}")


def every_row() -> Iterator[Row]:
    """Label, variant, method, whether it gets a base; a method with an optional base is there with and without."""
    for name, method in METHODS.items():
        for with_base in {"required": (True,), "unused": (False,), "optional": (False, True)}[method.base]:
            label = f"{name}+base" if with_base and method.base == "optional" else name
            for variant in VARIANTS:
                yield label, variant, method, with_base


def recipe(method: Method, variant: str, with_base: bool, stored: str) -> str | None:
    """The recipe of a row, or None if the method does not have the variant."""
    varied = next((name for name in VARIED if name in method.by_name), None)
    low, high = OVERRIDES.get(method.name, VARIED).get(varied, (0.0, 0.0)) if varied else (0.0, 0.0)
    kind = method.by_name[varied].kind if varied else None
    if (variant == "gradient" and kind != "number") or (variant == "filter" and kind is None):
        return None

    def values(factor: float, part: int) -> Any:
        first, second = (low * factor, high * factor) if kind == "number" else (low, high)
        if factor == SHARES[1]:  # the other way round, or normalised weights would be the same everywhere
            first, second = second, first
        if variant == "gradient":
            return [first, second, (2 * first + second) / 3]
        if variant == "filter":
            return [{"filter": "self_attn", "value": second}, {"filter": "mlp", "value": first}, {"value": second}]
        return (first, second)[part]

    def settings(scope: str, index: int, part: int) -> dict[str, Any]:
        own = {name: FIXED[name] for name in FIXED if name in method.by_name and method.by_name[name].scope == scope}
        if scope == "model" and varied != "weight" and "weight" in method.by_name:
            own["weight"] = (0.7, 0.5, -0.4)[index]
        if scope == "model" and method.name.startswith("della"):
            own["epsilon"] = 0.1
        if varied and method.by_name[varied].scope == scope:
            own[varied] = values(SHARES[index] if scope == "model" else 1.0, part)
        return own

    models = ("a", "b", "c")[: method.maximum_models]
    base = {"base_model": f"{stored}/base"} if with_base else {}

    def sources(models: Sequence[str], part: int, **keys: Any) -> list[dict[str, Any]]:
        listed = [{"model": f"{stored}/base", **keys}] if with_base else []
        own = [settings("model", index, part) for index in range(len(models))]
        return listed + [
            {"model": f"{stored}/{name}", "parameters": one, **keys} for name, one in zip(models, own, strict=True)
        ]

    body: dict[str, Any] = {"models": sources(models, 0), "parameters": settings("global", 0, 0)}
    if variant == "slices":
        overlap = method.name == "passthrough"
        parts = (((0, 3), ("a",)), ((1, LAYERS), ("b",))) if overlap else (((0, 2), models), ((2, LAYERS), models))
        body = {
            "slices": [
                {
                    "sources": sources(names, part, layer_range=list(layers)),
                    "parameters": settings("global", 0, part),
                }
                for part, (layers, names) in enumerate(parts)
            ],
            "parameters": settings("global", 0, 0),
        }
    return yaml.safe_dump({"merge_method": method.name, "dtype": "float32", **base, **body})


def write_model(directory: Path, seed: int, dtype: torch.dtype) -> None:
    """A random Llama checkpoint; those of different seeds share most of their weights, as fine-tunes do."""
    common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (HIDDEN,)}
    shapes |= {f"{name}.weight": (VOCABULARY, HIDDEN) for name in ("model.embed_tokens", "lm_head")}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qo"}
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (HIDDEN // 2, HIDDEN) for name in "kv"}
        shapes |= {f"{prefix}.mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (HIDDEN, INNER)
    tensors = {
        name: 0.2 * torch.randn(shape, generator=common) + 0.05 * torch.randn(shape, generator=own)
        for name, shape in shapes.items()
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": str(dtype).removeprefix("torch."),
    }
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, directory / "model.safetensors")


def run_mergekit(python: str, recipes: Mapping[str, tuple[str, int]], directory: Path) -> None:
    """One process for all recipes; what it refuses it leaves out."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(
        [python, "-c", MERGEKIT],
        input=json.dumps(recipes),
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        check=False,
    )
    if found.returncode:
        sys.exit(f"mergekit failed:\n{found.stderr[-3000:]}")
    for name, error in json.loads((directory / "mergekit.json").read_text()).items():
        print(f"mergekit refuses {name}: {error}", file=sys.stderr)


def run_ours(recipes: Mapping[str, tuple[str, int]], directory: Path) -> None:
    """The same with ours, in this process."""
    for name, (text, seed) in recipes.items():
        try:
            merge(
                parse_recipes(text), directory / "ours" / name, relative_to=directory, seed=seed, copy_tokenizer=False
            )
        except MergeError as error:
            print(f"we refuse {name}: {error}", file=sys.stderr)


def load(directory: Path, side: str, name: str) -> Tensors | None:
    """What one side wrote, or None."""
    path = directory / side / name / "model.safetensors"
    return load_file(path) if path.exists() else None


def report_deterministic(rows: Sequence[Row], directory: Path) -> str:
    """Print a line per row; return the summary."""
    worst: dict[str, tuple[float, str, int]] = dict.fromkeys(STORED, (0.0, "none", 0))
    one_sided = 0
    titles = "".join(f"{stored:>12}{'apart':>7}" for stored in STORED)
    print(f"{'deterministic':<18}{'variant':<10}{titles}  worst tensor")
    for label, variant, _, _ in rows:
        cells, where, largest = "", "", 0.0
        for stored in STORED:
            name = f"{label}.{variant}.{stored}.0"
            ours, theirs = load(directory, "ours", name), load(directory, "mergekit", name)
            if ours is None or theirs is None:
                one_sided += ours is not theirs
                cells += f"{'-' if ours is theirs else 'only ours' if theirs is None else 'only theirs':>12}{'':>7}"
                continue
            found = {key: difference(ours.get(key), theirs.get(key)) for key in sorted(ours.keys() | theirs)}
            tensor, apart = max(found, key=lambda key: found[key][0]), sum(count for _, count in found.values())
            cells += f"{found[tensor][0]:>12.1e}{apart:>7}"
            worst[stored] = max(worst[stored], (found[tensor][0], f"{label} {variant}", apart))
            largest, where = max((largest, where), (found[tensor][0], tensor))
        print(f"{label:<18}{variant:<10}{cells}  {where.removesuffix('.weight')}".rstrip())
    parts = [f"{value:.1e} in {stored} ({row}, {apart} apart)" for stored, (value, row, apart) in worst.items()]
    return f"worst deterministic difference: {', '.join(parts)}; recipes only one of the two runs: {one_sided}"


def difference(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> tuple[float, int]:
    """``max |ours − theirs| / max |theirs|``, and the number of entries apart.

    Infinite if one lacks the tensor, its shape differs or an entry is not finite.
    """
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return math.inf, max(tensor.numel() for tensor in (ours, theirs) if tensor is not None)
    found = (ours - theirs).abs() / theirs.abs().max().clamp_min(1e-12)
    largest = found.max().item()
    return largest if math.isfinite(largest) else math.inf, int((~(found <= APART)).sum())


def report_random(rows: Sequence[Row], directory: Path, seeds: int) -> str:
    """Print a line per row; return the summary."""
    base = load_file(directory / STORED[0] / "base" / "model.safetensors")
    outside = 0
    titles = "".join(f"{title:>34}" for title in ("share moved", "L2 norm", "mean x 1e4"))
    print(
        f"\n{'random':<14}{'variant':<10}{titles}  agree\n{'':<24}" + f"{'ours':>13}{'mergekit':>10}{'± s.e.':>11}" * 3
    )
    for label, variant, _, _ in rows:
        measured = []
        for side in ("ours", "mergekit"):
            found = [load(directory, side, f"{label}.{variant}.{STORED[0]}.{seed}") for seed in range(seeds)]
            measured.append(torch.tensor([moved(tensors, base) for tensors in found if tensors is not None]))
        if len(measured[0]) != seeds or len(measured[1]) != seeds:
            outside += 1
            print(f"{label:<14}{variant:<10}refused by one of the two")
            continue
        averages = [values.double().mean(dim=0) for values in measured]
        errors = torch.stack([values.double().var(dim=0) / seeds for values in measured]).sum(dim=0).sqrt()
        distances = (averages[0] - averages[1]).abs() / errors.clamp_min(1e-12)
        agree = bool((distances <= 3).all())
        outside += not agree
        numbers = zip(averages[0].tolist(), averages[1].tolist(), errors.tolist(), strict=True)
        cells = "".join(f"{ours:>13.5f}{mergekit:>10.5f}{error:>11.5f}" for ours, mergekit, error in numbers)
        print(f"{label:<14}{variant:<10}{cells}  {'yes' if agree else 'NO'}, {distances.max().item():.1f} s.e.")
    return f"random rows outside three standard errors: {outside} of {len(rows)}"


def moved(tensors: Tensors, base: Tensors) -> list[float]:
    """Share of the entries that are not the base's, L2 norm of their distance, its mean times 10⁴."""
    distance = torch.cat([(tensors[name].double() - base[name].double()).flatten() for name in base])
    share = (distance != 0).double().mean().item()
    return [share, distance.norm().item(), distance.mean().item() * 1e4]


if __name__ == "__main__":
    main()
