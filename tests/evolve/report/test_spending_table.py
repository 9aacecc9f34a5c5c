"""Where the item evaluations went, as a table."""

from __future__ import annotations

from evolve.report.spending_table import render_spending, spending_rows
from evolve.trials.spending import Purpose


def test_what_nothing_was_spent_on_is_left_out_and_the_sum_comes_last() -> None:
    spending = dict.fromkeys(Purpose, 0) | {Purpose.CANDIDATES: 300, Purpose.HELD_OUT: 100}
    assert spending_rows(spending) == [
        ["candidates", "300", "75 %"],
        ["held-out items", "100", "25 %"],
        ["all", "400", ""],
    ]
    text = render_spending(spending)
    assert "item evaluations" in text
    assert "parents" not in text


def test_a_search_that_spent_nothing_has_a_sum_of_nothing() -> None:
    assert spending_rows(dict.fromkeys(Purpose, 0)) == [["all", "0", ""]]
