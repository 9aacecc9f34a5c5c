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
from evolve.report.short_recipe import LEGIBLE, NoShortRecipe, ShortRecipe, allow_needed, count_lines, counted, refusal
from evolve.search_loop.followed_genes import sensitivity_at
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.opening import choose_start
from evolve.simplify.examiner import Examiner
from evolve.simplify.long_recipe import LongRecipe, numbers_in
from evolve.simplify.metric import Metric
from evolve.simplify.refit import refit
from evolve.simplify.short_form import ShortForm
from evolve.simplify.short_forms import short_forms
from evolve.space.genes import put, unshared_copy
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Evaluation, Trial
from merge_core import METHODS, ModelReference
from merge_core.recipe.documents import DOCUMENTS, written_documents
from merge_core.recipe.model_reference import local_directories
from merge_core.recipe.places import NamedModel, named_models

MOST_NUMBERS = 64  # unless more are asked for; and half of what the long recipe has
POINTS = 2  # where gradients are taken: the long recipe and a short one
SPACING = 1.4  # between the lengths that are tried
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
        template = self.prepared.template
        numbers = numbers_in(template, best.recipe)
        most = self.limits.numbers or min(MOST_NUMBERS, numbers // 2)
        examiner = Examiner.of(
            self.prepared, self.journal, self.evaluator, self.objective_function, best.measured, held_out, self.stop
        )
        long = LongRecipe.of(self.prepared, best)
        metric = metric_at(examiner, best, long, most)
        forms = list(short_forms(long.sites, metric, most))
        lost: dict[int, Interval] = {}  # by how many numbers it was

        def examined(form: ShortForm) -> Examined | None:
            recipe = long.written(form.settings(long.sites))
            own = numbers_in(template, recipe)
            difference = examiner.difference(recipe, examiner.deciding)
            told = "cannot be scored" if difference is None else format_interval(difference, signed=True)
            refused = "" if difference is None else refusal(difference, self.limits.allow)
            reason = f"; {refused}" if refused else ""
            self.on_progress(f"{counted(own)}: {told} against the best recipe's {numbers}{reason}")
            if difference is None:
                return None
            lost[own] = difference
            return recipe, difference

        def moved(form: ShortForm) -> Examined | None:
            if not len(metric.rows):
                return examined(form)
            self.on_progress(f"{counted(form.numbers)}, moved along the gradient")
            return examined(refit(examiner, long, form) or form)

        count = sum(form.numbers <= LEGIBLE for form in forms)
        found = shortest(_spaced(forms[:count]), examined, self.limits.allow)
        if found is None:  # numbers that their gradient has moved lose less, and cost more
            found = shortest(_spaced(forms[max(count - 1, 0) :]), moved, self.limits.allow)
        short = None if found is None else self._told(examiner, best, *found)
        if short is not None:
            there = self._there(examiner, best)
            earlier = None if there is None else self._told(examiner, best, *there)
            is_kept = earlier is not None and outdoes(earlier, short, self.limits.allow)
            return replace(earlier, kept=True) if earlier is not None and is_kept else short
        return NoShortRecipe(most, numbers, self.limits.allow, lost, self.file.parents[1])

    def _there(self, examiner: Examiner, best: Trial) -> Examined | None:
        """What an earlier call wrote, named and scored like the forms; None where there is none, or it was changed."""
        if not RunDirectory(self.file.parent).wrote(self.file):
            return None
        documents = list(yaml.safe_load_all(self.file.read_text(encoding="utf-8")))
        recipe: dict[str, Any] = documents[0] if len(documents) == 1 else {DOCUMENTS: documents}
        seen = seen_from(best.recipe, self.prepared.directory, self.file.parent)
        own = {
            there.value: here.value
            for (_, here), (_, there) in zip(_mentions(best.recipe), _mentions(seen), strict=True)
            if isinstance(here.value, str)
        }
        for document, mention in _mentions(recipe):
            put(document, mention.place, own.get(mention.value, mention.value))
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
            numbers=numbers_in(self.prepared.template, recipe),
            long_numbers=numbers_in(self.prepared.template, best.recipe),
            lines=count_lines(recipe),
            long_lines=count_lines(best.recipe),
            objective=short,
            long_objective=long,
            deciding=deciding,
            telling=telling if examiner.telling else None,
            items=sum(map(len, items.values())),
        )


def metric_at(examiner: Examiner, best: Trial, long: LongRecipe, most: int) -> Metric:
    """What it costs to move the numbers of a candidate: by gradients there and at a short form, where there are any.

    Args:
        examiner: asks for gradients.
        best: the candidate.
        long: its recipe.
        most: numbers of a short form.

    Raises:
        StoppedSimplifyingError: a stop was asked for.
    """
    cells = long.cells
    moved = [cell.moved for cell in cells]
    if choose_start(examiner.prepared).sensitivity is None or best.vector is None:
        return Metric.of([], moved)
    sensitivity = sensitivity_at(examiner.prepared, best.vector)  # where models may be left out and layers moved
    before = examiner.gradients_before(sensitivity, best.vector, cells)
    here = examiner.gradients(best.recipe, cells)
    metric = Metric.of([here], moved, before)
    *_, form = short_forms(long.sites, metric, max(long.least, min(LEGIBLE, most)))
    there = examiner.gradients(long.with_numbers(form.settings(long.sites)), cells) if here else []
    return Metric.of([here, there], moved, before)


def outdoes(earlier: ShortRecipe, found: ShortRecipe, allow: float) -> bool:
    """Whether the short recipe that is there is kept: it is shorter and does, or as long and not clearly outdone.

    Args:
        earlier: it.
        found: another one, which would replace it: of the same length only if the items that decide say that it is
            better, and those that tell do not say that it is worse.
        allow: how much may be lost.
    """
    if earlier.numbers != found.numbers:
        does = allow_needed(earlier.deciding) <= allow or earlier.deciding.value >= found.deciding.value
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
        if this is not None and allow_needed(this[1]) <= allow:
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
    documents = written_documents(recipe)
    methods = [METHODS.get(str(document.get("merge_method"))) for document in documents]
    if any(method is not None and method.randomised for method in methods):  # masks depend on the names
        return found
    made = {document.get("name") for document in documents}
    for document, mention in _mentions(found):
        if isinstance(mention.value, str) and mention.value not in made:
            parts = mention.value.split("+")  # a model and its adapter
            local = [next(iter(local_directories(ModelReference.parse(part), before)), None) for part in parts]
            named = (
                part if one is None else os.path.relpath(one, directory) for part, one in zip(parts, local, strict=True)
            )
            put(document, mention.place, "+".join(named))
    return found


def _mentions(recipe: Mapping[str, Any]) -> list[tuple[Any, NamedModel]]:
    """Every mention of a model in a recipe, and the document that it stands in."""
    return [(document, mention) for document in written_documents(recipe) for mention in named_models(document)]


def _spaced(forms: Sequence[ShortForm]) -> list[ShortForm]:
    """The last, and those with a good many more numbers than the one before."""
    kept: list[ShortForm] = []
    for form, after in itertools.pairwise([*forms, None]):
        if form is not None and (not kept or after is None or form.numbers >= SPACING * kept[-1].numbers):
            kept.append(form)
    return kept
