"""The tables of docs/architecture.md, made from the first line of every module: `make docs`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"


def with_tables(page: str) -> str:
    """The page, in which every section that is headed by a folder has the table of its modules."""
    return re.sub(
        r"(?ms)^(### `([\w/]+/)`\n.*?\n\| \| \|\n\| --- \| --- \|\n)(?:\|[^\n]*\n)*",
        lambda section: section[1] + "".join(map(_row, _modules(section[2]))),
        page,
    )


def _modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


def _row(module: Path) -> str:
    about = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return f"| `{module.stem}` | {about.splitlines()[0].rstrip('.').replace('``', '`')} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
