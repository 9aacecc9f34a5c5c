"""Pictures as PNG files, for model cards and READMEs: plotly's figures, drawn by matplotlib, which needs no browser."""

from __future__ import annotations

import html
import importlib.util
import io
import math
import re
from typing import Any

from evolve.problems import ConfigError
from evolve.report.pictures.style import DIVERGING

_INCHES = 100  # pixels of a figure's layout to one of these
_WIDTH = 8.6
_DASHES = {
    "dot": ":",
    "dash": "--",
    "dashdot": "-.",
    "longdash": (0, (8, 4)),
    "longdashdot": (0, (8, 3, 2, 3)),
    "solid": "-",
}
_STEPS = {"hv": "steps-post", "vh": "steps-pre"}
_SYMBOLS = {"circle": "o", "diamond": "D", "star": "*", "triangle-down": "v", "triangle-up": "^"}


def can_draw() -> bool:
    """Whether matplotlib is installed, without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def png(figure: Any, title: str) -> bytes | None:
    """Draw lines, points, bars and heat maps.

    Args:
        figure: plotly's.
        title: above it.

    Returns:
        The file's content; None where the figure has something in it that matplotlib does not draw.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if not can_draw():
        raise ConfigError("--png: needs matplotlib. pip install 'evolve-merge[png]'")
    from matplotlib.figure import Figure

    kinds = {trace.type for trace in figure.data}
    if not kinds <= {"scatter", "bar", "heatmap"}:
        return None
    panels = list(dict.fromkeys(getattr(trace, "xaxis", None) or "x" for trace in figure.data))
    drawn = Figure(figsize=(_WIDTH, (figure.layout.height or 420) / _INCHES), layout="constrained")
    drawn.suptitle(title, fontsize=12)
    for panel, axes in zip(panels, drawn.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True):
        own = [trace for trace in figure.data if (getattr(trace, "xaxis", None) or "x") == panel]
        _draw(axes, own, drawn)
        name = panel.removeprefix("x")
        across = figure.layout[f"xaxis{name}"]
        axes.set_xlabel(_plain(across.title.text))
        if across.side == "top":
            axes.xaxis.tick_top()
            axes.xaxis.set_label_position("top")
            axes.spines["bottom"].set_visible(False)
        if across.ticktext:
            axes.set_xticks(list(across.tickvals), [_plain(text) for text in across.ticktext])
        if across.range:
            axes.set_xlim(*across.range)
        elif across.autorange == "reversed":
            axes.invert_xaxis()
        axes.set_ylabel(_plain(figure.layout[f"yaxis{name}"].title.text))
        ticks = figure.layout[f"yaxis{name}"]
        if ticks.ticktext:
            size = 8 if kinds == {"heatmap"} else None
            axes.set_yticks(list(ticks.tickvals), [_plain(text) for text in ticks.ticktext], fontsize=size)
            for label, written in zip(axes.get_yticklabels(), ticks.ticktext, strict=True):
                label.set_fontweight("bold" if written.startswith("<b>") else "normal")
        if ticks.range:
            axes.set_ylim(*ticks.range)
        elif ticks.autorange == "reversed" and kinds != {"heatmap"}:
            axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        if labels and panel == panels[0]:
            drawn.legend(handles, labels, fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    drawing = io.BytesIO()
    drawn.savefig(drawing, format="png", dpi=110, facecolor="white", metadata={"Software": "evolve"})
    return drawing.getvalue()


def _draw(axes: Any, traces: list[Any], figure: Any) -> None:
    bars = [trace for trace in traces if trace.type == "bar"]
    for place, trace in enumerate(bars):
        _bar(axes, trace, place, len(bars))
    for place, trace in enumerate(traces):
        if trace.type == "scatter":
            _scatter(axes, trace, 2 + place / len(traces))
        elif trace.type == "heatmap":
            _heat_map(axes, trace, figure)


def _scatter(axes: Any, trace: Any, order: float) -> None:
    """Lines and points, above those of earlier traces: by themselves all points would lie below all lines."""
    label = _plain(trace.name) if trace.showlegend is not False else None
    if "lines" in (trace.mode or "lines"):
        xs, ys = [[math.nan if one is None else one for one in values] for values in (trace.x, trace.y)]
        line, step = trace.line, {"drawstyle": _STEPS[trace.line.shape]} if trace.line.shape in _STEPS else {}
        style = {"color": line.color, "linewidth": line.width or 1.5, "linestyle": _DASHES[line.dash or "solid"]}
        axes.plot(xs, ys, label=label, zorder=order, **style, **step)
        label = None
    if "markers" in (trace.mode or ""):
        marker = trace.marker
        size = (marker.size or 6) ** 2 / 3
        if trace.error_x.visible:
            error = {"xerr": [trace.error_x.arrayminus, trace.error_x.array], "ecolor": marker.color, "fmt": "none"}
            axes.errorbar(trace.x, trace.y, **error)
        symbol = _SYMBOLS[marker.symbol or "circle"]
        axes.scatter(trace.x, trace.y, s=size, c=marker.color, marker=symbol, label=label, zorder=order)


def _bar(axes: Any, trace: Any, place: int, several: int) -> None:
    label = _plain(trace.name) if several > 1 else None
    if trace.orientation != "h":
        axes.bar(trace.x, trace.y, color=trace.marker.color, label=label)
        return
    share = 0.8 / several
    at = [row + (place - (several - 1) / 2) * share for row in range(len(trace.y))]
    axes.barh(at, trace.x, share, color=trace.marker.color, label=label)
    if not all(isinstance(name, int) for name in trace.y):
        axes.set_yticks(range(len(trace.y)), [_plain(name) for name in trace.y])


def _heat_map(axes: Any, trace: Any, figure: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("genes", [colour for _, colour in DIVERGING])
    values = [[math.nan if value is None else value for value in row] for row in trace.z]
    shown = axes.imshow(values, cmap=colours, vmin=trace.zmin, vmax=trace.zmax, aspect="auto")
    axes.set_xticks(range(len(trace.x)), [_plain(name) for name in trace.x])
    if trace.showscale is not False:
        figure.colorbar(shown, ax=axes, shrink=0.8)
    for y, row in enumerate(trace.text):
        for x, written in enumerate(row):
            if written:
                is_dark = abs(values[y][x]) > 0.6 * trace.zmax
                colour = "white" if is_dark else "#333"
                axes.text(x, y, written, ha="center", va="center", fontsize=6, color=colour)


def _plain(text: str | None) -> str:
    """A name as it was written: matplotlib shows no tags, and would take dollars for mathematics."""
    return html.unescape(re.sub("</?b>", "", text or "")).replace("$", r"\$")
