"""What is said when a search opens."""

from __future__ import annotations

from evolve.search_loop.opening import without_targets


def test_every_task_without_a_gradient_is_named_and_no_other():
    warnings = without_targets(["marks"], ["sorting"], {"marks": 0.5, "sorting": 0.5})
    assert len(warnings) == 1
    assert warnings[0].startswith("no gradient for task marks:")
    assert without_targets([], ["sorting"], {"sorting": 1.0}) == []


def test_where_only_these_count_it_is_said_that_steps_raise_something_else():
    *_, last = without_targets(["marks", "style"], ["sorting"], {"marks": 1.0, "style": 0.0, "sorting": 0.0})
    assert last.startswith("at first only marks would raise the objective; steps raise sorting")
