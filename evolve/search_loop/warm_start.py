"""Where earlier runs ended, as points of this search: what they found carries over as far as recipes mean the same."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from evolve.config.looked_in import beside_or_here
from evolve.config.run_storage import run_storage
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError, Problem, error_lines
from evolve.search_loop.followed_genes import sensitivity_at
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.genes import ChoiceGene, RangeGene
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.space import Vector
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Kind, Trial, best_of, candidates_done
from merge_core import MergeError, ParameterSlot, documents_of, plan_parameters, plan_recipes


@dataclass(frozen=True)
class WarmStart:
    """A point from an earlier run.

    Attributes:
        label: for people.
        vector: of this search's unit cube.
        carried: how many genes it sets; the others begin as the file says.
        seen: held-out items of this search that steered the earlier run, which flatters it there.
    """

    label: str
    vector: tuple[float, ...]
    carried: int
    seen: int = 0


def warm_starts(prepared: Prepared, sensitivity: GeneSensitivity) -> list[WarmStart]:
    """The best of every run in `warm_start`.

    Genes of the same name have its values. Where runs differ in how genes are shared among layers and tensors, a gene
    is the mean of what the earlier best recipe has in the places that the gene sets.

    Args:
        prepared: this search.
        sensitivity: which places its genes set.

    Raises:
        ConfigError: a directory holds no run with a scored candidate, or nothing of it carries over.
    """
    return [_warm_start(prepared, sensitivity, index, text) for index, text in enumerate(prepared.config.warm_start)]


def _warm_start(prepared: Prepared, sensitivity: GeneSensitivity, index: int, text: str) -> WarmStart:
    place = ("warm_start", index)
    path = beside_or_here(text, prepared.directory)
    if path is None:
        raise ConfigError(Problem(place, f"{text} is not a directory beside the file or here"))
    directory = RunDirectory(path)
    best = _best(directory)
    if best is None:
        inside = sorted(found.parent.name for found in path.glob("*/search.yml"))
        names = f". Runs in it: {', '.join(inside[:5])}" if inside else ""
        raise ConfigError(Problem(place, f"{text} holds no run with a scored candidate{names}"))
    axes = prepared.space.coordinates
    if isinstance(prepared.space, LayerPathSpace):
        point = prepared.space.point_of_recipe(best.recipe)
        if point is None:
            raise ConfigError(Problem(place, f"the best of {text} is no path of this search"))
        return WarmStart(f"the best of {text}", point, len(axes), _seen(prepared, directory))
    vector = list(prepared.space.start(None))
    path_genes: set[int] = set()
    if isinstance(prepared.space, MergedPathSpace):
        on_path = prepared.space.with_path_of(best.recipe, vector)
        if on_path is None:
            raise ConfigError(Problem(place, f"the layers of the best of {text} are no path of this search"))
        vector, path_genes = list(on_path), set(range(prepared.space.place_count))
    carried = path_genes | {
        number
        for number, axis in enumerate(axes)
        if axis.name in best.genes
        and number not in path_genes
        and (not isinstance(axis.gene, ChoiceGene) or best.genes[axis.name] in axis.gene.choices)
    }
    for number in carried - path_genes:
        vector[number] = _unit(axes[number].gene, best.genes[axes[number].name])
    if path_genes:
        sensitivity = sensitivity_at(prepared, vector)
    means = _means(prepared, sensitivity, best, vector)
    for number in means.keys() - carried:
        vector[number] = _unit(axes[number].gene, means[number])
    carried |= means.keys()
    if not carried:
        message = f"nothing of {text} carries over: no gene has its name, and its recipe sets none of their places"
        raise ConfigError(Problem(place, message))
    return WarmStart(f"the best of {text}", tuple(vector), len(carried), _seen(prepared, directory))


def _seen(prepared: Prepared, directory: RunDirectory) -> int:
    """How many held-out items were search items there, by the names of tasks.

    Raises:
        ConfigError: what the earlier run says of its items cannot be read.
    """
    if not directory.items.is_file():
        return 0
    try:
        earlier = json.loads(directory.items.read_text(encoding="utf-8"))
        return sum(
            len(set(split.held_out) & set(earlier[name]["search"]))
            for name, split in prepared.splits.items()
            if name in earlier
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        message = f"cannot be read, so that it is not known which items steered that run: {error_lines(error)[0]}"
        raise ConfigError(f"{directory.items}: {message}. Put it back, or move it away") from error


def _unit(gene: object, value: object) -> float:
    if isinstance(gene, RangeGene):
        return gene.unit(min(max(float(value), gene.low), gene.high))  # type: ignore[arg-type]
    return gene.unit(value)  # type: ignore[attr-defined, no-any-return]


def _best(directory: RunDirectory) -> Trial | None:
    """What the run chose; of one that is not finished the best so far."""
    if not (directory.search.exists() or directory.journal.exists()):
        return None
    trials = Journal.open(run_storage(directory)).trials()
    chosen = directory.read_summary(candidates_done(trials)).get("best")
    if isinstance(chosen, int) and 0 <= chosen < len(trials) and trials[chosen].kind is Kind.CANDIDATE:
        return trials[chosen]
    return best_of([trial for trial in trials if trial.kind is Kind.CANDIDATE])


def _means(prepared: Prepared, sensitivity: GeneSensitivity, best: Trial, vector: Vector) -> dict[int, float]:
    """Number of a gene → mean of the earlier recipe's values where that gene alone sets a parameter."""
    try:
        plan = plan_recipes(documents_of(best.recipe), prepared.checkpoints, prepared.config.seed)
    except MergeError:  # of other models
        return {}
    here = plan_recipes(documents_of(prepared.space.decode(vector)), prepared.checkpoints, prepared.config.seed)
    earlier: Mapping[str, Mapping[ParameterSlot, float]] = plan_parameters(plan)
    there = {job.output: job for job in plan.jobs}
    own = {job.output: [source.model for source in job.inputs] for job in here.jobs}
    found: dict[int, list[float]] = {}
    for (output, slot), row in sensitivity.rows.items():
        job = there.get(output)
        if job is None or len(row) > 1:
            continue
        models = [source.model for source in job.inputs]
        value = earlier.get(output, {}).get(slot) if models == own[output] else None
        if job.method == "passthrough" and slot.name == "weight" and slot.position is not None:  # a layer as it is
            value = float(models == [own[output][slot.position]])
        if value is not None:
            found.setdefault(row[0][0], []).append(value)
    return {number: statistics.fmean(values) for number, values in found.items()}
