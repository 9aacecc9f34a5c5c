"""Where the item evaluations of a search went, for the terminal, the card and `evolve status`."""

from __future__ import annotations

from evolve.report.text_table import TextPage
from evolve.trials.spending import Purpose, Spending

SPENDING_HEADINGS = ("item evaluations", "share")


def spending_rows(spending: Spending) -> list[list[str]]:
    """Cells: purpose, item evaluations, their share; what nothing was spent on is left out, and the sum comes last."""
    total = sum(spending.values())
    found = [(purpose.value, spending[purpose]) for purpose in Purpose if spending.get(purpose)]
    return [[name, str(count), f"{count / total:.0%}".replace("%", " %")] for name, count in found] + [
        ["all", str(total), ""]
    ]


def render_spending(spending: Spending, width: int = 80) -> str:
    """The table as text of at most `width` columns."""
    page = TextPage(width)
    page.add_table("Where the item evaluations went", SPENDING_HEADINGS, spending_rows(spending))
    return str(page)
