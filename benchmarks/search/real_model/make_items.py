"""Write the items that the real-model bed's experts are trained on, and those that no training sees.

python benchmarks/search/real_model/make_items.py OUTPUT
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from skills import SKILLS, Item, evaluation_items, training_items


def write_items(path: Path, items: Sequence[Item]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the real-model bed's items.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--training", type=int, default=12000, help="items of each skill")
    parser.add_argument("--evaluation", type=int, default=600)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for skill in SKILLS:
        write_items(arguments.output / f"{skill}.train.jsonl", training_items(skill, arguments.training))
        write_items(arguments.output / f"{skill}.evaluation.jsonl", evaluation_items(skill, arguments.evaluation))


if __name__ == "__main__":
    main()
