"""Families of decoders that are merged without a table of architectures, in every form of checkpoint.

    python benchmarks/architectures.py

Two tiny random models of every family are made by transformers, stored in four forms and merged; transformers loads the
result. `missing` and `unexpected` are what it says of the keys; `same` says that all forms gave one fingerprint, and
`live` that a live model that is merged into in memory has it too. The models are those of the tests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "merge_core"))
from tiny_families import FAMILIES, FORMS, NAMED, VISION_FAMILIES, live_model, model_class, save_pair

from merge_core import LiveMerge, Recipe, build_plan, live_fingerprint, live_parameters, merge, open_checkpoints

RECIPE = Recipe.from_mapping(
    {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
    }
)


def main() -> None:
    """Print the table."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(
        f"{'family':<14}{'class':<36}{'tensors':>8}{'forms':>6}{'same':>6}{'live':>6}{'missing':>9}{'unexpected':>11}"
    )
    for family in [*NAMED, *(name for name in [*FAMILIES, *VISION_FAMILIES] if name not in NAMED)]:
        with tempfile.TemporaryDirectory() as directory:
            print(row(family, Path(directory)), flush=True)


def row(family: str, directory: Path) -> str:
    """The row of a family."""
    prints = []
    for form in FORMS:
        zoo = save_pair(family, directory / form, form=form)
        merged = merge(RECIPE, directory / "m", relative_to=zoo, overwrite=True, shard_bytes=30_000)
        prints.append(merged.fingerprint)
    model, info = model_class(family).from_pretrained(directory / "m", output_loading_info=True)
    checkpoints = open_checkpoints(RECIPE.references(), zoo)
    live = live_model(family, build_plan(RECIPE, checkpoints).config)
    plan = LiveMerge(checkpoints).write(RECIPE, live_parameters(live)).plan
    in_memory = live_fingerprint(plan, live_parameters(live)) == merged.fingerprint
    same = "yes" if len(set(prints)) == 1 else "NO"
    missing, unexpected = len(info["missing_keys"]), len(info["unexpected_keys"])
    return (
        f"{family:<14}{type(model).__name__:<36}{merged.tensors:>8}{len(FORMS):>6}{same:>6}"
        f"{'yes' if in_memory else 'NO':>6}{missing:>9}{unexpected:>11}"
    )


if __name__ == "__main__":
    main()
