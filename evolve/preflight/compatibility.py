"""Whether settings, tasks and models go together, though each part by itself is sound."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence

from evolve.config.schema import SearchConfig
from evolve.preflight.search_models import SearchModels
from evolve.preflight.search_tasks import SearchTasks
from evolve.problems import Problem, error_lines, format_place
from evolve.scoring import Scorer, Split, has_answers_written, is_benchmark_test, is_mean_of_items
from evolve.scoring.backends.request_preparation import stated_length
from evolve.space.genes import ChoiceGene, find_genes
from evolve.space.sound_ranges import narrowed_ranges
from evolve.space.template import Template
from evolve.space.unread_genes import partly_read
from evolve.trials.costs import Cost
from merge_core import MergeError, documents_of, plan_recipes
from merge_core.recipe.user_methods import own_method_notice
from merge_core.vocabulary.chat_template import read_chat_template

DRAWN_FOR_COSTS = 12  # recipes
CHOICES_TRIED = 64  # of a gene
FEW_ITEMS = 20  # of a task


def misfits(tasks: SearchTasks, models: SearchModels | None) -> Iterator[Problem]:
    """What does not fit, though each part by itself is sound.

    Args:
        tasks: of the search; those that could not be loaded are left out.
        models: of the search; None when they are not sound.
    """
    config = tasks.config
    minimized = [scorer.name for scorer in tasks.scorers if scorer.direction == "minimize"]
    if config.objective == "geometric_mean" and config.normalize == "none" and minimized:
        yield Problem(
            ("objective",),
            f"geometric_mean needs scores above 0, and lower is better for {', '.join(minimized)}, so it counts below "
            "0. Set normalize: parents, or objective: worst",
        )
    for index, scorer in enumerate(tasks.scorers):
        # Who tunes on a benchmark's test set must say so: what is tuned on it cannot be compared on it.
        if is_benchmark_test(scorer) and not config.allow_benchmark_test:
            yield Problem(
                ("tasks", index),
                f"{scorer.name} is a public benchmark's test set, and what is tuned on it cannot be compared on it. "
                "Use training items, such as those that ship (gsm8k_train), or set allow_benchmark_test: true; the "
                "card will say so",
            )
    if Cost.ANSWER_TOKENS in config.cost_weights and tasks.scorers and not any(map(has_answers_written, tasks.scorers)):
        names = ", ".join(scorer.name for scorer in tasks.scorers)
        message = f"the model writes no answer in {names}. Add a task that generates, or remove it"
        yield Problem(("cost", Cost.ANSWER_TOKENS), message)
    if config.racing is not None:
        for scorer in tasks.scorers:
            if not is_mean_of_items(scorer):
                message = f"{scorer.name}: {scorer.metric} is no mean over items, of which some would tell"
                yield Problem(("racing",), f"{message}. Remove racing, or use another metric")
    if models is None:
        return
    model = models.tokenizer_model
    checkpoint = models.checkpoints[model]
    has_template = "chat_template" in models.template.document or read_chat_template(checkpoint.directory) is not None
    length = stated_length(checkpoint.config)
    rendered = [getattr(task, "apply_chat_template", False) is True and not has_template for task in config.tasks]
    if config.genome is not None and any(rendered):
        yield Problem(
            ("tasks",),
            f"apply_chat_template is on, as it is by default in mergekit-evolve's files, and {model} has no chat "
            "template. Write apply_chat_template: false at the top level, beside genome",
        )
    for index, task in enumerate(config.tasks):
        if config.genome is None and rendered[index]:
            yield Problem(
                ("tasks", index),
                f"apply_chat_template is on, and {model} has no chat template. Set apply_chat_template: false, or give "
                "the recipe a chat_template",
            )
        if task.longest_input is not None and length is not None:
            setting, longest = task.longest_input
            if longest > length:
                message = f"{longest} is longer than the context of {model}, {length} tokens. Ask for less"
                yield Problem(("tasks", index, *setting), message)


def warnings_of(tasks: SearchTasks, models: SearchModels) -> Iterator[str]:
    """What is allowed, and a person should know before the search."""
    yield from models.plan.warnings
    for name in benchmark_tests(tasks.scorers):
        yield f"{name} is a public benchmark's test set, used as allow_benchmark_test says; the card will say so"
    genes = find_genes(models.template.document)
    if (line := partly_read(models.template, [path for path, _ in genes])) is not None:
        yield line
    yield from _failing_choices(models)
    yield from _narrowed_ranges(models)
    yield from _constant_costs(tasks.config, models)
    for method in models.template.methods:
        if (notice := own_method_notice(method)) is not None:
            yield notice


def few_items(splits: Mapping[str, Split]) -> Iterator[str]:
    """A line for each task whose scores chance decides.

    The half width of the 95 % interval of a share of right answers is 1.96 * sqrt(p * (1 - p) / n), about
    1 / sqrt(n) at most.

    Args:
        splits: task -> its items. A task of which none is held out is not warned of for that.
    """
    for name, split in splits.items():
        counts = {"search": len(split.search), "held-out": len(split.held_out)}
        few = {kind: count for kind, count in counts.items() if 0 < count < FEW_ITEMS}
        if few:
            found = " and ".join(f"{count} {kind}" for kind, count in few.items())
            chance = " and ".join(f"{count**-0.5:.2f}" for count in dict.fromkeys(few.values()))
            yield (
                f"{name} has {found} items: shares of right answers on n items that differ by less than about "
                f"1/sqrt(n), here {chance}, cannot be told apart. Give it more (items: {{search: N, held_out: N}})"
            )


def benchmark_tests(scorers: Sequence[Scorer]) -> list[str]:
    """Names of the tasks that measure on a public benchmark's test set."""
    return [scorer.name for scorer in scorers if is_benchmark_test(scorer)]


def _constant_costs(config: SearchConfig, models: SearchModels) -> Iterator[str]:
    """A line for each cost that nothing is to be saved of, by points drawn from the space."""
    sizes = {Cost.LAYERS: "layer_count", Cost.PARAMETERS: "parameter_count"}
    named = [cost for cost in sizes if cost in config.cost_weights]
    if not named:
        return
    generator, space = random.Random(0), models.space
    plans = [models.plan]
    for _ in range(DRAWN_FOR_COSTS):
        vector = [generator.random() for _ in space.coordinates]
        with contextlib.suppress(MergeError):
            plans.append(plan_recipes(documents_of(space.decode(vector)), models.checkpoints))
    for cost in named:
        found = {getattr(plan, sizes[cost]) for plan in plans}
        if len(found) == 1:
            yield f"cost.{cost} decides nothing: it was {found.pop()} in all {len(plans)} recipes tried"


def _failing_choices(models: SearchModels) -> Iterator[str]:
    """A line for each choice that cannot be merged with all else as it is at the start."""
    space = models.space
    start = space.start(None)
    for number, axis in enumerate(space.coordinates):
        if not isinstance(axis.gene, ChoiceGene) or axis.is_switch or axis.is_place:
            continue
        for choice in axis.gene.choices[:CHOICES_TRIED]:
            vector = [*start[:number], axis.gene.unit(choice), *start[number + 1 :]]
            try:
                plan_recipes(documents_of(space.decode(vector)), models.checkpoints)
            except MergeError as error:
                yield f"{axis.name}: {choice} fails with the rest as it is at the start: {error_lines(error)[0]}"


def _narrowed_ranges(models: SearchModels) -> Iterator[str]:
    """A line for ranges that are searched in part: `della` needs room around its density."""
    template = getattr(models.space, "template", None)
    if not isinstance(template, Template):
        return
    alike: dict[tuple[float, float], list[str]] = {}
    for place, gene in narrowed_ranges(template):
        alike.setdefault((gene.low, gene.high), []).append(format_place(("recipe", *place)))
    for (low, high), (first, *others) in alike.items():
        more = f" and {len(others)} more" if others else ""
        methods = ", ".join(template.methods)
        yield f"{first}{more}: searched from {low:.4g} to {high:.4g}, where {methods} goes with the other parameters"
