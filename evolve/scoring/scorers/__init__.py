"""The kinds of tasks, one file or folder each, which registers itself."""

from __future__ import annotations

import importlib
import pkgutil

from evolve.scoring.scorers.registry import KINDS, TaskKind, one_by_one, register

__all__ = ["KINDS", "TaskKind", "one_by_one", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
