"""A run writes only in a directory that is new or a run's, and over nothing but what runs wrote."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from evolve.problems import ConfigError
from evolve.trials.run_directory import RunDirectory, is_journal
from merge_core import ownership
from merge_core.output_directory import new_directory

RECORD = '{"op_code": 0, "worker_id": "w", "study_name": "evolve", "directions": [2]}\n'


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """One that a run has written in."""
    found = RunDirectory(tmp_path / "run")
    with found.locked():
        found.journal.write_text(RECORD)
        found.write(found.card, "# card\n")
        with new_directory(found.model) as model:
            (model / "config.json").write_text("{}")
    return found


def contents(path: Path) -> dict[Path, bytes | None]:
    return {file: file.read_bytes() if file.is_file() else None for file in path.rglob("*")}


def test_a_new_an_empty_and_a_run_s_own_directory_are_usable(tmp_path: Path, directory: RunDirectory):
    RunDirectory(tmp_path / "new" / "er").check_usable()
    assert not (tmp_path / "new").exists(), "checking writes nothing"
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty").check_usable()
    directory.check_usable()


@pytest.mark.parametrize("name", ["search.yml", "README.md", "notes.txt", "model/model.safetensors", "journal.log"])
def test_a_directory_with_other_files_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path(), Path(".")):
        said = r"and no run\. Name an --output that is new or empty"
        with pytest.raises(ConfigError, match=said), RunDirectory(path).locked():
            pytest.fail("begun")
    assert contents(tmp_path) == before


def test_a_run_of_an_earlier_version_is_known_by_its_journal(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    directory.journal.write_text(RECORD)
    directory.card.write_text("# card\n")
    with directory.locked():
        directory.write(directory.card, "# another\n")
    assert directory.card.read_text() == "# another\n"


def edited(directory: RunDirectory) -> None:
    directory.card.write_text("# mine\n")


def added_to_the_model(directory: RunDirectory) -> None:
    (directory.model / "model.gguf").write_text("mine")


def model_of_another(directory: RunDirectory) -> None:
    directory.model.rename(directory.path / "elsewhere")
    directory.model.mkdir()
    (directory.model / "model.safetensors").write_text("mine")


def model_is_a_link(directory: RunDirectory) -> None:
    directory.model.rename(directory.path / "elsewhere")
    directory.model.symlink_to(directory.path / "elsewhere")


def model_is_a_file(directory: RunDirectory) -> None:
    directory.model.rename(directory.path / "elsewhere")
    directory.model.write_text("mine")


def journal_is_a_link(directory: RunDirectory) -> None:
    directory.journal.rename(directory.path.parent / "journal.log")
    directory.journal.symlink_to(directory.path.parent / "journal.log")


def own_table(directory: RunDirectory) -> None:
    directory.trials.write_text("mine")


def own_cache(directory: RunDirectory) -> None:
    directory.statistics_cache.write_text("mine")


def own_simple_recipe(directory: RunDirectory) -> None:
    directory.simple.parent.mkdir()
    directory.simple.write_text("mine")


def simple_is_a_link(directory: RunDirectory) -> None:
    (directory.path.parent / "elsewhere").mkdir()
    directory.simple.parent.symlink_to(directory.path.parent / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        *(edited, added_to_the_model, model_of_another, model_is_a_link, model_is_a_file, journal_is_a_link),
        *(own_table, own_cache, own_simple_recipe, simple_is_a_link),
    ],
)
def test_what_is_not_a_run_s_own_in_its_directory_is_found_before_the_search(directory: RunDirectory, change):
    change(directory)
    before = contents(directory.path)
    with pytest.raises(ConfigError, match=r"Move (it|that) away"), directory.locked():
        pytest.fail("begun")
    assert contents(directory.path) == before


@pytest.mark.parametrize("spelling", ["run/model", "run/../run/model", "link/model", "run/model/config.json"])
def test_a_run_does_not_replace_its_own_inputs(directory: RunDirectory, tmp_path: Path, spelling: str):
    (tmp_path / "link").symlink_to(directory.path)
    with pytest.raises(ConfigError, match=r'model: model "parent" would be deleted with it'):
        directory.check_usable({'model "parent"': [tmp_path / spelling]})


def test_a_search_that_goes_on_from_its_copy_leaves_that_as_it_is(directory: RunDirectory):
    directory.search.write_text("edited: true\n")
    with pytest.raises(ConfigError, match=r"search\.yml: evolve did not write it"):
        directory.check_usable()
    directory.check_usable({"the search": [directory.search]})


def test_a_file_that_is_edited_while_the_run_goes_on_is_kept(directory: RunDirectory):
    with directory.locked():
        directory.card.write_text("# mine\n")
        with pytest.raises(ConfigError, match=r"README\.md: was changed while the run went on, and is kept"):
            directory.write(directory.card, "# card\n")
    assert directory.card.read_text() == "# mine\n"


def test_who_writes_beside_a_run_takes_none_of_its_files_off_the_list(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    """`evolve report` while a run goes on: both read the list, and the later to write had lost what the other wrote."""
    beside = threading.Thread(target=directory.write, args=(directory.report, "<html>"))
    write_list = ownership.write_list

    def interleaved(path: Path, keys: dict[str, list[str]]) -> None:
        if beside.ident is None:
            beside.start()
            beside.join(0.2)
        write_list(path, keys)

    monkeypatch.setattr(ownership, "write_list", interleaved)
    directory.write(directory.card, "# another\n")
    beside.join()
    directory.check_usable()


def test_a_kill_between_the_list_and_the_file_leaves_a_directory_to_go_on_in(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    import merge_core.atomic_output as atomic_output

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_output, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        directory.write(directory.card, "# another\n")
    monkeypatch.undo()
    directory.check_usable()
    directory.write(directory.card, "# a third\n")
    assert directory.card.read_text() == "# a third\n"


def test_a_deleted_directory_is_said_in_one_line(tmp_path: Path):
    directory = RunDirectory(tmp_path / "run")

    def write_after_deletion() -> None:
        with directory.locked():
            shutil.rmtree(directory.path)
            directory.write(directory.card, "# card\n")

    with pytest.raises(ConfigError, match=r"run: was deleted while the run went on"):
        write_after_deletion()


def test_an_output_that_cannot_be_written_is_found_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no directory"):
        RunDirectory(tmp_path / "file" / "run").check_usable()
    with pytest.raises(ConfigError, match="no name of a file holds a zero byte"):
        RunDirectory(tmp_path / "a\0b").check_usable()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=r"run: cannot be used as output: .* cannot be written"):
        RunDirectory(tmp_path / "run").check_usable()


def test_a_lock_that_leads_elsewhere_is_not_written_through(directory: RunDirectory, tmp_path: Path):
    (tmp_path / "precious").write_text("mine")
    (directory.path / ".lock").unlink()
    (directory.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="lock: is a link"), directory.locked():
        pytest.fail("begun")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "notes\n", "{}\n", "[1]\n", "\0\0", '{"op_code"'])
def test_a_journal_is_known_by_its_first_line(tmp_path: Path, text: str):
    file = tmp_path / "journal.log"
    file.write_text(RECORD)
    assert is_journal(file)
    (tmp_path / "link").symlink_to(file)
    assert not is_journal(tmp_path / "link")
    file.write_text(text)
    assert not is_journal(file)


def test_a_second_run_is_refused_and_told_who_holds_the_directory(directory: RunDirectory):
    said = rf"run: in use by process {os.getpid()} \(.+\), since .+; wait for it, or choose another --output"
    with directory.locked(), pytest.raises(ConfigError, match=said), RunDirectory(directory.path).locked():
        pytest.fail("begun")
    with directory.locked():
        pass
