"""Everything that can go wrong before a model is loaded, found from configs and headers alone, all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from evolve.config.looked_in import looked_in
from evolve.config.reader import SearchFile
from evolve.config.schema import SearchConfig
from evolve.config.yaml_document import YamlDocument
from evolve.preflight.compatibility import misfits, warnings_of
from evolve.preflight.search_cost import crowding, faster_precision
from evolve.preflight.search_models import layers_of, open_models, span_genome, span_recipe
from evolve.preflight.search_tasks import SearchTasks, load_tasks
from evolve.problems import ConfigError, Problem, noted
from evolve.scoring import ObjectiveCall, Scorer, Split
from evolve.scoring.backends.factory import check_installed
from evolve.space.space import Space
from evolve.space.template import Template
from evolve.trials.journal_lines import JournalError
from evolve.trials.study_storage import check_storage
from merge_core import Checkpoint, MergePlan, ModelReference
from merge_core.recipe.model_reference import local_directories


@dataclass(frozen=True)
class Prepared:
    """A search that is known to be sound.

    Attributes:
        config: what it is.
        file: search.yml.
        document: what stands in it, for errors that are found later.
        task_search_path: where what the tasks name is looked for too.
        template: the recipe with genes, or what a genome stands for.
        checkpoints: every model that the recipe names.
        space: what is searched.
        plan: of its start: what one candidate takes.
        tokenizer_model: whose config and tokenizer a candidate has, unless the recipe says otherwise.
        scorers: the tasks.
        splits: the items of each task.
        objective: the user's own function of their scores, where the search names one.
        warnings: what a person should know before the search.
    """

    config: SearchConfig
    file: Path
    document: YamlDocument
    task_search_path: tuple[str, ...]
    template: Template
    checkpoints: Mapping[str, Checkpoint]
    space: Space
    plan: MergePlan
    tokenizer_model: str
    scorers: tuple[Scorer, ...]
    splits: Mapping[str, Split]
    objective: ObjectiveCall | None
    warnings: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """Where what the file names is looked for first."""
        return looked_in(self.file, self.document.content)

    @property
    def default_output(self) -> Path:
        """Where a run goes that does not say."""
        return Path(self.config.output) if self.config.output else Path("runs") / self.file.stem

    @property
    def inputs(self) -> dict[str, list[Path]]:
        """What a run must not write over: what it is, for a message → its files and directories."""
        models = {
            f'model "{model}"': [
                *local_directories(ModelReference.parse(model), self.directory),
                *checkpoint.directories,
            ]
            for model, checkpoint in self.checkpoints.items()
        }
        return {"the search": [self.file], **models}

    @property
    def same_depth(self) -> bool:
        """Whether all models have as many layers."""
        return len({layers_of(checkpoint) for checkpoint in self.checkpoints.values()}) == 1


def prepare_tasks(file: SearchFile) -> SearchTasks:
    """Check what a search.yml says about tasks and items.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    tasks = load_tasks(file, problems)
    if problems or tasks is None:
        raise ConfigError(*map(file.document.located, problems))
    return tasks


def prepare(file: SearchFile, tell: Callable[[str], None] = lambda what: None) -> Prepared:
    """Check models, layers, recipe, tasks, metrics and item counts.

    Each part that can be read is checked, whatever is wrong with the others.

    Args:
        file: the search.
        tell: is told what is begun that takes a while.

    Raises:
        ConfigError: with every problem found, those of the file itself included.
    """
    problems = list(file.problems)
    config, models = file.config, None
    if file.recipe is not None:
        with noted(problems, "recipe"):
            if file.recipe.places:
                tell(f"opening {_listed('model', file.recipe.places)}")
            checkpoints = open_models(file.recipe.places, file.directory, file.recipe.run_models, file.seed)
            models = span_recipe(file.recipe, checkpoints) if file.recipe_is_sound else None
    elif config is not None and config.genome is not None:
        with noted(problems, "genome"):
            tell(f"opening {_listed('model', config.genome.models)}")
            models = span_genome(config.genome, file.directory, config.seed if config.random_init else None)
    if file.tasks:
        tell(f"loading {_listed('task', [task.label for task in file.tasks.values()])}")
    tasks = load_tasks(file, problems)
    if config is not None and config.ray.address is None:  # what a cluster's machines have only they know
        with noted(problems):
            check_installed(config.backend.name, config.backend.quantization)
    if config is not None and config.storage is not None:
        try:
            check_storage(config.storage)
        except JournalError as error:
            problems.append(Problem((), str(error)))
    if tasks is not None:
        problems += misfits(tasks, models)
    if problems or models is None or tasks is None:
        raise ConfigError(*map(file.document.located, problems))
    return Prepared(
        config=tasks.config,
        file=file.path,
        document=file.document,
        task_search_path=tuple(map(str, tasks.search_path)),
        template=models.template,
        checkpoints=models.checkpoints,
        space=models.space,
        plan=models.plan,
        tokenizer_model=models.tokenizer_model,
        scorers=tasks.scorers,
        splits=tasks.splits,
        objective=tasks.objective,
        warnings=tuple(
            dict.fromkeys([*file.ignored_lines, *warnings_of(tasks, models), *_slow(tasks.config, models.plan)])
        ),
    )


def _listed(what: str, names: Collection[str]) -> str:
    """ "3 models: a, b, c"."""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}: {', '.join(names)}"


def _slow(config: SearchConfig, plan: MergePlan) -> list[str]:
    # What a cluster's machines have only they know, and a GPU's work is not done by cores.
    if config.ray.address is not None or config.backend.device_here().startswith("cuda"):
        return []
    return [found for found in (crowding(config.workers), faster_precision(plan, config.backend)) if found is not None]
