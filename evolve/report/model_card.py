"""The README.md of the merged model: what it is, how good it is, and how it came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evolve.report.degenerate import degenerate_notes
from evolve.report.formatting import format_duration, format_interval, objective_text, single_line
from evolve.report.hub_metadata import hub_metadata
from evolve.report.pareto_table import front_headings, front_rows
from evolve.report.score_page import cost_cells
from evolve.report.score_table import Scores, ScoreTable
from evolve.report.short_recipe import ShortRecipe
from evolve.report.spending_table import SPENDING_HEADINGS, spending_rows
from evolve.report.verdict import verdict
from evolve.trials.pareto_front import Front
from evolve.trials.run_directory import dump_recipe
from evolve.trials.spending import Spending
from evolve.trials.trial import ItemScores, Kind, State, Trial
from merge_core import METHODS, ModelReference, Recipe, documents_of
from merge_core.checkpoint.card_metadata import Licences
from merge_core.execute.markdown import escape, fenced, markdown_table
from merge_core.execute.model_card import front_matter, licence_section, told_elsewhere
from merge_core.recipe.user_methods import own_method_notice


def model_card(
    table: ScoreTable,
    trials: Sequence[Trial],
    held_out: Mapping[int, ItemScores],
    *,
    seed: int,
    versions: Mapping[str, str],
    wall_seconds: float,
    title: str = "Merged model",
    benchmark_tests: Sequence[str] = (),
    front: Front | None = None,
    spending: Spending | None = None,
    short: ShortRecipe | None = None,
    relative_to: Path | None = None,
    licences: Licences | None = None,
    fingerprint: str | None = None,
    picture: str | None = None,
) -> str:
    """Markdown with YAML front matter, as the Hugging Face Hub reads it.

    Args:
        table: scores and comparisons; its best trial's recipe is the card's recipe.
        trials: the journal, for the counts.
        held_out: trial number -> task -> item -> score, for the counts.
        seed: of the search.
        versions: package -> version.
        wall_seconds: how long the search took.
        title: the heading.
        benchmark_tests: tasks that measure on a public benchmark's test set.
        front: of a Pareto search.
        spending: where the item evaluations went.
        short: a shorter form of the recipe.
        relative_to: where local models are looked for first.
        licences: of the models.
        fingerprint: of the model's tensors, as merging the recipe again gives it.
        picture: file beside the card that shows how the search went.
    """
    documents = documents_of(table.best.recipe)
    recipe = documents[0]  # of several, all that merge name the same models
    sections = [
        front_matter(recipe.merged_models(), relative_to, licences, hub_metadata(table, title)),
        f"# {_escape(title)}",
        _summary(table, trials, documents),
        "## Scores",
        _benchmark_note(benchmark_tests),
        _score_section(table, trials, held_out),
        f"![The best so far against item evaluations, beside parents and uniform merge]({picture})" if picture else "",
        *(["## Pareto front", _front_section(front)] if front is not None else []),
        "## Search",
        _search_section(table, trials, documents, seed, wall_seconds),
        *(["### Item evaluations", markdown_table(SPENDING_HEADINGS, spending_rows(spending))] if spending else []),
        "## Recipe",
        fenced("yaml", dump_recipe(table.best.recipe)),
        *(["## A shorter recipe", *_short_section(short)] if short is not None else []),
        licence_section(licences or {}),
        "## Reproduce",
        "`best_recipe.yml` is the recipe above with the paths that local models had, `search.yml` the search; both lie "
        "in the run's directory, and beside a model that was pushed. Local paths in them are looked for beside the "
        "file, then in the working directory.",
        _escape(own_method_notice(recipe.merge_method) or ""),
        fenced("bash", "\n".join(_commands(bool(table.best_row.held_out.tasks), fingerprint, seed))),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) if versions else "",
    ]
    models = [*recipe.merged_models(), *(ModelReference.parse(row.name) for row in table.rows if row.role == "parent")]
    return told_elsewhere("\n\n".join(section.strip("\n") for section in sections if section) + "\n", models)


def _commands(is_held_out: bool, fingerprint: str | None, seed: int) -> list[str]:
    """The model again, its scores again, the search again."""
    items = " --held-out" if is_held_out else ""
    masks = f" --seed {seed}" if seed else ""  # which methods that drop entries at random draw by
    lines = {
        f"evolve merge best_recipe.yml merged{masks}": f"fingerprint {fingerprint[:16]}…"
        if fingerprint
        else "this model",
        f"evolve eval merged --tasks-from search.yml{items}": "its scores",
        "evolve run search.yml --output again": "the search that found it",
    }
    width = max(map(len, lines))
    return [f"{line:<{width}}  # {what}" for line, what in lines.items()]


def _summary(table: ScoreTable, trials: Sequence[Trial], documents: Sequence[Recipe]) -> str:
    models = [f"`{single_line(str(model))}`" for model in documents[0].merged_models()]
    named = models[0] if len(models) == 1 else f"{', '.join(models[:-1])} and {models[-1]}"
    candidates = sum(trial.kind is Kind.CANDIDATE for trial in trials)
    tasks = ", ".join(_escape(task.name) for task in table.tasks)
    counted = f"{candidates} candidate{'' if candidates == 1 else 's'}"
    along_gradient = any(trial.kind is Kind.CANDIDATE and not trial.is_asked for trial in trials)
    if table.best.is_reference:
        found = f"A search over {counted}, scored on {tasks}, found no better one."
    elif not table.best.is_asked:
        found = (
            "Its parameters were found along the gradient of the probability of right answers; of the "
            f"{counted} of the search, scored on {tasks}, it was chosen."
        )
    else:
        begun = ", begun along the gradient of the probability of right answers," if along_gradient else ""
        found = f"Its parameters were found by an evolutionary search{begun} over {counted}, scored on {tasks}."
    text = f"A merge of {named}, made with {_methods(documents)}. {found} {_escape(verdict(table))}"
    # A reference is a single model or a plain average on purpose; the verdict says which.
    notes = [] if table.best.is_reference else degenerate_notes(documents[0])
    return "\n\n".join([text, *(f"**Note:** {_escape(note)}" for note in notes)])


def _benchmark_note(names: Sequence[str]) -> str:
    if not names:
        return ""
    tasks = ", ".join(_escape(name) for name in names)
    return (
        f"**Tuned on public test data:** {tasks}. The search was run on items of a public benchmark's test set, as its "
        "configuration allowed (`allow_benchmark_test`). Scores of this model on that benchmark, held-out items "
        "included, cannot be compared with those of models that never saw it."
    )


def _score_section(table: ScoreTable, trials: Sequence[Trial], held_out: Mapping[int, ItemScores]) -> str:
    kinds = ["search", "held-out"] if any(row.held_out.tasks for row in table.rows) else ["search"]
    tasks = [] if table.objective_is_task else table.tasks
    objective = _escape(table.tasks[0].name) if table.objective_is_task else "objective"
    header = ["model", *(f"{objective}, {kind}" for kind in kinds)]
    header += [f"{_escape(task.name)}, {kind}" for task in tasks for kind in kinds]
    costs = list(table.cost_terms.weights)
    header += [f"{_escape(cost)}, {kind}" for cost in costs for kind in kinds]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in table.rows:
        name = _escape(row.name)
        name = f"**best** ({name})" if row.role == "best" else name
        scores = {"search": row.search, "held-out": row.held_out}
        cells = [_cell(scores[kind], None, row.failure) for kind in kinds]
        cells += [_cell(scores[kind], task.name, row.failure) for task in tasks for kind in kinds]
        cells += [cell for cost in costs for cell in cost_cells(table, row, cost, kinds)]
        lines.append([name, *cells])
    markdown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    objective_is = _escape(objective_text(table.objective, table.cost_terms))
    level = f"{100 * table.confidence_level:g} %"
    paragraphs = [
        markdown,
        f"Brackets are {level} confidence intervals over items. The objective is the "
        f"{objective_is}; tasks where lower is better count with their sign turned, so a higher "
        "objective is better.",
    ]
    if costs:
        paragraphs.append(
            "Costs are lower the better; in parentheses, against the best parent's on the search items. They count as "
            "they were measured: intervals of the objective are those of its scores."
        )
    differences = [
        f"- best minus {_escape(comparison.reference)}: "
        f"{format_interval(comparison.difference, signed=True)}, paired over "
        f"{comparison.items} {table.compared_on} items (bootstrap, items drawn within each task)"
        for comparison in table.comparisons
    ]
    if differences:
        paragraphs.append("\n".join(differences))
    paragraphs.append(
        "**Search scores flatter the best model**: it was selected as the highest of many on those items. "
        + (
            "Judge it by the held-out items, which the optimizer never saw."
            if len(kinds) == 2
            else "No items were held out, so nothing here says how good it is on others."
        )
    )
    finalists = sum(trial.kind is Kind.CANDIDATE and trial.number in held_out for trial in trials)
    if finalists > 1:
        paragraphs.append(
            f"{finalists} finalists were scored on the held-out items. If they decided between the "
            "finalists, the held-out score of the best is a little high, too."
        )
    if table.shared_items:
        paragraphs.append(f"**Warning:** the search saw {table.shared_items} of the held-out items.")
    return "\n\n".join(paragraphs)


def _front_section(front: Front) -> str:
    header = ["model", *map(_escape, front_headings(front)[1:])]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [[_escape(name), *cells] for name, *cells in front_rows(front)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        "Objectives that were kept apart, higher is better. On the search items no other model of the search is as "
        "good as one of these in all of them and better in one. Their recipes are in the run's `pareto/`.\n\n" + table
    )


def _short_section(short: ShortRecipe) -> list[str]:
    return [
        " ".join(f"{_escape(said.removesuffix('.'))}." for said in short.sentences("simple/ in the run's directory")),
        "It is another model than this one.",
        fenced("yaml", dump_recipe(short.recipe)),
    ]


def _search_section(
    table: ScoreTable,
    trials: Sequence[Trial],
    documents: Sequence[Recipe],
    seed: int,
    wall_seconds: float,
) -> str:
    candidates = [trial for trial in trials if trial.kind is Kind.CANDIDATE]
    failed = sum(trial.state is State.FAILED for trial in candidates)
    infeasible = sum(trial.state is State.INFEASIBLE for trial in candidates)
    outside = f" and {infeasible} broke a constraint" if infeasible else ""
    stopped = sum(trial.state is State.STOPPED for trial in candidates)
    outside += f"; {stopped} were settled by some of the items and stopped" if stopped else ""
    lines = ["| task | metric | better | weight | search items | held-out items |", "|" + " --- |" * 6]
    row = table.best_row
    for task in table.tasks:
        better = "higher" if task.direction == "maximize" else "lower"
        counts = f"{row.search.items.get(task.name, 0)} | {row.held_out.items.get(task.name, 0)}"
        name = _escape(task.name)
        lines.append(f"| {name} | {_escape(task.metric)} | {better} | {task.weight:g} | {counts} |")
    scales = [
        f"- {_escape(name)} counts from {sign * scale.zero:.6g} as 0 to {sign * scale.one:.6g} as 1, as the parents "
        "scored on the search items"
        for name, scale in table.objective.scales.items()
        for sign in [1.0 if table.objective.terms[name].direction == "maximize" else -1.0]
    ]
    facts = [
        f"- Objective: {_escape(objective_text(table.objective, table.cost_terms))}",
        *scales,
        f"- Merge method: {_methods(documents)}",
        f"- Candidates: {len(candidates)}, of which {failed} failed{outside}; parents and uniform merge: "
        f"{len(trials) - len(candidates)}",
        f"- Wall time: {format_duration(wall_seconds)}",
        f"- Seed: {seed}",
    ]
    split = (
        "Search and held-out items of a task are disjoint samples of its items, drawn with the seed and the "
        "same for every model; their ids are in the run's `items.json`."
        if row.held_out.tasks and not table.shared_items
        else "The items of a task are a sample drawn with the seed, the same for every model."
    )
    return "\n".join(facts) + "\n\n" + "\n".join(lines) + "\n\n" + split


def _methods(documents: Sequence[Recipe]) -> str:
    """The merge method, linked to its paper where there is one; several where documents are stacked."""
    merging = documents[:-1] or documents
    methods = [METHODS[name] for name in dict.fromkeys(document.merge_method for document in merging)]
    named = [f"`{method.name}` ({method.link})" if method.source else f"`{method.name}`" for method in methods]
    return " and ".join(named)


def _cell(scores: Scores, task_name: str | None, failure: str | None) -> str:
    interval = scores.objective if task_name is None else scores.tasks.get(task_name)
    if interval is not None:
        return format_interval(interval)
    return "failed" if failure is not None else "-"


def _escape(text: str) -> str:
    return escape(single_line(text))
