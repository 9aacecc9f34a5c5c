"""Optimizers behind one contract: ask for a batch of points of the unit cube, tell what they scored.

Every optimizer is deterministic in its problem and in what it is told, so replaying the journal's batches brings it
back exactly; none needs a state on disk. Each has a file of its own, which registers it.
"""

from __future__ import annotations

import importlib
import pkgutil

from evolve.optimizers.optimizer import NoOptions, Optimizer, SearchProblem, Vector
from evolve.optimizers.registry import OPTIMIZERS, create_optimizer, find_optimizer, register
from evolve.trials.trial import Censored, Fitness, Result

__all__ = [
    "OPTIMIZERS",
    "Censored",
    "Fitness",
    "NoOptions",
    "Optimizer",
    "Result",
    "SearchProblem",
    "Vector",
    "create_optimizer",
    "find_optimizer",
    "register",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
