"""The demo's search on the CPU and on a device: `evolve run configs/demo.yml`, with one worker in its process.

    python benchmarks/gpu/search.py [--device cuda] [--evaluations 20] [--items 150] [--threads 4] [--output runs/gpu]
    python benchmarks/gpu/search.py --workers 2 --dtypes bfloat16 --alone      # Ray's, which share the device

The searches run beside each other, with threads of their own; what they say is in a log beside each one's directory.
Seconds are medians over candidates without the first one. "equal" counts, from the first on, the candidates whose
genes and scores are those of the CPU's search: once a score differs, so do the candidates that follow from it.
"saved": whether the best model is on disk, which needs the hash of what the CPU merges to be that of what was scored.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVOLVE = [sys.executable, "-m", "evolve.commands.cli"]


def main() -> None:
    """Prints the table; exits with 1 when a search fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--threads", type=int, default=4, help="CPU threads of a worker")
    parser.add_argument("--workers", type=int, default=1, help="Ray's, if more than one")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of the searches on the device")
    parser.add_argument("--alone", action="store_true", help="no search on the CPU to compare with")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    options = parser.parse_args()
    wanted = [] if options.alone else [("cpu", "float32")]
    wanted += [(options.device, dtype) for dtype in options.dtypes]
    searches = {f"{device} {dtype}": (device, dtype) for device, dtype in wanted}
    print(
        f"demo search, {options.evaluations} candidates, 4 tasks of {options.items} items, {options.workers} worker(s)"
    )
    header = f"{'search':<18}{'whole s':>9}{'candidate s':>13}{'merge':>8}{'forward':>9}{'equal':>8}{'best':>6}"
    print(header + f"{'held out':>10}{'saved':>7}")
    expected: list[dict[str, str]] = []
    failed = False
    folders = {title: options.output / title.replace(" ", "-").replace(":", "-") for title in searches}
    with ThreadPoolExecutor(len(searches)) as pool:
        running = {title: pool.submit(run, *searches[title], folders[title], options) for title in searches}
        for title, search in running.items():
            code, took = search.result()
            if code:
                failed = True
                last = log_of(folders[title]).read_text().strip().splitlines()[-3:]
                print(f"{title:<18}FAILED with exit code {code}: {last}", flush=True)
                continue
            trials = list(csv.DictReader((folders[title] / "trials.csv").open()))
            expected = expected or trials
            print(f"{title:<18}{took:>9.1f}{summary(trials, expected, folders[title])}", flush=True)
    sys.exit(int(failed))


def log_of(folder: Path) -> Path:
    """Where a search's output goes."""
    return folder.with_suffix(".log")


def run(device: str, dtype: str, folder: Path, options: argparse.Namespace) -> tuple[int, float]:
    """One search, in a process of its own: its exit code and seconds."""
    settings = {
        "workers.count": options.workers,
        "workers.cpus": options.threads,
        "workers.gpus": 0 if device == "cpu" else 1 / options.workers,
        "backend.device": device,
        "backend.dtype": dtype,
        "budget.evaluations": options.evaluations,
        "items.search": options.items,
        "items.held_out": options.items,
        "validation.finalists": 3,
        "output": folder.resolve(),
    }
    command = [*EVOLVE, "run", "configs/demo.yml", *(f"--set={name}={value}" for name, value in settings.items())]
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log_of(folder).open("w") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    return done.returncode, time.perf_counter() - started


def summary(trials: list[dict[str, str]], expected: list[dict[str, str]], folder: Path) -> str:
    """The rest of a line of the table."""
    failures = [trial for trial in trials if trial.get("failure")]
    if failures:
        return f"  {len(failures)} candidates FAILED, the first: {failures[0]['failure']}"

    def median(column: str) -> float:
        return statistics.median(float(trial[column]) for trial in trials[1:] if trial[column])

    timed = ("merge_seconds", "forward_seconds", "total_seconds")
    equal = 0
    for one, two in zip(trials, expected, strict=False):
        if any(one[name] != two.get(name) for name in one if name not in timed):
            break
        equal += 1
    facts = json.loads((folder / "run.json").read_text())
    held_out = facts["held_out"].get(trials[facts["best"]]["label"], float("nan"))
    total, saved = median("total_seconds"), (folder / "model" / "config.json").is_file()
    return (
        f"{total:>13.3f}{median('merge_seconds') / total:>8.0%}{median('forward_seconds') / total:>9.0%}"
        f"{equal:>5}/{len(trials)}{facts['best']:>6}{held_out:>10.3f}{saved!s:>7}"
    )


if __name__ == "__main__":
    main()
