"""The machine and the package versions that a run used."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform

_PACKAGES = ("torch", "transformers", "safetensors", "lm_eval", "cma", "optuna", "ray", "numpy")


def machine() -> dict[str, str]:
    """What the run was made on: system, processor, cores, GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found = {"system": platform.platform(), "processor": platform.machine(), "cores": f"{os.cpu_count()} cores"}
    return found | ({"gpus": ", ".join(gpus)} if gpus else {})


def versions() -> dict[str, str]:
    """What the run was made with; one worker does without Ray, and then so does its environment."""
    found = {"python": platform.python_version()}
    for name in ("evolve-merge", *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
