"""What the cards of models and adapters say of their licences."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from merge_core.checkpoint.card_metadata import Licence, stated_licences


def test_model_and_adapter_have_a_licence_each_and_so_have_the_parts_of_a_merge(tmp_path: Path):
    for name, licence in {"base": "mit", "adapter": "apache-2.0"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    parts: Any = SimpleNamespace(directories=(tmp_path / "base", tmp_path / "adapter"))
    alone: Any = SimpleNamespace(directories=(tmp_path / "nothing",))
    found = stated_licences({"org/base+org/adapter": parts, "runs/x": parts, "a": alone})
    mit, apache = Licence("mit"), Licence("apache-2.0")
    assert found == {
        "org/base": mit,
        "org/adapter": apache,
        "runs/x (base)": mit,
        "runs/x (adapter)": apache,
        "a": None,
    }
