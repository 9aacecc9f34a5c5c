"""What the three watchers show of a run."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evolve.report.beaten_parents import beaten_text
from evolve.report.best_curve import BestCurve
from evolve.report.event_record import event_record
from evolve.report.formatting import single_line, stop_text, write_line
from evolve.report.live_display import RichWatcher
from evolve.report.progress import JsonWatcher, PlainWatcher, make_watcher
from evolve.trials.events import (
    Event,
    FinalistScored,
    ModelsRead,
    PointLookedAt,
    Preparing,
    RunFinished,
    RunStarted,
    SearchStopped,
    StopAsked,
    StopReason,
    TrialFinished,
    WorkBegun,
)
from evolve.trials.trial import Evaluation, Kind, Trial, best_of

OUTPUT = Path("runs/demo")
PARENT_NAME = "org/[red]addition[/nothing]"


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def trial(number: int, objective: float | None, kind: Kind = Kind.CANDIDATE, label: str = "") -> Trial:
    return Trial(
        number=number,
        kind=kind,
        label=label or f"candidate {number}",
        batch=0,
        recipe={"merge_method": "linear"},
        genes={"weight": 0.5},
        evaluation=Evaluation(number, failure="out of memory\nat [/line] 3 \x1b[31m", total_seconds=2.0)
        if objective is None
        else Evaluation(number, scores={"sums": {7: objective}}, total_seconds=2.0),
        task_scores={} if objective is None else {"sums": objective, "loss": 1 - objective},
        objective=objective,
    )


PARENT = trial(0, 0.5, Kind.PARENT, PARENT_NAME)
UNIFORM = trial(1, 0.4, Kind.UNIFORM, "uniform merge")
STARTED = RunStarted(OUTPUT, ["sums", "loss"], 3, "cma_es", "gradient", 100, 2, minimized_tasks=["loss"])


def finished(one: Trial, *others: Trial, done: int = 1, left: float | None = 90.0) -> TrialFinished:
    known = [PARENT, UNIFORM, *others, one]
    return TrialFinished(one, best_of(known), PARENT, UNIFORM, done, 100, 2.0, left)


def run_finished(best: Trial) -> RunFinished:
    files = {"recipe": OUTPUT / "best.yml", "card": OUTPUT / "README.md"}
    return RunFinished(OUTPUT, best, files, "THE TABLE\n")


EVENTS: list[Event] = [
    STARTED,
    finished(PARENT, done=0),
    finished(UNIFORM, done=0),
    finished(trial(2, 0.75), done=1),
    finished(trial(3, None), trial(2, 0.75), done=2, left=None),
    SearchStopped(StopReason.EVALUATIONS, 2, 100),
    FinalistScored(trial(2, 0.75), 0.7, 1, 3),
    run_finished(trial(2, 0.75)),
]


def draw(events: Sequence[Event], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    watcher = RichWatcher(console, clock=Clock())
    for event in events:
        watcher(event)
    with console.capture() as capture:
        console.print(watcher.render())
    watcher.close()
    return capture.get()


def plain_lines(events: Sequence[Event], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with PlainWatcher(Clock()) as watcher:
        for event in events:
            watcher(event)
    return capsys.readouterr().err.splitlines()


# --- choosing -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("capsys")
def test_auto_is_plain_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(make_watcher("auto"), PlainWatcher)
    assert isinstance(make_watcher("rich"), RichWatcher)
    assert isinstance(make_watcher("json"), JsonWatcher)


def test_an_unknown_mode_is_refused_with_the_modes_there_are() -> None:
    with pytest.raises(ValueError, match="auto, rich, plain, json, quiet, none"):
        make_watcher("fancy")  # type: ignore[arg-type]


# --- plain --------------------------------------------------------------------------------------------------


def test_plain_shows_references_new_bests_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_lines(EVENTS[:-1], capsys) == [
        "cma_es, 3 genes, 100 candidates, 2 workers, starts with gradient -> runs/demo"
        "; parents, gradient steps and held-out items are not counted",
        f"parent {PARENT_NAME}: objective 0.5000; sums 0.5000, loss 0.5000; 2.0 s",
        "uniform merge: objective 0.4000; sums 0.4000, loss 0.6000; 2.0 s",
        "[1/100] new best, candidate 2: objective 0.7500; sums 0.7500, loss 0.2500; "
        f"+0.2500 over best parent {PARENT_NAME}, +0.3500 over uniform merge",
        "[2/100] candidate 3 failed: out of memory at [/line] 3 \ufffd[31m",
        "stopped after 2 candidates: the budget of 100 candidates is spent",
        "held-out 1/3: candidate 2: objective 0.7000",
    ]


def test_plain_says_nothing_of_a_candidate_that_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(plain_lines([STARTED, finished(trial(5, 0.1))], capsys)) == 1


@pytest.mark.parametrize(
    ("seconds", "candidates", "expected"),
    [(9.0, 50, 0), (11.0, 4, 0), (11.0, 5, 1), (61.0, 1, 1)],
)
def test_plain_status_comes_every_five_percent_but_never_within_ten_seconds(
    seconds: float, candidates: int, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with PlainWatcher(clock) as watcher:
        watcher(STARTED)
        clock.now = seconds
        watcher(finished(trial(5, 0.1), done=candidates))
    status = capsys.readouterr().err.splitlines()[1:]
    assert len(status) == expected
    if expected:
        assert status == [f"[{candidates}/100] best 0.5000 ({PARENT_NAME}), 2.0 s each, 1 min 30 s left"]


def test_the_summary_and_the_files_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainWatcher() as watcher:
        watcher(run_finished(trial(2, 0.75)))
    captured = capsys.readouterr()
    assert captured.out == "\nTHE TABLE\n\nrecipe  runs/demo/best.yml\ncard    runs/demo/README.md\n"
    assert captured.err == ""


def test_quiet_shows_how_it_ended_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for mode in ("plain", "quiet"):
        with make_watcher(mode) as watcher:  # type: ignore[arg-type]
            for event in EVENTS:
                watcher(event)
        shown.append(capsys.readouterr())
    assert shown[1].err == ""
    assert shown[1].out == shown[0].out != ""
    with make_watcher("none") as watcher:
        for event in EVENTS:
            watcher(event)
    assert capsys.readouterr() == ("", "")


# --- json ---------------------------------------------------------------------------------------------------


def test_every_line_of_json_is_one_event(capsys: pytest.CaptureFixture[str]) -> None:
    with make_watcher("json") as watcher:
        for event in EVENTS:
            print("chatter of some library")
            watcher(event)
    print("after")
    captured = capsys.readouterr()
    *lines, after = captured.out.splitlines()
    records = [json.loads(line) for line in lines]
    assert after == "after"
    assert captured.err.count("chatter") == len(EVENTS)
    assert [record["event"] for record in records] == [
        "run_started",
        *["trial_finished"] * 4,
        "search_stopped",
        "finalist_scored",
        "run_finished",
    ]
    assert records[0]["output"] == "runs/demo"
    assert records[-1]["files"] == {"recipe": "runs/demo/best.yml", "card": "runs/demo/README.md"}


def test_json_trials_have_scores_genes_and_failure_but_no_item_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with make_watcher("json") as watcher:
        watcher(EVENTS[3])
        watcher(EVENTS[4])
    scored, failed = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert scored["trial"] == {
        "number": 2,
        "kind": "candidate",
        "label": "candidate 2",
        "batch": 0,
        "state": "complete",
        "objective": 0.75,
        "task_scores": {"sums": 0.75, "loss": 0.25},
        "genes": {"weight": 0.5},
        "failure": None,
        "merge_seconds": 0.0,
        "forward_seconds": 0.0,
        "total_seconds": 2.0,
    }
    assert scored["best"] == {"number": 2, "label": "candidate 2", "objective": 0.75}
    assert failed["trial"]["state"] == "failed"
    assert failed["trial"]["objective"] is None
    assert failed["trial"]["failure"].startswith("out of memory")


def test_json_has_null_for_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    with make_watcher("json") as watcher:
        watcher(FinalistScored(trial(2, 0.5), math.nan, 1, 1))
    assert json.loads(capsys.readouterr().out)["held_out_score"] is None


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    program = (
        "import sys, time\n"
        "from evolve.report.formatting import write_line\n"
        "for number in range(20000): write_line(sys.stdout, 'line %d' % number)\n"
        "print('still running', file=sys.stderr)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"still running\n"
    assert process.returncode == 0


# --- live display -------------------------------------------------------------------------------------------


def test_the_display_is_compact_and_keeps_to_the_width() -> None:
    for width in (60, 80, 120):
        lines = draw(EVENTS[:5], width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= 19


@pytest.mark.parametrize("width", [40, 50, 60])
def test_on_a_narrow_screen_numbers_are_whole_and_the_best_in_every_task_stands_below(width: int) -> None:
    text = draw(EVENTS[:5], width)
    assert max(map(len, text.splitlines())) <= width
    assert all(f" {number} " in text for number in ("0.7500", "+0.2500", "+0.3500"))
    assert "candidate 2: sums 0.7500 · loss 0.2500" in text


def test_the_display_shows_the_best_against_best_parent_and_uniform() -> None:
    text = draw(EVENTS[:5])
    row = {line.split("  ")[0].strip(): line.split()[2:] for line in text.splitlines()}
    assert "2/100 candidates" in text
    assert "1 failed" in text
    assert "candidate 3 failed: out of memory at [/line] 3" in text
    assert row["1 candidate 2"] == ["2", "0.7500", "0.7500", "0.2500", "all", "1"]
    assert [line.split()[-3:] for line in text.splitlines() if "best over" in line] == [
        ["+0.2500", "+0.2500", "-0.2500"],
        ["+0.3500", "+0.3500", "-0.3500"],
    ]


def test_the_display_shows_what_the_search_costs() -> None:
    dear = replace(finished(trial(2, 0.75)), item_evaluations=640, costs={"answer_tokens": 24.1})
    assert "1/100 candidates, 640/2000 item evaluations" in draw([replace(STARTED, item_budget=2000), dear])
    assert "answer_tokens of the best 24.1" in draw([STARTED, dear])
    by_items = replace(STARTED, evaluation_budget=None, item_budget=2000)
    bar = draw([by_items, replace(dear, evaluation_budget=None)]).splitlines()[1]
    assert "━" in bar
    assert "1 candidate, 640/2000 item evaluations" in bar


@pytest.mark.parametrize(("encoding", "blocks"), [("utf-8", " ▁▂▃▄▅▆▇█"), ("ascii", " ...:::##")])
def test_the_curve_rises_with_the_best_and_never_falls(encoding: str, blocks: str) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding), width=80, color_system=None)
    with console.capture() as capture:
        console.print(BestCurve([0.2, 0.6, 0.6, 0.6, 1.0], {"best parent": 0.5}))
    *rows, caption = capture.get().splitlines()
    assert [row.split()[0] for row in (rows[0], rows[-1])] == ["1.0000", "0.2000"]
    assert ["best parent" in row for row in rows] == [False, False, True, False]
    columns = range(10, 10 + 80 - 9 - 4 - len("best parent"))
    heights = [sum(blocks.index(row.ljust(80)[column]) for row in rows) for column in columns]
    assert heights == sorted(heights)
    assert heights[0] < heights[len(heights) // 2] < heights[-1]
    assert caption.strip() == "the best of candidates 1 to 5"


def test_the_curve_begins_where_an_earlier_process_ended() -> None:
    earlier = [PARENT, *(trial(number, objective) for number, objective in enumerate((0.2, 0.6, None, 0.4), 2))]
    assert "the best of candidates 1 to 4" in draw([replace(STARTED, resumed=earlier)])
    assert "the best of candidates" not in draw([replace(STARTED, resumed=earlier[:2])])


def test_every_leader_says_which_parents_it_beats() -> None:
    parents = [trial(number, 0.1 * number, Kind.PARENT, f"org/parent-{number}") for number in range(4)]
    assert beaten_text(trial(9, 0.9), parents, 30) == "all 4"
    assert beaten_text(trial(9, 0.25), parents, 30) == "3 of 4: not parent-3"
    assert beaten_text(trial(9, 0.25), parents, 10) == "3 of 4"
    assert beaten_text(trial(9, -1.0), parents, 30) == "0 of 4"
    assert beaten_text(parents[3], parents, 30) == "all 3"
    assert beaten_text(parents[0], parents[:1], 30) == beaten_text(trial(9, 0.9), [], 30) == "-"


def test_a_fall_is_a_gain_where_lower_is_better() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    watcher = RichWatcher(console)
    watcher(STARTED)
    watcher.close()
    watcher(EVENTS[3])
    with console.capture() as capture:
        console.print(watcher.render())
    deltas = next(line for line in capture.get().splitlines() if "best over best parent" in line)
    assert deltas.count("\x1b[32m") == 3
    assert "\x1b[31m" not in deltas


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert "[red]addition[/nothing]" in draw(EVENTS[:5], 120)


def test_tasks_that_do_not_fit_are_counted() -> None:
    names = [f"task_{number}" for number in range(12)]
    started = RunStarted(OUTPUT, names, 3, "cma_es", "gradient", 100, 2)
    text = draw([started, finished(trial(2, 0.75))])
    assert "+9 more" in text
    assert "all 1" in text
    assert max(map(len, text.splitlines())) <= 80
    best = replace(trial(2, 0.75), task_scores=dict.fromkeys(names, 0.25))
    below = draw([started, finished(best)]).splitlines()[-2:]
    assert below[0].startswith("candidate 2: task_3 0.2500 · task_4 0.2500 ·")
    assert below[1].rstrip().endswith("…")


def test_the_time_left_counts_down_between_events() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=80)
    watcher = RichWatcher(console, clock=clock)
    watcher(finished(trial(2, 0.75), left=90.0))
    clock.now = 80.0
    with console.capture() as capture:
        console.print(watcher.render())
    assert "10 s left" in capture.get()


def test_an_open_budget_shows_a_count_without_a_bar() -> None:
    started = RunStarted(
        OUTPUT, ["sums"], 3, "cma_es", "gradient", None, 1, [PARENT, UNIFORM, trial(2, 0.7), trial(3, 0.6)]
    )
    text = draw([started])
    assert "2 candidates" in text
    assert "resumed after 4 trials" in text
    assert "━" not in text


def test_leaving_gives_the_terminal_back_when_the_search_fails() -> None:
    def fail_during_search() -> None:
        with RichWatcher(Console(file=io.StringIO(), force_terminal=True, width=80)) as watcher:
            watcher(STARTED)
            assert sys.stderr is not stderr  # stray messages are drawn above the display
            raise RuntimeError("the search failed")

    stderr = sys.stderr
    with pytest.raises(RuntimeError, match="the search failed"):
        fail_during_search()
    assert sys.stderr is stderr


def test_something_is_shown_before_there_is_a_plan_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    RichWatcher(console, clock=Clock())(Preparing("opening 2 models: base,\x1b[2J math"))
    assert console.file.getvalue() == "opening 2 models: base, [2J math\n"  # type: ignore[attr-defined]
    assert plain_lines([Preparing("loading 1 task: sums")], capsys) == ["loading 1 task: sums"]
    assert event_record(Preparing("loading 1 task: sums")) == {"event": "preparing", "what": "loading 1 task: sums"}


def test_until_something_is_scored_it_says_how_much_of_the_models_is_read() -> None:
    begun = [STARTED, WorkBegun(["base"]), ModelsRead(12_400_000_000, 60_000_000_000)]
    assert "models: 12.4 GB of 60 GB" in draw(begun)
    assert "at work: base (0 s)" in draw(begun)
    assert "GB" not in draw([*begun, ModelsRead(60_000_000_000, 60_000_000_000)])
    assert "GB" not in draw([*begun, finished(trial(2, 0.75))])


def test_while_the_gradient_starts_it_is_said_that_it_does() -> None:
    unbounded = replace(STARTED, evaluation_budget=None)
    shown = draw([unbounded])
    assert "the starts of the gradient are looked at first" in shown
    assert ("gradient start" in shown, "candidate" in shown) == (True, False)
    looked = PointLookedAt("base", (0.5,), 0.5, 64, 0.5)
    assert "best point 0.5000 on 64 items" in draw([unbounded, finished(PARENT, done=0), looked])
    assert "gradient start" not in draw([unbounded, looked, finished(trial(2, 0.75), done=1)])
    references = draw([replace(unbounded, start="references, as the file says")])
    assert "parents and uniform merge are scored first" in references


def test_a_plateau_says_how_many_candidates_it_has_been() -> None:
    assert (
        stop_text(SearchStopped(StopReason.PLATEAU, 43, 12, 12)) == "no new best in 12 candidates on the search items"
    )
    assert "28 since the last one" in stop_text(SearchStopped(StopReason.PLATEAU, 43, 12, 28))


def test_what_every_worker_is_at_is_shown_with_how_long_it_has_been() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=80, color_system=None)
    watcher = RichWatcher(console, clock=clock)
    watcher(WorkBegun(["candidate 7"]))
    clock.now = 12.0
    watcher(WorkBegun(["candidate 7", "candidate 8"]))
    clock.now = 15.0
    with console.capture() as capture:
        console.print(watcher.render())
    assert "at work: candidate 7 (15 s), candidate 8 (3 s)" in capture.get()
    watcher(finished(trial(7, 0.5)))
    with console.capture() as capture:
        console.print(watcher.render())
    assert "at work: candidate 8 (3 s)" in capture.get()


# --- text ---------------------------------------------------------------------------------------------------


def test_control_characters_never_reach_the_terminal() -> None:
    assert single_line("a\nb\x1b[2J\r\tc") == "a b [2J c"


def test_a_character_the_stream_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_line(stream, "modèle")
    assert raw.getvalue() == b"mod\\xe8le\n"


def test_a_resumed_run_shows_what_was_found_before() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    earlier = (PARENT, UNIFORM, trial(2, 0.9), trial(3, None), trial(4, 0.7))
    watcher = RichWatcher(console, clock=Clock())
    watcher(RunStarted(OUTPUT, ["sums"], 3, "cma_es", "gradient", 100, 2, earlier))
    console.print(watcher.render())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    watcher.close()
    assert "3/100 candidates" in shown
    assert "resumed after 5 trials" in shown
    assert "are scored first" not in shown
    assert "1 candidate 2" in shown
    assert "best over best parent" in shown
    assert "1 failed" in shown


def test_a_stop_that_is_asked_for_says_what_it_waits_for_and_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    PlainWatcher()(StopAsked(["candidate 8", "candidate 9"], 7, trial(5, 0.75)))
    said = capsys.readouterr().err
    assert "stopping when candidate 8 (and 1 more at work) is scored; again to stop at once" in said
    assert "7 candidates scored so far, the best candidate 5: 0.7500" in said
    JsonWatcher()(StopAsked([], 0, None))
    assert json.loads(capsys.readouterr().out)["event"] == "stop_asked"


def test_what_a_stop_waits_for_is_not_cut_off_by_a_narrow_screen() -> None:
    asked = StopAsked(["average of the steps from reversal alone", "candidate 9"], 7, trial(5, 0.75))
    shown = " ".join(draw([*EVENTS[:4], asked]).split())
    assert "stopping when average of the steps from reversal alone (and 1 more at work) is scored; again to" in shown
    assert "7 candidates scored so far, the best candidate 5: 0.7500" in shown


def test_candidates_are_told_apart_by_how_their_names_begin_and_models_by_how_they_end() -> None:
    steps = [trial(number, 0.7 + number / 100, label=f"step {number} from a long name alone") for number in (3, 4)]
    model = trial(0, 0.5, Kind.PARENT, "an/organisation/with/many/directories/addition")
    shown = draw([STARTED, *(finished(one, done=1) for one in (model, *steps))])
    assert all(beginning in shown for beginning in ("step 3 ", "step 4 ", "addition"))


def test_what_an_earlier_process_did_is_called_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    PlainWatcher()(PointLookedAt("base", (0.5,), 0.5, 64, 0.5, replayed=True))
    assert capsys.readouterr().err.startswith("gradient (replayed): base: ")


@pytest.mark.parametrize("error", [OSError(5, "terminal hung up"), ValueError("I/O operation on closed file")])
def test_a_stream_that_takes_nothing_more_ends_nothing(error: Exception) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    write_line(Gone(), "said to nobody")
