"""A new run writes down what it is; a continued one must be the same, since scores of two are never mixed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from evolve.preflight.fingerprints import differences, fingerprints, source_keys
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError
from evolve.search_loop.environment import versions
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory, dump_yaml
from evolve.trials.setting_changes import refuse_changes
from evolve.trials.writer_lock import file_of, without_password
from merge_core.recipe.user_methods import copy_methods


def open_journal(location: str, prepared: Prepared, directory: RunDirectory, *, rescore: bool = False) -> Journal:
    """The journal of a run, made or mended; what was wrong with it is said.

    Args:
        location: the journal's, which this process holds.
        prepared: the search.
        directory: the run's.
        rescore: whether to begin anew where a journal that there was is gone.

    Raises:
        JournalError: it cannot be opened.
        ConfigError: there was one, and it is gone or empty.
    """
    file = file_of(location)
    if file is not None and directory.items.exists() and not rescore and not (file.exists() and file.stat().st_size):
        raise ConfigError(
            f"{file}: {'is empty' if file.exists() else 'is gone'}, though a run was begun in {directory.path}. Put it "
            "back from a copy; or give --rescore to begin anew there; or start a new run with another --output"
        )
    journal = Journal.open(location, create=True, objectives=len(prepared.config.objectives) or 1)
    for fault in journal.faults:
        print(f"warning: {fault}", file=sys.stderr)
    return journal


def open_run(journal: Journal, prepared: Prepared, directory: RunDirectory, *, rescore: bool = False) -> None:
    """Begin a run in its journal, or make sure that it can be continued.

    Args:
        journal: the run's.
        prepared: the search.
        directory: the run's.
        rescore: whether a search whose scores belong to something else begins anew; they stay in the journal.

    Raises:
        ConfigError: with all that differs from what the run was begun with.
    """
    resolved = prepared.config.model_dump(mode="json", exclude_none=True)
    # The file works from where it is written, too, in whichever working directory.
    resolved["relative_to"] = os.path.relpath(prepared.directory, directory.path.resolve())
    found, header = fingerprints(prepared), journal.header
    made_with = [*header.get("made_with", []), versions()]
    if len(made_with) > 1 and made_with[-1] == made_with[-2]:
        made_with.pop()
    if not header and journal.trials():
        _continue(
            journal,
            [f"{without_password(journal.location)}: what its trials were made with is lost with its first lines"],
            rescore,
            directory,
        )
    if header:
        refuse_changes(header["config"], resolved, directory.search.name)
        _continue(journal, _changes(header, prepared, found), rescore, directory)
    items = _item_ids(prepared)
    journal.write_header({"config": resolved, "items": items, "depends_on": found, "made_with": made_with})
    own = directory.search.exists() and prepared.file.exists() and directory.search.samefile(prepared.file)
    if not own:
        directory.write(directory.search, dump_yaml(resolved))
    copy_methods(prepared.template.methods, directory.path)  # for that file, and for the recipes beside it
    directory.write(directory.items, json.dumps(items) + "\n")


def refuse_changed(journal: Journal, prepared: Prepared) -> None:
    """Score nothing beside results of a finished run that were scored with something else.

    Args:
        journal: the run's.
        prepared: its search, as it is now.

    Raises:
        ConfigError: with all that differs.
    """
    header = journal.header
    if header and (changes := _changes(header, prepared, fingerprints(prepared))):
        told = "The results of this run were scored with what it was before, and cannot be compared with new ones"
        raise ConfigError(*changes, f"{told}. Put it back, or start a new run with another --output")


def refuse_written_over(journal: Journal, prepared: Prepared) -> None:
    """Hand over no result of models that were written over while they were read, for which some scores are another's.

    A file that is replaced stays what it was for who has opened it; one that is written into changes under the search.

    Args:
        journal: of the run, which has come to its end.
        prepared: its search.

    Raises:
        ConfigError: with the files that are not what they were when the run began, or are gone.
    """
    try:
        before, now = journal.header["depends_on"], source_keys(prepared)
    except OSError as error:
        what = f"{error.filename}: cannot be read any more: {error.strerror}"
        raise ConfigError(f"{what}. Put it back and run the same command again: nothing is scored twice") from error
    changes = differences({what: key for what, key in before.items() if what in now}, now)
    if changes:
        told = "It was written over while the search read it, and nobody can tell which scores are of which model"
        raise ConfigError(*changes, f"{told}. Begin anew with --rescore, or put it back and use another --output")


def _changes(header: Mapping[str, Any], prepared: Prepared, found: Mapping[str, str]) -> list[str]:
    before, now = header["items"], _item_ids(prepared)
    changed = [f"task {name!r}: which items are scored has changed" for name in now if before.get(name) != now[name]]
    if "depends_on" not in header:  # as an earlier version left it
        print(
            "warning: the version of evolve that began this run did not record what its scores belong to; from now on "
            "they belong to the tasks, code, models and versions as they are",
            file=sys.stderr,
        )
        return changed
    return changed + differences(header["depends_on"], found)


def _continue(journal: Journal, changes: list[str], rescore: bool, directory: RunDirectory) -> None:
    """Go on with the scores that there are; or without, where there are none of worth, or they are given up."""
    if not changes:
        return
    scored = journal.scored_count()
    if scored and not rescore:
        raise ConfigError(
            *changes,
            f"The {scored} results of this run were scored with what it was before, and cannot be compared with new "
            "ones. Put it back; or start a new run with another --output; or give --rescore: the search begins anew, "
            "and the old results stay in the journal as history",
        )
    directory.goes_on()
    journal.begin_anew()
    for change in changes:
        print(f"{change}; {'scored anew' if scored else 'nothing was scored before'}", file=sys.stderr)


def _item_ids(prepared: Prepared) -> dict[str, dict[str, list[int]]]:
    return {
        name: {"search": list(split.search), "held_out": list(split.held_out)}
        for name, split in prepared.splits.items()
    }
