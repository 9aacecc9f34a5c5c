"""Peak memory of merging checkpoints on disk: ours, and mergekit's.

    [MERGEKIT_PYTHON=/path/to/python] python benchmarks/peak_memory.py [--megabytes 2000] [--models 4] [--method ties]

Random Llama checkpoints (bfloat16, 3 shards each; the first is the base) are written to a temporary directory. Each
program is a process of its own. `resident` is the most memory it had at once, pages of mapped files included, which
the system may take back at any time; `own` is without those.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import yaml
from merge_on_disk import OURS, PARAMETERS, run, write_checkpoint


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2000, help="size of a checkpoint")
    parser.add_argument("--models", type=int, default=4, help="how many, the base included")
    parser.add_argument("--method", default="ties", choices=list(PARAMETERS))
    parser.add_argument("--directory", type=Path, help="where the checkpoints are written for a while")
    options = parser.parse_args()
    mergekit_python = os.environ.get("MERGEKIT_PYTHON")
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        models = [directory / f"model{index}" for index in range(options.models)]
        for index, model in enumerate(models):
            write_checkpoint(model, index, options.megabytes)
        listed = [{"model": str(model), "parameters": PARAMETERS[options.method]} for model in models]
        recipe: dict[str, object] = {"merge_method": options.method, "models": listed, "dtype": "bfloat16"}
        if options.method != "linear":
            recipe |= {"models": listed[1:], "base_model": str(models[0])}
        path = directory / "recipe.yml"
        path.write_text(yaml.safe_dump(recipe))
        commands = {"ours": [sys.executable, "-c", OURS, str(path), str(directory / "ours")]}
        if mergekit_python:
            mergekit = str(Path(mergekit_python).parent / "mergekit-yaml")
            commands["mergekit"] = [mergekit, str(path), str(directory / "theirs"), "--quiet"]
        print(f"{options.method} of {options.models} checkpoints of {options.megabytes} MB")
        print(f"{'':<10}{'resident':>10}{'own':>9}{'time':>10}")
        for program, command in commands.items():
            seconds, _, resident, own = run(command)
            print(f"{program:<10}{resident:>7.2f} GB{own:>6.2f} GB{seconds:>8.1f} s", flush=True)


if __name__ == "__main__":
    main()
