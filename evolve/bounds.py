"""How much a search may ask for: far above what real ones need, far below what a machine takes hours to refuse."""

from __future__ import annotations

GROUPS = 1000
"""Of layers with a gene of their own each, of which no model has as many."""

LAYERS = 1000
"""Of a path through the layers of models."""

CHOICES = 1000
"""Of a gene."""

STEPS = 1_000_000
"""Values of a gene with a `step`; they are written with six digits."""

GENE = 1e30
"""Either end of a range: products with tensors are float32's."""

POPULATION = 10_000
"""Candidates of a batch; a proposal of a hundred thousand takes a minute."""

COMBINATIONS = 1_000_000
"""Points of a grid."""

GRADIENT_STEPS = 100_000
"""Of the gradient start."""

WORKERS = 100_000
"""Of a search, each a process with a model of its own."""

THREADS = 65_536
"""Of a worker: processors, or shares of one card."""

SECONDS = 1e8
"""Three years, which clocks of every system can tell."""

VARIANTS = 10_000
"""Of a sweep."""
