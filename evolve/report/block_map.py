"""What it does to a model to pass a block of its layers twice: a map of all blocks, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evolve.report.text_table import TextPage
from evolve.space.repeat_space import RepeatSpace
from evolve.trials.trial import Trial

SHADES = "·-░▒▓█"  # from the lowest to the highest, where there is no room for numbers
CELL = 4  # columns of a number with its sign and a space


def block_scores(space: RepeatSpace, trials: Sequence[Trial]) -> dict[tuple[int, int], float]:
    """First and last layer of a block → the objective with it passed twice, of those that were scored."""
    found = {}
    for trial in trials:
        if trial.vector is None or trial.objective is None:
            continue
        first, count = space.values_of(space.path_at(trial.vector)) or (0, 0)
        if count:
            found[first, first + count - 1] = trial.objective
    return found


def render_blocks(space: RepeatSpace, trials: Sequence[Trial], width: int) -> str:
    """The map as text: a row for each first layer, a column for each last one.

    Args:
        space: of the search.
        trials: of the search, the model as it is among them.
        width: columns; where numbers do not fit, shades say what they would.
    """
    scores = block_scores(space, trials)
    if not scores:
        return ""
    as_it_is = next((trial.objective for trial in trials if trial.is_reference and trial.objective is not None), 0.0)
    layers = space.layer_counts[0]
    page = TextPage(width)
    margin = len(str(layers - 1)) + 1
    if margin + CELL * layers <= width:
        page.add("Each block of layers passed twice: objective against the model as it is, in hundredths")
        page.add("first layer down, last layer across")
        cells = {block: f"{100 * (score - as_it_is):+.0f}" for block, score in scores.items()}
        page.add("\n".join(_rows(cells, layers, margin, CELL)))
    else:
        page.add(
            f"Each block of layers passed twice, from the lowest objective {SHADES[0]} to the highest {SHADES[-1]}"
        )
        page.add(f"first layer down, last layer across, both from 0 to {layers - 1}")
        low, high = min(scores.values()), max(scores.values())
        steps = (len(SHADES) - 1) / ((high - low) or 1.0)
        cells = {block: SHADES[round((score - low) * steps)] for block, score in scores.items()}
        page.add("\n".join(_rows(cells, layers, margin, 1)))
    return str(page)


def _rows(cells: Mapping[tuple[int, int], str], layers: int, margin: int, cell: int) -> list[str]:
    heading = [" " * margin + "".join(f"{last:{cell}d}" for last in range(layers))] if cell > 1 else []
    return heading + [
        f"{first:{margin - 1}d} " + "".join(cells.get((first, last), "").rjust(cell) for last in range(layers)).rstrip()
        for first in range(layers)
    ]
