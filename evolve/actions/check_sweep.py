"""`evolve check` of a sweep: whether every variant is sound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.actions.check_search import CheckReport
from evolve.report.formatting import single_line
from evolve.sweep.prepare_sweep import prepare_sweep
from merge_core import MergeError
from merge_core.yaml_text import read_yaml


def is_sweep(path: Path) -> bool:
    """Whether a file has a `sweep` section; what cannot be read is better told by the reader of searches."""
    try:
        documents = read_yaml(path)
    except MergeError:
        return False
    return bool(documents) and isinstance(documents[0], dict) and documents[0].get("sweep") is not None


def check_sweep(path: Path, overrides: Mapping[str, Any]) -> CheckReport:
    """Prepare all variants.

    Args:
        path: a search.yml with a `sweep` section.
        overrides: settings put in.

    Raises:
        ConfigError: with every problem found.
    """
    sweep = prepare_sweep(path, overrides)
    kind = "searches" if sweep.searches else "recipes"
    items = sum(len(split.search) for split in sweep.tasks.splits.values())
    names = [variant.name for variant in sweep.variants]
    facts = {"file": str(path), "kind": f"sweep of {kind}", "variants": names, "search_items": items}
    lines = [f"{path}: sound, a sweep of {len(names)} {kind}", *(f"  {single_line(name)}" for name in names[:20])]
    lines += [f"  and {len(names) - 20} more"] if len(names) > 20 else []
    if not sweep.searches:
        lines.append(f"{items * len(names):,} item evaluations at most before the finalists; the beaten stop early")
    facts["warnings"] = list(sweep.warnings)
    lines += [f"warning: {warning}" for warning in sweep.warnings]
    return CheckReport(facts, "\n".join(lines))
