"""Four models of 7.6 B parameters on a card of 24 GB, as `evolve check` computes it: the table of the README.

    python benchmarks/card_table.py

The models are holes that take no disk, of Qwen2.5-7B's shape.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from large_layouts import layout, write, write_tokenizer

from evolve.actions.check_card import RESERVED
from evolve.actions.check_search import check_search
from evolve.preflight.gradient_memory import CUDA_BYTES
from evolve.report.formatting import format_bytes, format_duration

CARD, PRICE = "rtx4090", 0.40
SHAPE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
SEARCH = """
recipe:
  merge_method: ties
  base_model: base
  models:
    - model: a
      parameters: &genes
        weight: {low: -0.5, high: 1.5, layers: {blocks: 4}}
        density: {low: 0.2, high: 1.0}
    - {model: b, parameters: *genes}
    - {model: c, parameters: *genes}
  dtype: bfloat16
tasks: [{python: "nothing:nothing", items: 400}]   # of a task of one's own 128 tokens are assumed, and 128 of an answer
items: {search: 200, held_out: 200}
budget: {evaluations: 150}
backend: {dtype: bfloat16}
"""


def rows(directory: Path) -> list[str]:
    """The rows of the table.

    Args:
        directory: an empty one, for the models.
    """
    config, header = layout("qwen2", SHAPE)
    for name in ("base", "a", "b", "c"):
        write(directory / name, config, header)
        write_tokenizer(directory / name)
    (directory / "nothing.py").write_text("def nothing(model, items):\n    return [0.0 for _ in items]\n")
    search = directory / "search.yml"
    search.write_text(SEARCH)
    gradient = check_search(search, {}, card=CARD).facts
    found = check_search(search, {"start": "references"}, card=CARD, price=PRICE).facts
    memory, card = found["bytes"], found["card"]
    needed, seconds = card["bytes_needed_by_quantization"], card["computed_seconds"]
    model, cache, sources, disk = (
        format_bytes(memory[name])
        for name in (
            "live_model_per_worker",
            "key_value_cache_per_worker",
            "sources_mapped_once_per_machine",
            "merged_model_on_disk",
        )
    )
    merging, reading, writing = (round(seconds[part]) for part in ("merging", "reading", "writing"))
    evaluations = sum(found["item_evaluations_at_most"].values())
    step = gradient["gradient_step"]["bytes_per_worker"]["total"] + CUDA_BYTES
    cells = (
        (
            "scoring a candidate",
            _fit(needed["none"], card),
            f"{model} model, {cache} keys and values, {format_bytes(RESERVED)} for CUDA and activations",
        ),
        ("with `quantization: 8bit` or `fp8`", _fit(needed["8bit"], card), "scores of the rounded model; no gradient"),
        ("with `quantization: 4bit`", _fit(needed["4bit"], card), "the same"),
        ("a step of the gradient", _fit(step, card), "of which sources of one tensor are 4.36 GB"),
        (
            "a candidate",
            format_duration(seconds["candidate"]),
            f"{merging} s merging, {reading} reading prompts, {writing} writing answers",
        ),
        (
            "a search of 150 candidates",
            f"at most {format_duration(seconds['search'])}",
            f"{evaluations:,} item evaluations, under `start: references`",
        ),
        ("its price", f"at most {card['computed_price']:.2f} €", f"at {PRICE:.2f} € an hour (`--price {PRICE}`)"),
        ("the machine beside it", sources, "of model files, mapped: memory that is free speeds it up, none is needed"),
        ("disk", disk, "for the result, beside the models"),
    )
    return [f"| {' | '.join(row)} |" for row in cells]


def _fit(size: int, card: dict[str, Any]) -> str:
    verdict = "fits" if size <= card["bytes"] else "does not fit"
    return f"{format_bytes(size)}: {verdict}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print("\n".join(rows(Path(temporary))))
