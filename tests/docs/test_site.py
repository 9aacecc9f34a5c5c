"""The pages as a site: one that no page leads to, and a link that leads nowhere, are errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_is_built_from_the_pages(tmp_path: Path):
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert {page.parent.name for page in tmp_path.glob("*/index.html")} == pages - {"index"}
    assert 'id="tokensurgeon"' in (tmp_path / "toolbox" / "index.html").read_text()


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[lost](nowhere.md)")
    (tmp_path / "mkdocs.yml").write_text("site_name: lost\ntheme: {name: mkdocs}\nplugins: []\n")
    with pytest.raises(Abort):
        build(load_config(str(tmp_path / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
