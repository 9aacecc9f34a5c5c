"""What the other parts run on: card, versions, and the two ceilings that their rates are read against.

    python benchmarks/gpu/environment.py [--device cuda] [--small]

Copy: device to device, bytes read plus bytes written. Link: from pinned memory of the host to the device. Matrix:
8192 x 8192 x 8192 in bfloat16, on random numbers. Medians of ten.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch


def main() -> None:
    """Prints one line for each fact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a rehearsal")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        print("card         ", subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip())
    print(
        "host         ", f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    )
    for name in (
        "torch",
        "transformers",
        "safetensors",
        "numba",
        "triton",
        "lm_eval",
        "optuna",
        "ray",
        "vllm",
        "bitsandbytes",
    ):
        try:
            print(f"{name:<14}{importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:<14}not installed")
    rates = ceilings(device, options.small)
    print("copy          {copy:.0f} GB/s, link {link:.1f} GB/s, matrix {matrix:.1f} TFLOP/s".format(**rates))


def ceilings(device: torch.device, small: bool) -> dict[str, float]:
    """GB/s of a copy and of the link from the host, TFLOP/s of a matrix product."""
    found = {
        "copy": _copy(device, 1 << (24 if small else 32)),
        "link": _link(device, 1 << (22 if small else 30)),
        "matrix": _matrix(device, 256 if small else 8192),
    }
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _copy(device: torch.device, size: int) -> float:
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source)) / 1e9


def _link(device: torch.device, size: int) -> float:
    source = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda").fill_(1)
    target = torch.empty(size, dtype=torch.uint8, device=device)
    return size / seconds(lambda: target.copy_(source, non_blocking=True)) / 1e9


def _matrix(device: torch.device, side: int) -> float:
    left, right = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: left @ right) / 1e12


def seconds(work: Callable[[], object]) -> float:
    """Median time of a call, the device's work included."""
    return statistics.median([clocked(work)[0] for _ in range(13)][3:])


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, the device's work included, and what it returned."""
    synchronize()
    started = time.perf_counter()
    result = work()
    synchronize()
    return time.perf_counter() - started, result


def synchronize() -> None:
    """Waits for the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
