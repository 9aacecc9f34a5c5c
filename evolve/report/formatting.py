"""Numbers, names and events as text, the same in progress, report and model card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from evolve.report.intervals import Interval
from evolve.scoring import Objective
from evolve.standard_streams import lead_nowhere
from evolve.trials.costs import CostTerms
from evolve.trials.events import ModelsRead, RunFinished, RunStarted, SearchStopped, StopAsked, StopReason
from evolve.trials.trial import Evaluation

OBJECTIVES: dict[str, str] = {
    "weighted_sum": "weighted mean of tasks",
    "worst": "worst task",
    "geometric_mean": "geometric mean of tasks",
}


def format_interval(interval: Interval, *, signed: bool = False) -> str:
    """ "0.731 [0.690, 0.772]", with more digits where the interval is narrower; "[?]" where it is unbounded."""
    decimals = 3 if abs(interval.value) < 10 else 2 if abs(interval.value) < 1000 else 1
    spread = interval.high - interval.low
    if math.isfinite(spread) and spread > 0:
        # Of a difference two digits of the spread, or "+0.000 [0.000, 0.000]" would be said to exclude 0.
        decimals = min(8, max(decimals, signed + math.ceil(-math.log10(spread))))
    value = f"{interval.value:{'+' if signed else ''}.{decimals}f}"
    if math.isinf(spread):
        return f"{value} [?]"
    return f"{value} [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"


def format_score(score: float | None, *, signed: bool = False) -> str:
    """Four decimals for scores around 1, fewer for large ones, "-" for none."""
    if score is None:
        return "-"
    decimals = 4 if abs(score) < 10 else 2 if abs(score) < 1000 else 0
    return f"{score:{'+' if signed else ''}.{decimals}f}"


def objective_text(objective: Objective, cost_terms: CostTerms | None = None) -> str:
    """ "weighted mean of tasks", "worst task, with base = 0 and best parent = 1 in each"; then what costs take."""
    scaled = ", with base = 0 and best parent = 1 in each" if objective.scales else ""
    costs = f", minus {cost_terms}" if cost_terms is not None and cost_terms.counts else ""
    return objective_name(objective.kind) + scaled + costs


def objective_name(kind: str) -> str:
    """ "weighted mean of tasks"; the name of a function of the user's."""
    return OBJECTIVES.get(kind) or f"{kind.rpartition(':')[2]}(scores of tasks)"


def format_cost(value: float, relative: float | None) -> str:
    """ "24.1 (-48 %)", relative to the best parent where that is known."""
    text = f"{value:.1f}" if value % 1 else str(int(value))
    if relative is None:
        return text
    share = f"{relative:+.0%}".replace("-0%", "+0%").replace("%", " %")
    return f"{text} ({share})"


def outside(evaluation: Evaluation) -> str:
    """ "refusal_rate 0.3100 (violation 2.1)": which constraints an evaluation is outside of, and by how much."""
    return ", ".join(
        f"{single_line(name)} {format_score(evaluation.constraints.get(name))} (violation {violation:.3g})"
        for name, violation in evaluation.violations.items()
    )


def format_duration(seconds: float, *, fine: bool = False) -> str:
    """ "12 s", "3 min 05 s", "2 h 04 min", "3 d 04 h": two units at most; "0.53 s" where it is to be `fine`."""
    if fine and seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for size, unit, smaller, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02d} {small_unit}"
    return f"{whole} s"


def format_bytes(count: float) -> str:
    """ "12 kB", "3.4 GB"."""
    return _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def format_count(number: float) -> str:
    """ "12k", "3.4B": thousands, millions, billions, trillions."""
    return _scaled(number, ("", "k", "M", "B", "T"))


def _scaled(number: float, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}{units[-1]}"


def single_line(text: str) -> str:
    """Text without line breaks and control characters, so that a name breaks no table and no terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shortened(text: str, width: int) -> str:
    """Text of at most `width` characters, without its beginning where it is longer: the end tells paths apart."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def shortened_label(label: str, width: int, *, is_reference: bool) -> str:
    """The label of a trial in one line of at most `width` characters; candidates are told apart by how theirs begin."""
    line = single_line(label)
    return shortened(line, width) if is_reference or len(line) <= width else line[: width - 1] + "…"


def write_line(stream: TextIO, text: str) -> None:
    """Write and flush one line. What cannot be encoded is escaped; a reader that went away is no error.

    Nor is a terminal that hung up, a full disk under a log file, or a stream that is closed.
    """
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError):
        # `evolve run --json | head -3` must not end the search, nor fail again when the interpreter flushes.
        lead_nowhere(stream)


def finish_text(event: RunFinished) -> str:
    """The score table, then where everything lies, one file a line."""
    width = max((len(name) for name in event.files), default=0)
    lines = [f"{name:<{width}}  {single_line(str(path))}" for name, path in event.files.items()]
    return "\n".join(["", event.summary.rstrip("\n"), "", *lines])


def stopping_text(event: StopAsked) -> str:
    """ "stopping when candidate 7 is scored; 6 candidates so far, ...": what a stop waits for, and what there is."""
    first, others = [single_line(label) for label in event.scoring[:1]], len(event.scoring) - 1
    waits = f"{first[0]}{f' (and {others} more at work)' if others > 0 else ''} is scored" if first else "this is done"
    found = f"{event.candidates_done} candidate{'' if event.candidates_done == 1 else 's'} scored so far"
    if event.best is not None:
        found += f", the best {single_line(event.best.label)}: {format_score(event.best.objective)}"
    return f"stopping when {waits}; again to stop at once. {found}"


def reading_text(event: ModelsRead) -> str:
    """ "models: 12.4 GB of 60 GB"."""
    return f"models: {format_bytes(event.done)} of {format_bytes(event.total)}"


def stop_text(event: SearchStopped) -> str:
    """ "the budget of 12000 item evaluations is spent": why a search ended."""
    bound = "?" if event.bound is None else f"{event.bound:g}" if event.bound % 1 else str(int(event.bound))
    words = {
        StopReason.EVALUATIONS: f"the budget of {bound} candidates is spent",
        StopReason.ITEMS: f"the budget of {bound} item evaluations is spent",
        StopReason.MINUTES: f"the budget of {bound} minutes is spent",
        StopReason.TARGET: f"the target of {bound} is reached",
        StopReason.PLATEAU: f"no new best in {bound} candidates on the search items{_beyond_plateau(event)}",
        StopReason.EXHAUSTED: "the optimizer has nothing new to propose",
        StopReason.SOLVED: "every search item is right, and nothing is left to gain",
    }
    return words.get(event.reason, event.reason.value)


def _beyond_plateau(event: SearchStopped) -> str:
    """That it has been more of them: a search ends with a whole batch, or when what is at work is scored."""
    if event.bound is None or event.since_best <= event.bound:
        return ""
    return f", {event.since_best} since the last one: what is begun is scored to its end"


def plan_line(event: RunStarted) -> str:
    """The run in one line."""
    parts = [single_line(event.optimizer), f"{event.genes} gene{'' if event.genes == 1 else 's'}"]
    if event.evaluation_budget is not None:
        parts.append(f"{event.evaluation_budget} candidates")
    parts.append(f"{event.workers} worker{'' if event.workers == 1 else 's'}")
    parts.append(f"starts with {single_line(event.start)}")
    if event.resumed:
        parts.append(f"resumed after {len(event.resumed)} trial{'' if len(event.resumed) == 1 else 's'}")
    beside = "" if event.evaluation_budget is None else "; parents, gradient steps and held-out items are not counted"
    return f"{', '.join(parts)} -> {single_line(str(event.output))}{beside}"
