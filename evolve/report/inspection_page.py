"""What `evolve inspect` prints: one screen, and the same as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evolve.inspection.comparison import Comparison
from evolve.inspection.differences import Matrix, cosines
from evolve.inspection.pairs import TaskFindings
from evolve.report.formatting import format_bytes, format_count, shortened, single_line
from evolve.report.text_table import TextPage

_BARS = "▁▂▃▄▅▆▇█"
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class Inspection:
    """All that was found.

    Attributes:
        weights: of the models that can be merged.
        apart: those of other shapes.
        tasks: what was scored; None where no task was named.
        written: the search.yml.
    """

    weights: Comparison
    apart: Sequence[str]
    tasks: TaskFindings | None
    written: Path | None


def inspection_text(found: Inspection, width: int) -> str:
    """For people.

    Args:
        found: what to tell.
        width: columns of the terminal.
    """
    weights, page = found.weights, TextPage(width)
    share = weights.bytes_read / weights.bytes_all
    page.add(
        f"{len(weights.labels)} models of {weights.layers} layers and {format_count(weights.parameters)} parameters; "
        f"read {format_bytes(weights.bytes_read)} of {format_bytes(weights.bytes_all)} ({share:.0%})"
    )
    for label in found.apart:
        page.add(f"Left out: {single_line(label)} has other layers or shapes, and cannot be merged with these.")
    for one, twin in weights.same.items():
        names = single_line(weights.labels[one]), single_line(weights.labels[twin])
        page.add(f"{names[0]} has the same weights as {names[1]}, as far as they were read.")
    if weights.not_compared:
        kinds = ", ".join(weights.not_compared[:5]) + (", …" if len(weights.not_compared) > 5 else "")
        page.add(f"Not compared, since not all models have them in the same shape: {kinds}.")
    base = "none of these" if weights.base is None else single_line(weights.base)
    page.add(f"Base model: {base}: {single_line(weights.ancestry.reason)}.\n")
    _add_changes(page, weights)
    _add_cosines(page, weights)
    _add_routing(page, weights)
    _add_tokenizers(page, weights)
    if found.tasks is not None:
        _add_tasks(page, found.tasks, weights.base)
    if found.written is not None:
        page.add(f"\nWritten: {found.written}. Next: evolve run {found.written}")
    return str(page)


def _add_changes(page: TextPage, weights: Comparison) -> None:
    numbers = weights.fine_tunes
    rows = []
    for number in numbers:
        rank = _rank(weights, number)
        told = "-" if rank is None else f"{rank:.0%}"
        by_layer = [weights.change(number, table) for layer, table in _layers(weights)]
        rows.append((_name(weights, number), f"{weights.change(number):.1%}", told, _bars(by_layer)))
    whence = "the base" if weights.base is not None else "the others"
    page.add_table(f"How far from {whence}", ["of its norm", "rank (noise: 100%)", "by layer"], rows)
    kinds = sorted(weights.differences.by_kind.items(), key=lambda kind: -float(kind[1].sum()))[:8]
    total = float(weights.differences.squared.sum()) or 1.0
    page.add("By kind of tensor: " + ", ".join(f"{kind} {table.sum() / total:.0%}" for kind, table in kinds) + "\n")


def _add_cosines(page: TextPage, weights: Comparison) -> None:
    found, numbers = weights.cosines, weights.fine_tunes
    if found is None or weights.vectors is None or len(numbers) < 2:
        return
    conflicts = weights.vectors.conflicts()
    letters = [_letter(place) for place in range(len(numbers))]
    rows = []
    for number in numbers:
        cells = [
            "" if other == number else _number(conflicts[number][other] if other < number else found[number][other])
            for other in numbers
        ]
        rows.append((_name(weights, number), *cells))
    title = "Above the diagonal: cosine of differences from the base. Below: share of sign conflicts among the largest"
    page.add_table(title, letters, rows)


def _add_routing(page: TextPage, weights: Comparison) -> None:
    if not any(weights.routing):
        return
    rows = []
    for number in _routed(weights):
        apart = [1 - share for share in weights.routing[number]]
        rows.append((_name(weights, number), f"{np.mean(apart):.0%}", f"{max(apart):.0%}", _bars(apart)))
    whose = "base's" if weights.base is not None else "first model's"
    page.add_table(f"Tokens sent to other experts than the {whose}", ["mean", "most", "by layer"], rows)


def _routed(weights: Comparison) -> list[int]:
    reference = weights.ancestry.base or 0
    return [number for number in range(len(weights.labels)) if number != reference]


def _add_tokenizers(page: TextPage, weights: Comparison) -> None:
    if not weights.tokenizers:
        page.add("Tokenizers and chat templates: the same.\n")
    for one in weights.tokenizers:
        own = one.vocabulary
        parts = [f"{len(own.more)} tokens more ({_some(own.more)})"] if own.more else []
        parts += [f"{len(own.fewer)} tokens fewer ({_some(own.fewer)})"] if own.fewer else []
        parts += [f"{len(own.moved)} tokens under other ids"] if own.moved else []
        parts += ["other merges or scores of the same tokens"] if own.segmentation else []
        parts += ["another chat template"] if one.template else []
        parts += [f"cannot be read: {one.problem}"] if one.problem else []
        page.add(single_line(f"Tokenizer of {one.label}, against {weights.labels[0]}: {', '.join(parts)}."))


def _add_tasks(page: TextPage, tasks: TaskFindings, base: str | None) -> None:
    names = list(tasks.items)
    rows = [
        (
            _short(model) + (" (base)" if model == base else ""),
            *(f"{scores[name]:.3f}" + ("*" if tasks.own_tasks.get(model) == name else "") for name in names),
        )
        for model, scores in tasks.scores.items()
    ]
    items = max(tasks.items.values())
    if rows:
        page.add_table(f"Scores on {items} items (*: what a model is there for)", names, rows)
    for model, failure in tasks.failures.items():
        page.add(f"{single_line(model)} could not be scored: {single_line(failure)}")
    scored = sorted((pair for pair in tasks.pairs if pair.lost is not None), key=lambda pair: -(pair.lost or 0.0))
    shown = scored if len(scored) <= 12 else [*scored[:6], *scored[-6:]]
    if shown:
        aligned = any(pair.alignment is not None for pair in shown)
        pair_rows = [
            (
                " + ".join(shortened(single_line(m), 30) for m in pair.models),
                f"{pair.lost:+.3f}",
                *(["-" if pair.alignment is None else f"{pair.alignment:+.1f}"] if aligned else []),
            )
            for pair in shown
        ]
        note = "" if len(shown) == len(scored) else f", best and worst six of {len(scored)}"
        title = f"Half of each of two models, against the better one at what they are there for{note}"
        page.add_table(title, ["lost", *(["alignment"] if aligned else [])], pair_rows)
        if aligned:
            page.add(
                "Alignment: nats by which one's right answers become more probable per unit of the other's weight."
            )


def inspection_facts(found: Inspection) -> dict[str, Any]:
    """As data: everything of the text, and what has no room in it."""
    weights = found.weights
    base, numbers = weights.ancestry.base, weights.fine_tunes
    conflicts = weights.vectors.conflicts() if weights.vectors is not None else None
    facts: dict[str, Any] = {
        "models": list(weights.labels),
        "left_out": list(found.apart),
        "same_weights": {weights.labels[one]: weights.labels[twin] for one, twin in weights.same.items()},
        "not_compared": list(weights.not_compared),
        "base": weights.base,
        "base_reason": weights.ancestry.reason,
        "bytes_read": weights.bytes_read,
        "bytes": weights.bytes_all,
        "changes": {
            weights.labels[number]: {
                "of_norm": weights.change(number),
                "rank": _rank(weights, number),
                "by_layer": {str(layer): weights.change(number, table) for layer, table in _layers(weights)},
            }
            for number in numbers
        },
        "pairs": [
            {
                "models": [weights.labels[one], weights.labels[other]],
                **_distance_facts(weights, one, other),
                **_angle_facts(weights, base, one, other, conflicts),
            }
            for place, one in enumerate(numbers)
            for other in numbers[place + 1 :]
        ],
        "routing": {weights.labels[number]: list(weights.routing[number]) for number in _routed(weights)}
        if any(weights.routing)
        else {},
        "tokenizers": [
            {
                "model": one.label,
                "more": list(one.vocabulary.more),
                "fewer": list(one.vocabulary.fewer),
                "moved": len(one.vocabulary.moved),
                "segmentation_differs": one.vocabulary.segmentation,
                "chat_template_differs": one.template,
                "problem": one.problem,
            }
            for one in weights.tokenizers
        ],
    }
    if found.tasks is not None:
        facts["tasks"] = {
            "items": dict(found.tasks.items),
            "scores": {model: dict(scores) for model, scores in found.tasks.scores.items()},
            "own_tasks": dict(found.tasks.own_tasks),
            "failures": dict(found.tasks.failures),
            "pairs": [
                {
                    "models": list(pair.models),
                    "lost": pair.lost,
                    "alignment": pair.alignment,
                    "failure": pair.failure,
                }
                for pair in found.tasks.pairs
            ],
        }
    if found.written is not None:
        facts["written"] = str(found.written)
    return facts


def _distance_facts(weights: Comparison, one: int, other: int) -> dict[str, Any]:
    def distance(squared: Matrix) -> float:
        return float(np.sqrt(squared[one][other]))

    return {
        "distance": distance(weights.differences.squared),
        "distance_by_layer": {str(layer): distance(table) for layer, table in _layers(weights)},
        "distance_by_kind": {kind: distance(table) for kind, table in weights.differences.by_kind.items()},
    }


def _angle_facts(
    weights: Comparison, base: int | None, one: int, other: int, conflicts: Matrix | None
) -> dict[str, Any]:
    if base is None or conflicts is None:
        return {}

    def cosine(squared: Matrix) -> float | None:
        return _finite(cosines(squared, base)[one][other])

    return {
        "cosine": cosine(weights.differences.squared),
        "sign_conflicts": _finite(conflicts[one][other]),
        "cosine_by_layer": {str(layer): cosine(table) for layer, table in _layers(weights)},
        "cosine_by_kind": {kind: cosine(table) for kind, table in weights.differences.by_kind.items()},
    }


def _layers(weights: Comparison) -> Iterator[tuple[int, Matrix]]:
    inside = [layer for layer in weights.differences.by_layer if layer is not None]
    yield from ((layer, weights.differences.by_layer[layer]) for layer in sorted(inside))


def _rank(weights: Comparison, number: int) -> float | None:
    base = weights.ancestry.base
    return None if base is None else _finite(weights.differences.ranks[number][base])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def _name(weights: Comparison, number: int) -> str:
    letter = _letter(weights.fine_tunes.index(number))
    return f"{letter}  {_short(weights.labels[number])}"


def _short(label: str) -> str:
    return shortened(single_line(label), _LONGEST_LABEL)


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _bars(values: Sequence[float]) -> str:
    """A bar for each, at most 32 of them, against the longest."""
    step = max(1, -(-len(values) // 32))
    groups = [max(values[start : start + step]) for start in range(0, len(values), step)]
    highest = max(groups, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / highest * len(_BARS)))] for value in groups)


def _some(tokens: Sequence[str]) -> str:
    shown = ", ".join(repr(token) for token in tokens[:3])
    return shown + (", …" if len(tokens) > 3 else "")
