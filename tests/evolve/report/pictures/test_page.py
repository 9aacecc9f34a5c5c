"""The report in a real browser, and its text without one."""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from run_records import HOSTILE, empty_record, full_record

from evolve.problems import ConfigError
from evolve.report.intervals import Interval
from evolve.report.pictures.page import report_page, write_report
from evolve.report.short_recipe import ShortRecipe
from evolve.trials.run_directory import RunDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A headless one of the system's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, path, width=1280, scheme="light"):
    """The page when everything is drawn, and what it told its console."""
    told = []
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True).new_page()
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    return page, told


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "one.html"
    path.write_text(report_page([full_record()]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(browser, one):
    return opened(browser, one)[0]


def test_a_directory_whose_name_is_no_text_has_a_report():
    name = "run-\udcff"  # as Python reads the byte 0xff
    page = report_page([replace(empty_record(), name=name, directory=Path("runs", name))])
    assert "run-?" in page.encode("utf-8").decode("utf-8")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def test_all_is_drawn_without_an_error_a_request_or_a_page_that_is_too_wide(browser, one, width, scheme):
    page, told = opened(browser, one, width, scheme)
    assert told == []
    assert page.locator(".chart").count() == int(page.get_attribute("html", "data-drawn")) == 9
    assert page.locator(".chart .main-svg").count() >= 9
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_text_and_nothing_else(page):
    assert page.title() == "Linear merge of a and b"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.inner_text("body")


def test_the_colours_follow_the_system_while_the_page_is_open(page):
    colour = "getComputedStyle(document.querySelector('#history .xtick text')).fill"
    before = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} !== {before!r}")


def test_a_short_recipe_stands_beside_the_best_with_what_it_costs():
    run, interval = full_record(), {"value": -0.006, "low": -0.016, "high": 0.003}
    short = ShortRecipe(
        {"merge_method": "linear", "models": [{"model": "short"}]},
        *(Path("simple/recipe.yml"), 19, 264, 30, 382),
        *(Interval(0.93), Interval(0.936), Interval(**interval), Interval(**interval), 900),
    )
    text = report_page([dataclasses.replace(run, summary={**run.summary, "simple": short.facts})])
    assert "19 numbers in 30 lines instead of 264 in 382. It differs from the best by -0.006 [-0.016, 0.003]" in text
    assert "- {model: short}" in text
    assert text.count('class="copy"') == 2
    none = {"simple": None, "numbers": 64}
    assert report_page([dataclasses.replace(run, summary={**run.summary, "simple": none})]).count('class="copy"') == 1


def test_the_recipe_can_be_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("button.copy")
    page.wait_for_function("document.querySelector('button.copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("merge_method: linear")


def test_seconds_take_the_place_of_item_evaluations_on_a_click(page):
    page.click("#history .updatemenu-button >> text=seconds of work")
    page.wait_for_selector("#history .xtitle >> text=seconds of work")


def test_two_runs_stand_side_by_side(browser, tmp_path):
    path = tmp_path / "two.html"
    path.write_text(report_page([full_record("first"), full_record("second", model="b")]), encoding="utf-8")
    page, told = opened(browser, path)
    left, right = (page.locator("#genes .chart").nth(place).bounding_box() for place in (0, 1))
    assert told == []
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    assert page.locator("#together .chart").count() == 1


def test_what_only_one_of_two_runs_has_takes_the_whole_card(browser, tmp_path):
    plain = full_record("plain")
    plain = dataclasses.replace(plain, steps=(), trials=plain.trials[:-1])  # no gradient, no race
    path = tmp_path / "two.html"
    path.write_text(report_page([plain, full_record("raced")]), encoding="utf-8")
    page, told = opened(browser, path)
    assert told == []
    for name in ("gradient", "racing"):
        assert page.locator(f"#{name} h4").all_inner_texts() == ["raced"]
        chart, card = (page.locator(f"#{name}{inner}").bounding_box() for inner in (" .chart", ""))
        assert chart["width"] > 0.9 * card["width"]


def test_what_can_be_narrow_is_not_scrolled_on_a_phone(browser, tmp_path):
    run = dataclasses.replace(full_record(), ranges={"weight[a]": (0, 1), "density[a]": (0, 10)})
    run.__dict__["best"] = dataclasses.replace(run.best, genes={"weight[a]": 0.25, "density[a]": 10.0})
    path = tmp_path / "narrow.html"
    path.write_text(report_page([run]), encoding="utf-8")
    page, _ = opened(browser, path, 390)
    inner = page.locator("#genes .scroll")
    assert inner.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_a_run_with_nothing_in_it_has_a_page_all_the_same():
    text = report_page([empty_record()])
    assert "has not come to its end: nothing has been scored yet" in text
    assert 'class="chart"' not in text


def test_the_title_names_method_models_and_day():
    text = report_page([full_record()])
    assert "<title>Linear merge of a and b</title>" in text
    assert "9\u00a0March\u00a02026" in text


def test_chapters_stand_in_the_order_of_interest():
    text = report_page([full_record()])
    chapters = re.findall(r'<h2 id="chapter-(\w+)">', text)
    assert chapters == ["scores", "recipe", "search", "genes", "details"]
    assert text.index("Best beats") < text.index('id="chapter-scores"')


def test_what_failed_is_told_in_full():
    text = report_page([full_record()])
    assert '<td>1</td><td class="text">&lt;img src=x onerror=&#34;document.title=1&#34;&gt; exploded</td>' in text


def test_a_run_of_failures_says_so():
    run = full_record()
    failed = [trial for trial in run.trials if trial.measured.failure]
    text = report_page([dataclasses.replace(run, trials=failed, summary={})])
    assert "None of 1 candidate could be scored" in text


def test_candidates_that_were_at_work_when_a_run_was_stopped_are_not_counted():
    run = full_record()
    begun = [dataclasses.replace(one, evaluation=None) if one.number == 16 else one for one in run.trials]
    assert "is the best of 13 candidates" in report_page([dataclasses.replace(run, trials=begun, summary={})])


def test_numbers_at_an_end_of_their_range_are_told():
    assert "1 of 4 numbers of the best ended at an end of their range: weight a, layer 3 (0.68, high)." in report_page(
        [full_record()]
    )


def test_nothing_ends_the_data_early():
    text = report_page([full_record()])
    data = re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in data
    assert len(text) < 2_500_000


def test_a_report_that_was_changed_is_kept(tmp_path):
    directory = RunDirectory(tmp_path)
    assert write_report(directory, full_record()) == tmp_path / "report.html"
    write_report(directory, full_record())
    directory.report.write_text("mine")
    with pytest.raises(ConfigError, match="was changed"):
        write_report(directory, full_record())
