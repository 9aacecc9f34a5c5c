"""References keep what the user wrote, and resolve to directories or to a clear line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from merge_core import MergeError, ModelReference, resolve_model
from merge_core.recipe.model_reference import hub_ids, local_directories


@pytest.mark.parametrize(
    "text", ["org/name", "/a//b c", "org/name@main", "org/name@main+org/lora@v1", "./x+../y", "name"]
)
def test_a_reference_reads_back_as_written(text: str):
    reference = ModelReference.parse(text)
    assert str(reference) == text
    assert reference.to_mapping() == text


def test_the_parts_are_found():
    reference = ModelReference.parse("org/name@main+org/lora@v1")
    assert (reference.model.path, reference.model.revision) == ("org/name", "main")
    assert reference.lora is not None
    assert (reference.lora.path, reference.lora.revision) == ("org/lora", "v1")


def test_the_map_form_is_kept():
    mapping = {"model": {"path": "a", "revision": "r"}, "lora": {"path": "b"}, "override_architecture": "X"}
    reference = ModelReference.parse(mapping)
    assert str(reference) == "a@r+b"
    assert reference.to_mapping() == mapping


@pytest.mark.parametrize("value", [3, {"modle": "a"}, {"model": {"pth": "a"}}, "+a"])
def test_what_is_no_reference_is_refused(value: object):
    with pytest.raises(MergeError):
        ModelReference.parse(value)


def test_a_home_of_nobody_is_a_problem_wherever_it_is_looked_for():
    reference = ModelReference.parse("~nobody-of-this-name/model")
    for look in (resolve_model, local_directories):
        with pytest.raises(MergeError, match='model "~nobody-of-this-name/model": no path'):
            look(reference)


def test_a_directory_beside_the_recipe_goes_before_one_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for place in ("recipes", "work"):
        (tmp_path / place / "model").mkdir(parents=True)
    (tmp_path / "work" / "other").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert resolve_model("model", tmp_path / "recipes") == tmp_path / "recipes" / "model"
    assert resolve_model("other", tmp_path / "recipes").resolve() == tmp_path / "work" / "other"
    assert resolve_model(str(tmp_path / "work" / "other")) == tmp_path / "work" / "other"


def test_a_finished_search_stands_for_the_model_that_it_found(tmp_path: Path):
    for name in ("run/model", "unfinished/model", "whole/model"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run/model", "whole/model", "whole"):
        (tmp_path / name / "config.json").write_text("{}")
    assert resolve_model("run", tmp_path) == tmp_path / "run" / "model"
    assert resolve_model("unfinished", tmp_path) == tmp_path / "unfinished"
    assert resolve_model("whole", tmp_path) == tmp_path / "whole"


def test_a_missing_path_says_where_it_was_looked_for(tmp_path: Path):
    with pytest.raises(MergeError, match=f"no directory {tmp_path}/nowhere"):
        resolve_model("./nowhere", tmp_path)


@pytest.mark.parametrize("name", ["llama+math", "llama@5"])
def test_a_directory_whose_name_is_taken_apart_is_told(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    with pytest.raises(MergeError, match=rf"no directory .*llama\. What follows \+ .*: give {re.escape(name)} a name"):
        resolve_model(f"./{name}", tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, f"./{'x' * 300}"])
def test_a_name_that_no_file_can_have_is_no_directory(tmp_path: Path, name: str):
    with pytest.raises(MergeError, match=r"no directory .*xxx"):
        resolve_model(name, tmp_path)
    reference = ModelReference.parse(name)
    assert local_directories(reference, tmp_path) == []
    assert hub_ids(reference, tmp_path) == ()


def test_a_file_is_no_model(tmp_path: Path):
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(MergeError, match="is a file"):
        resolve_model("model.gguf", tmp_path)


def test_an_unreachable_hub_id_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(MergeError, match="hf download org/name"):
        resolve_model("org/name", tmp_path)
    with pytest.raises(MergeError, match=r"Correct the path$"):
        resolve_model("name", tmp_path)
