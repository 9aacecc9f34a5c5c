"""How a search opens: with the gradient where it can, and what is scored before the optimizer is asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from evolve.config.machines import BackendConfig
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError, Problem
from evolve.search_loop.answer_targets import AnswerTargets
from evolve.search_loop.followed_genes import sensitivity_at
from evolve.search_loop.gradient_start import GradientStart, Start, shuffled
from evolve.search_loop.loop import Search
from evolve.search_loop.starts import find_starts
from evolve.search_loop.warm_start import WarmStart, warm_starts
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.space import Space, Vector
from evolve.trials.events import StopReason
from evolve.trials.trial import Evaluation, Kind, State, Trial
from merge_core import METHODS

LOOK_ITEMS = 64  # of all tasks together, but
FEWEST_OF_A_TASK = 16  # of each
WARM_STARTS = "warm_starts"
"""The note of where earlier runs ended: label, point of the unit cube, genes it sets, held-out items seen there."""


@dataclass(frozen=True)
class Opening:
    """How it went.

    Attributes:
        reason: why it broke off, if it did.
        sigmas: of the search from here, number of a gene -> standard deviation, where the way tells them.
        follows_all: whether it gained along the gradient of every gene, by formulas, so that little is left to find.
    """

    reason: StopReason | None = None
    sigmas: Mapping[int, float] = field(default_factory=dict)
    follows_all: bool = False


class StartChoice(NamedTuple):
    """How a search will open.

    Attributes:
        method: `gradient`, `references` or `random`.
        reason: in words.
        sensitivity: what the gradient can be followed in; None where it is not followed.
    """

    method: str
    reason: str
    sensitivity: GeneSensitivity | None = None


def choose_start(prepared: Prepared) -> StartChoice:
    """How the search will open, and why, as far as it is known before any model is loaded.

    Raises:
        ConfigError: the gradient is asked for and cannot be.
    """
    config = prepared.config
    method = "random" if config.starts_at_random else config.start.method
    if method in ("references", "random"):
        return StartChoice(method, "as the file says")
    obstacle, sensitivity = _obstacle(prepared.config.backend), None
    if obstacle is None:
        sensitivity = _at_the_start(prepared)
        if sensitivity.genes:
            count, every = len(sensitivity.genes), len(prepared.space.coordinates)
            return StartChoice("gradient", f"{count} of {every} genes have one", sensitivity)
        methods = ", ".join(dict.fromkeys(prepared.template.methods))
        obstacle = f"no gene sets a number of {methods} that a gradient can be followed in"
    return _without_gradient(prepared, obstacle)


def _without_gradient(prepared: Prepared, obstacle: str) -> StartChoice:
    if prepared.config.start.method == "gradient":
        raise ConfigError(Problem(("start", "method"), f"there is no gradient: {obstacle}. Set start: references"))
    return StartChoice("references", f"there is no gradient: {obstacle}")


def open_search(search: Search, prepared: Prepared, references: Sequence[Trial]) -> Opening:
    """Score what is scored before the optimizer is asked: references, and candidates along the gradient.

    Raises:
        SearchError: no parent can be scored.
        ConfigError: the gradient is asked for, and of no item is it known what is right.
    """
    sensitivity = choose_start(prepared).sensitivity
    warm = _warm_starts(search, prepared, sensitivity)
    if sensitivity is None:
        reason = search.score_references(references)
        return Opening(reason or (search.score_points({one.label: one.vector for one in warm}) if warm else None))
    search.begin_references(references)
    look_at = look_items(search.items)
    looked = _references_looked_at(search, references, look_at)
    if isinstance(looked, StopReason):
        return Opening(looked)
    targets = _targets(prepared, references, looked)
    if targets.rests_on_parents:
        if reason := search.score_references(references):
            return Opening(reason)
        targets = _targets(prepared, references, _measured(search, references))
    step_items = _step_items(search.items, look_at, targets, prepared.config.seed)
    _tell_what_has_no_target(prepared, step_items, _slopes_at_best(search, looked))
    if not step_items:
        return Opening(search.score_references(references))
    search.item_budget.reserved = _reserve(search, references)
    starts = [
        *find_starts(search, prepared, dict(zip((trial.label for trial in references), looked, strict=True))),
        *(Start(one.label, _with_all_models(prepared.space, one.vector)) for one in warm),
    ]
    if warm and isinstance(prepared.space, MergedPathSpace):
        starts = _on_the_path_of(prepared.space, warm[0].vector, starts)
        sensitivity = sensitivity_at(prepared, starts[0].vector)
    gradient = GradientStart(
        search=search,
        config=prepared.config.start,
        resolution=prepared.config.resolution,
        sensitivity=sensitivity,
        starts=starts,
        targets=targets,
        look_items=look_at,
        step_items=step_items,
    )
    reason = gradient.run()
    search.item_budget.reserved = 0
    for failure in gradient.failures:
        _warn(failure)
    if gradient.has_nothing_to_gain:
        print(
            "gradient: every item that it looks at is right, and nearly all of its steps; nothing is left to gain",
            file=sys.stderr,
        )
    elif reason is None and not gradient.has_gained:
        print("gradient: no step is better than the best start; the search begins there", file=sys.stderr)
    if reason in (None, StopReason.ITEMS):
        reason = search.score_references(references) or reason
    follows_all = len(sensitivity.genes) == len(prepared.space.coordinates) and _is_by_formula(prepared, sensitivity)
    return Opening(reason, gradient.sigmas(), follows_all and gradient.has_gained)


def _is_by_formula(prepared: Prepared, sensitivity: GeneSensitivity) -> bool:
    """Whether no number is followed by differences, which see jumps, but not all that lies beyond them."""
    followed = {slot.name for slot in sensitivity.slots}
    methods = [METHODS[name] for name in prepared.template.methods if name in METHODS]
    return all(followed & {*method.differentiable} <= {*method.by_formula} for method in methods)


def _at_the_start(prepared: Prepared) -> GeneSensitivity:
    return sensitivity_at(prepared, prepared.space.start(None))


def _on_the_path_of(space: MergedPathSpace, vector: Vector, starts: Sequence[Start]) -> list[Start]:
    """The starts on the path of one point: weights are followed on the path that an earlier search found."""
    path = tuple(vector[: space.place_count])
    moved = [replace(start, vector=(*path, *start.vector[space.place_count :]), looked=None) for start in starts]
    return list({start.vector: start for start in moved}.values())


def _with_all_models(space: Space, vector: Sequence[float]) -> tuple[float, ...]:
    """A point with no model left out: which numbers of a tensor are whose must be the same all along the gradient."""
    return tuple(
        axis.gene.unit(True) if axis.is_switch else unit for axis, unit in zip(space.coordinates, vector, strict=True)
    )


def check_warm_start(prepared: Prepared) -> None:
    """Find out before anything is scored whether earlier runs are there, and say anything.

    Raises:
        ConfigError: as `warm_starts`.
    """
    if prepared.config.warm_start:
        warm_starts(prepared, _at_the_start(prepared))


def _warm_starts(search: Search, prepared: Prepared, sensitivity: GeneSensitivity | None) -> list[WarmStart]:
    """As they were when this run was begun, whatever became of the earlier ones since."""
    if not prepared.config.warm_start:
        return []
    known = search.journal.noted(WARM_STARTS)
    if known is not None:
        return [WarmStart(label, tuple(vector), carried, seen) for label, vector, carried, seen in known]
    found = warm_starts(prepared, sensitivity or _at_the_start(prepared))
    search.journal.note(WARM_STARTS, [[one.label, list(one.vector), one.carried, one.seen] for one in found])
    for one in found:
        count = len(prepared.space.coordinates)
        print(f"warm start: {one.label}, which sets {one.carried} of {count} genes", file=sys.stderr)
        if one.seen:
            _warn(
                f"{one.seen} held-out items of this search steered {one.label}: its held-out scores are flattered. "
                "Give this search the seed and the items of that run"
            )
    return found


def _reserve(search: Search, references: Sequence[Trial]) -> int:
    """Item evaluations that the way leaves for the references, unless that were most of the budget."""
    items = sum(map(len, search.items.values()))
    unscored = [trial for trial in search.trials if trial.is_reference and trial.state is State.RUNNING]
    left = sum(search.unseen_items(trial.recipe) for trial in unscored)
    return left if 2 * items * len(references) <= (search.budget.items or 0) else 0


def _references_looked_at(
    search: Search, references: Sequence[Trial], look_at: Mapping[str, tuple[int, ...]]
) -> Sequence[Evaluation] | StopReason:
    """What the references scored on some items; they are scored on all where parents set the scale of every look."""
    if not search.objective_function.needs_parents:
        return search.look({trial.label: trial.recipe for trial in references}, look_at, keeps_answers=True)
    reason = search.score_references(references)
    return reason or [measured.restricted(look_at) for measured in _measured(search, references)]


def _measured(search: Search, references: Sequence[Trial]) -> list[Evaluation]:
    return [search.trials[trial.number].measured for trial in references]


def _targets(prepared: Prepared, references: Sequence[Trial], found: Sequence[Evaluation]) -> AnswerTargets:
    parents = [one for trial, one in zip(references, found, strict=True) if trial.kind is Kind.PARENT]
    return AnswerTargets.of(parents, prepared.scorers, prepared.config.start.targets)


def _slopes_at_best(search: Search, looked: Sequence[Evaluation]) -> Mapping[str, float]:
    """How much the objective gains from each task's score at the best of some models; nothing where none has any."""
    scored = [
        (objective, one) for one in looked if (objective := search.objective_function.of_feasible(one)) is not None
    ]
    return search.objective_function.slopes(max(scored, key=lambda pair: pair[0])[1].scores) if scored else {}


def _tell_what_has_no_target(
    prepared: Prepared, step_items: Mapping[str, tuple[int, ...]], slopes: Mapping[str, float]
) -> None:
    """Say which tasks the gradient leaves to the optimizer, and whether these are all that the objective is about.

    Args:
        prepared: the search.
        step_items: task name -> items with a target.
        slopes: task name -> how much the objective gains from its score, where the search begins.

    Raises:
        ConfigError: all of them, where the gradient is asked for.
    """
    without = [scorer.name for scorer in prepared.scorers if scorer.name not in step_items]
    if not step_items:
        names = ", ".join(without)
        choice = _without_gradient(
            prepared, f"of no item of {names} is it known what is right, nor did a parent answer"
        )
        _warn(f"the search begins at the {choice.method}: {choice.reason}")
        return
    for warning in without_targets(without, list(step_items), slopes):
        _warn(warning)


def without_targets(without: Sequence[str], others: Sequence[str], slopes: Mapping[str, float]) -> list[str]:
    """What is to be said of tasks that have no gradient.

    Args:
        without: their names.
        others: those that have one.
        slopes: task name -> how much the objective gains from its score, where the search begins.
    """
    found = [
        f"no gradient for task {name}: nothing is known to be right there; the optimizer alone serves it"
        for name in without
    ]
    if without and slopes and not any(slopes[name] for name in others):
        owners = ", ".join(name for name in without if slopes[name])
        found.append(
            f"at first only {owners} would raise the objective; steps raise {', '.join(others)}, and go on as long as "
            "the objective does not fall"
        )
    return found


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _obstacle(backend: BackendConfig) -> str | None:
    if backend.name != "hf":
        return f"{backend.name} computes none"
    if backend.quantization != "none":
        return "a rounded weight has none"
    if backend.device_map is not None:
        return "models that are spread over several devices are not differentiated yet"
    return None


def look_items(items: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The first of every task in an order of their own, at most half of them."""
    each = max(FEWEST_OF_A_TASK, LOOK_ITEMS // len(items))
    return {
        name: tuple(sorted(shuffled(own, f"look {name}")[: max(1, min(each, len(own) // 2))]))
        for name, own in items.items()
    }


def _step_items(
    items: Mapping[str, tuple[int, ...]],
    look_items: Mapping[str, tuple[int, ...]],
    targets: AnswerTargets,
    seed: int,
) -> dict[str, tuple[int, ...]]:
    """The others, as far as something is known to be right of them; all of a task where no other is."""
    found = {}
    for name, of_task in items.items():
        if own := targets.items(name, of_task):
            unseen = [item for item in own if item not in look_items[name]]
            found[name] = shuffled(unseen or own, f"step {seed} {name}")
    return found
