"""Where the journal of a run is, by what its directory says."""

from __future__ import annotations

from evolve.problems import ConfigError
from evolve.trials.run_directory import RunDirectory


def run_storage(directory: RunDirectory) -> str:
    """The location of a run's journal: in its directory, or where its search.yml puts it.

    Raises:
        ConfigError: the directory does not hold a run, or its search.yml cannot be read.
    """
    if directory.journal.is_file():
        return str(directory.journal)
    if not directory.search.is_file():
        raise ConfigError(f"{directory.path}: holds no run: search.yml is missing. Give the --output of a run")
    from evolve.config.yaml_document import read_document  # brings the merge engine, which a journal does without

    storage = read_document(directory.search, {}).content.get("storage")
    return storage if isinstance(storage, str) else str(directory.journal)
