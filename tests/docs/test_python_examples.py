"""Every block of Python on a page runs, after those before it; searches and merges only look at their arguments.

What a function's body names is there, too.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import create_autospec, patch

import pytest

import evolve
from evolve.api.search import search
from evolve.api.search_result import Best, SearchResult
from evolve.commands.registry import COMMANDS
from evolve.config.schema import SearchConfig
from evolve.optimizers.registry import OPTIMIZERS
from evolve.scoring.scorers.registry import KINDS
from merge_core.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = {
    path.relative_to(ROOT).as_posix(): BLOCK.findall(path.read_text(encoding="utf-8"))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
}
# What a reader has of their own, by the names that pages have for it.
OWN: dict[str, Any] = {"my_scorer": lambda model, items: [1.0 for _ in items], "more_questions": [{"question": "1?"}]}
CALLS = ("search", "merge", "score", "inspect")


@pytest.fixture
def page_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks of a page share. Nothing is searched, and nothing stays registered."""
    for name in CALLS:
        monkeypatch.setattr(evolve, name, create_autospec(getattr(evolve, name)))
    found = create_autospec(SearchResult, instance=True)
    found.best = Best("candidate 1", {"merge_method": "linear"}, {}, 0.5, None, {}, None)
    known = {*inspect.signature(search).parameters, *SearchConfig.model_fields}

    def searched(*_: Any, **settings: Any) -> Any:
        assert settings.keys() <= known
        return found

    monkeypatch.setattr(evolve.search, "side_effect", searched)
    with ExitStack() as stack:
        for registry in (METHODS, OPTIMIZERS, COMMANDS, KINDS):
            stack.enter_context(patch.dict(registry))  # type: ignore[arg-type]
        yield {"__name__": "page", **OWN}


def run(text: str, where: str, names: dict[str, Any]) -> None:
    code = compile(text, where, "exec", dont_inherit=True)
    exec(code, names)
    unknown = [name for name in globals_of(code) if name not in names and not hasattr(builtins, name)]
    assert not unknown, f"{where}: nothing is called {', '.join(unknown)}"


def globals_of(code: CodeType) -> Iterator[str]:
    """Names that code looks up outside itself, functions in it included."""
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield str(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from globals_of(inner)


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_the_python_of_a_page_runs(page: str, page_names: dict[str, Any]) -> None:
    for number, text in enumerate(PAGES[page], start=1):
        run(text, f"{page}, block {number}", page_names)


@pytest.mark.parametrize(
    "text",
    [
        "import evolve\nevolve.search('recipe.yml', tasks=['a'], bugdet=3)",
        "import evolve\nevolve.search('recipe.yml', tasks=['a']).best.recip",
        "import evolve\nevolve.search('recipe.yml', tasks=['a']).plott('history')",
        "from evolve.optimizers import Optimiser",
        "def scorer(model, items):\n    return torch.ones(len(items))",
    ],
)
def test_a_mistake_would_be_found(text: str, page_names: dict[str, Any]) -> None:
    with pytest.raises((AttributeError, TypeError, ImportError, AssertionError)):
        run(text, "a page", page_names)
