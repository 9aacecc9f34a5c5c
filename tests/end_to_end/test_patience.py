"""How long a search without a budget goes on after its gradient."""

from __future__ import annotations

import json

import pytest
import yaml

from evolve.trials.journal import Journal
from evolve.trials.spending import Purpose

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ZOO = "configs/demo_zoo"
ITEMS = 24


def search(method, **weight) -> dict:
    entries = [{"model": f"{ZOO}/{name}", "parameters": dict(weight)} for name in ("sorting", "shift")]
    recipe = {"merge_method": method, "base_model": f"{ZOO}/base", "models": entries, "dtype": "bfloat16"}
    return {
        "recipe": recipe,
        "tasks": ["demo_sorting", "demo_reversal"],  # the second is never solved
        "items": {"search": ITEMS, "held_out": 12},
        "start": {"steps": 8},
        "validation": {"finalists": 1},
        "workers": {"count": 1, "cpus": 1},
    }


WEIGHT = {"low": 0, "high": 1.5}


@pytest.mark.parametrize(
    ("method", "genes", "is_short"),
    [
        ("dare_linear", {"weight": WEIGHT, "density": 0.5}, True),
        ("dare_linear", {"weight": WEIGHT, "density": {"low": 0.2, "high": 1, "step": 0.2}}, False),  # not followed
        ("ties", {"weight": WEIGHT, "density": 0.5}, False),  # followed by differences
    ],
)
def test_it_is_short_where_the_gradient_followed_every_gene(evolve, tmp_path, method, genes, is_short):
    (tmp_path / "search.yml").write_text(yaml.safe_dump(search(method, **genes)))
    done = evolve("run", tmp_path / "search.yml", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert ("followed every gene" in done.stderr) == is_short
    journal = Journal.open(str(tmp_path / "out" / "journal.log"))
    spent = journal.spent
    worth = (spent[Purpose.STEPS] + spent[Purpose.LOOKS]) // (2 * ITEMS)
    plateau = max(worth, 4) if is_short else 30
    assert plateau < 30 or not is_short
    assert json.loads((tmp_path / "out" / "run.json").read_text())["stopped_by"] == "plateau"
    assert f"no new best in {plateau} candidates" in done.stdout + done.stderr
