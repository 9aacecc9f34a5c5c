"""From the best recipe of a search to the shortest one that does as well."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, TypeVar

import yaml

from evolve.config.strategy import SimplifyConfig
from evolve.evaluation.evaluator import Evaluator
from evolve.preflight.prepare import Prepared
from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.report.short_recipe import NoShortRecipe, ShortRecipe, count_lines
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.opening import choose_start
from evolve.simplify.examiner import Examiner
from evolve.simplify.long_recipe import LongRecipe, count_numbers, obstacle
from evolve.simplify.metric import Metric
from evolve.simplify.short_forms import ShortForm, short_forms
from evolve.space.genes import put, unshared_copy
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, Trial, best_of
from merge_core import METHODS, ModelReference
from merge_core.recipe.model_reference import local_directories
from merge_core.recipe.places import named_models

LEGIBLE = 20  # numbers that a person can read as they are
MOST_NUMBERS = 64  # unless more are asked for; and half of what the long recipe has
POINTS = 2  # where gradients are taken: the long recipe and a short one
SPACING = 1.4  # between the lengths that are tried
RULED_OUT = 3.0  # times what is allowed
Progress = Callable[[str], None]
Examined = tuple[Mapping[str, Any], Interval]
Form = TypeVar("Form")


@dataclass(frozen=True)
class Simplification:
    """What a simplification needs.

    Attributes:
        prepared: the search.
        journal: of the run.
        evaluator: scores.
        objective_function: of the search.
        limits: what may be lost, and how many numbers there may be.
        file: that the short recipe is going to be written to.
        stop: set to stop softly.
        on_progress: is told how it goes.
    """

    prepared: Prepared
    journal: Journal
    evaluator: Evaluator
    objective_function: ObjectiveFunction
    limits: SimplifyConfig
    file: Path
    stop: Flag
    on_progress: Progress = lambda text: None

    def run(self, best: Trial, held_out: Evaluation | None) -> ShortRecipe | NoShortRecipe:
        """The shortest recipe that is not worse than is allowed.

        Args:
            best: the long recipe.
            held_out: what it scored on the held-out items.

        Raises:
            StoppedSimplifyingError: a stop was asked for; what was scored is kept, and the same call goes on.
        """
        numbers = count_numbers(best.recipe)
        most = self.limits.numbers or min(MOST_NUMBERS, numbers // 2)
        examiner = Examiner.of(
            self.prepared, self.journal, self.evaluator, self.objective_function, best.measured, held_out, self.stop
        )
        source = self._source(examiner, best)
        long = LongRecipe.of(self.prepared, source)
        forms = _spaced(list(short_forms(long.sites, metric_at(examiner, source, long, most), most)))
        nearest: list[Interval] = []

        def examined(form: ShortForm) -> Examined | None:
            recipe = long.with_numbers(form.settings(long.sites))
            difference = examiner.difference(recipe, examiner.deciding)
            told = "cannot be scored" if difference is None else format_interval(difference, signed=True)
            self.on_progress(f"{form.numbers} numbers: {told} against the best recipe's {numbers}")
            if difference is None:
                return None
            nearest.append(difference)
            return recipe, difference

        found = shortest(forms, examined, self.limits.allow)
        short = None if found is None else self._told(examiner, best, *found)
        if short is not None:
            there = self._there(examiner)
            earlier = None if there is None else self._told(examiner, best, *there)
            is_kept = earlier is not None and outdoes(earlier, short, self.limits.allow)
            return replace(earlier, kept=True) if earlier is not None and is_kept else short
        lost = max(nearest, key=lambda difference: difference.value, default=None)
        return NoShortRecipe(most, numbers, self.limits.allow, lost)

    def _source(self, examiner: Examiner, best: Trial) -> Trial:
        """What is made shorter: the best before the optimizer, where that is as good by the same rule.

        An optimizer leaves noise in directions that change nothing; a way along the gradient does not go there.
        """
        before = best_of(
            trial for trial in self.journal.trials() if trial.kind is Kind.CANDIDATE and not trial.is_asked
        )
        if before is None or before.number == best.number or obstacle(self.prepared, before) is not None:
            return best
        items = examiner.deciding
        known = self.journal.kept(Stage.VALIDATION).get(before.number) if examiner.telling else before.measured
        difference = examiner.difference_of(known or examiner.scored(before.recipe, items), items)
        return before if difference is not None and is_allowed(difference, self.limits.allow) else best

    def _there(self, examiner: Examiner) -> Examined | None:
        """What an earlier call wrote, named and scored like the forms; None where there is none, or it was changed."""
        if not RunDirectory(self.file.parent).wrote(self.file):
            return None
        recipe: dict[str, Any] = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        searched = self.prepared.template.document
        seen = seen_from(searched, self.prepared.directory, self.file.parent)
        own = {
            there.value: here.value
            for here, there in zip(named_models(searched), named_models(seen), strict=True)
            if isinstance(here.value, str)
        }
        for mention in list(named_models(recipe)):
            put(recipe, mention.place, own.get(mention.value, mention.value))
        difference = examiner.difference(recipe, examiner.deciding)
        return None if difference is None else (recipe, difference)

    def _told(
        self, examiner: Examiner, best: Trial, recipe: Mapping[str, Any], deciding: Interval
    ) -> ShortRecipe | None:
        items = examiner.telling or examiner.deciding
        telling = examiner.difference(recipe, items)
        if telling is None:
            return None
        short, long = examiner.objectives(recipe, items)
        return ShortRecipe(
            recipe=recipe,
            file=self.file,
            numbers=count_numbers(recipe),
            long_numbers=count_numbers(best.recipe),
            lines=count_lines(recipe),
            long_lines=count_lines(best.recipe),
            objective=short,
            long_objective=long,
            deciding=deciding,
            telling=telling if examiner.telling else None,
            items=sum(map(len, items.values())),
        )


def metric_at(examiner: Examiner, source: Trial, long: LongRecipe, most: int) -> Metric:
    """What it costs to move the numbers of a candidate: by gradients there and at a short form, where there are any.

    Args:
        examiner: asks for gradients.
        source: the candidate.
        long: its recipe.
        most: numbers of a short form.

    Raises:
        StoppedSimplifyingError: a stop was asked for.
    """
    cells = long.cells
    moved = [cell.moved for cell in cells]
    sensitivity = choose_start(examiner.prepared).sensitivity
    if sensitivity is None or source.vector is None:
        return Metric.of([], moved)
    before = examiner.gradients_before(sensitivity, source.vector, cells)
    here = examiner.gradients(source.recipe, cells)
    metric = Metric.of([here], moved, before)
    *_, form = short_forms(long.sites, metric, max(len(long.sites), min(LEGIBLE, most)))
    there = examiner.gradients(long.with_numbers(form.settings(long.sites)), cells) if here else []
    return Metric.of([here, there], moved, before)


def is_allowed(difference: Interval, allow: float) -> bool:
    """Whether no more is lost than that, and a loss of three times as much is ruled out.

    A difference that merely cannot be told from nothing would pass ever larger losses, the fewer the items are.

    Args:
        difference: short minus long, with its 95 % interval.
        allow: how much may be lost.
    """
    return difference.value >= -allow and difference.low >= -RULED_OUT * allow


def outdoes(earlier: ShortRecipe, found: ShortRecipe, allow: float) -> bool:
    """Whether the short recipe that is there is kept: it is shorter and does, or as long and not clearly outdone.

    Args:
        earlier: it.
        found: another one, which would replace it: of the same length only if the items that decide say that it is
            better, and those that tell do not say that it is worse.
        allow: how much may be lost.
    """
    if earlier.numbers != found.numbers:
        does = is_allowed(earlier.deciding, allow) or earlier.deciding.value >= found.deciding.value
        return earlier.numbers < found.numbers and does
    is_worse = earlier.telling is not None and found.telling is not None and found.telling.value < earlier.telling.value
    return earlier.recipe != found.recipe and (is_worse or found.deciding.value <= earlier.deciding.value)


def shortest(forms: Sequence[Form], examined: Callable[[Form], Examined | None], allow: float) -> Examined | None:
    """The first form that loses no more than is allowed, by halving: what is lost falls with the numbers.

    Args:
        forms: the shortest first.
        examined: a form's recipe, and short minus long on the items that decide; None of what cannot be scored.
        allow: how much may be lost.
    """
    found = None
    low, high = 0, len(forms)
    while low < high:
        middle = (low + high) // 2
        this = examined(forms[middle])
        if this is not None and is_allowed(this[1], allow):
            high, found = middle, this
        else:
            low = middle + 1
    return found


def seen_from(recipe: Mapping[str, Any], before: Path, directory: Path) -> dict[str, Any]:
    """A recipe whose local models are named as they are seen from its directory, wherever it is used from.

    Args:
        recipe: whose models are looked for beside another directory, and then in the working directory.
        before: that directory.
        directory: where the recipe is going to be.
    """
    found: dict[str, Any] = unshared_copy(recipe)
    method = METHODS.get(str(recipe.get("merge_method")))
    if method is not None and method.randomised:  # its masks depend on the names that were scored
        return found
    for mention in named_models(recipe):
        if isinstance(mention.value, str):
            parts = mention.value.split("+")  # a model and its adapter
            local = [next(iter(local_directories(ModelReference.parse(part), before)), None) for part in parts]
            named = (
                part if one is None else os.path.relpath(one, directory) for part, one in zip(parts, local, strict=True)
            )
            put(found, mention.place, "+".join(named))
    return found


def _spaced(forms: Sequence[ShortForm]) -> list[ShortForm]:
    """Those with a good many more numbers than the one before."""
    kept = [forms[0]] if forms else []
    for form, after in itertools.zip_longest(forms[1:], forms[2:]):
        if form.numbers >= SPACING * kept[-1].numbers or after is None:
            kept.append(form)
    return kept
