"""`evolve bundle`: what a run was made from, which finds the same when it is run elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from demo_search import demo_search

import evolve
from evolve.actions.bundle import bundle_run
from evolve.actions.rerun_bundle import compare_with_bundle, differs_from_bundle
from evolve.config.reader import read_search
from evolve.preflight.files_read import files_read
from evolve.preflight.prepare import prepare
from evolve.problems import ConfigError
from evolve.trials.bundle_directory import BundleDirectory
from evolve.trials.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[3]
SCORER = """
from words import words

def likes(model, items):
    return model.loglikelihood([(word, word[0]) for word in items])
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries under a search
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A run of two candidates, scored by a function that lies beside its search with all that it needs."""
    place = tmp_path_factory.mktemp("mine")
    (place / "own_scorer.py").write_text(SCORER, encoding="utf-8")
    (place / "words.py").write_text("def words():\n    return open('list.txt').read().split()\n", encoding="utf-8")
    (place / "list.txt").write_text("\n".join(f"{a}{a}{b}" for a in "abcd" for b in "efgh"), encoding="utf-8")
    (place / "secret.txt").write_text("nobody reads this", encoding="utf-8")
    search = demo_search(
        place / "search.yml",
        {"low": 0.0, "high": 1.0},
        items=(6, 6),
        start="references",
        optimizer="random",
        budget={"evaluations": 2},
        validation={"finalists": 0},
        storage=str(place / "elsewhere.log"),
    )
    content = yaml.safe_load(search.read_text(encoding="utf-8"))
    content["tasks"] = [{"python": "own_scorer:likes", "items": "list.txt"}]
    search.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        evolve.search(search, directory=place / "run", progress="none")
        yield place / "run"


def test_a_bundle_has_what_the_search_reads_and_nothing_else_of_the_user(mine, tmp_path):
    made = bundle_run(mine, tmp_path / "bundle")
    bundle = BundleDirectory(tmp_path / "bundle")
    assert made.files == ["list.txt", "own_scorer.py", "words.py"]
    assert sorted(file.name for file in bundle.tasks.iterdir()) == made.files
    assert sorted(made.missing) == [f"configs/demo_zoo/{name}" for name in ("base", "shift", "sorting")]
    search = yaml.safe_load(bundle.search.read_text(encoding="utf-8"))
    assert search["task_search_path"] == ["tasks"]
    assert not {"storage", "output"} & search.keys()
    keys = json.loads(bundle.facts.read_text(encoding="utf-8"))["depends_on"]
    assert "model configs/demo_zoo/base: model.safetensors" in keys
    assert (bundle.original / "best_recipe.yml").read_bytes() == (mine / "best_recipe.yml").read_bytes()


def test_it_finds_the_same_elsewhere_and_says_what_is_not_as_it_was(mine, tmp_path, monkeypatch):
    bundle_run(mine, tmp_path / "bundle", models=True, journal=True)
    shutil.move(tmp_path / "bundle", tmp_path / "moved")
    bundle = BundleDirectory(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)  # where there is no model but those inside
    for module in ("own_scorer", "words"):  # as in another process
        monkeypatch.delitem(sys.modules, module)
    found = evolve.search(bundle.search, directory=tmp_path / "again", progress="none")
    again = RunDirectory(tmp_path / "again")
    assert differs_from_bundle(bundle, prepare(read_search(bundle.search))) == []
    assert compare_with_bundle(bundle, again).startswith(f"all {len(found.trials)} trials are those of the bundle")
    trials = again.trials.read_text(encoding="utf-8")
    again.trials.write_text(trials.replace("uniform merge", "another"), encoding="utf-8")
    assert "the first 3 are the same. In the next, label was uniform merge, is another" in compare_with_bundle(
        bundle, again
    )
    with (bundle.tasks / "list.txt").open("a", encoding="utf-8") as stream:
        stream.write("\nxxy")
    changed = differs_from_bundle(bundle, prepare(read_search(bundle.search)))
    assert changed == ["task 'likes': items has changed", "task 'likes': list.txt has changed"]


def test_a_file_that_only_this_machine_has_is_told(mine, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(mine, run)
    content = yaml.safe_load((run / "search.yml").read_text(encoding="utf-8"))
    content["tasks"] = [{"python": "own_scorer:likes", "items": str(mine.parent / "list.txt")}]
    (run / "search.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tasks\[0\].items: .*list.txt is where it is on this machine alone"):
        bundle_run(run, tmp_path / "bundle")
    with pytest.raises(ConfigError, match="holds no run"):
        bundle_run(tmp_path, None)


def test_files_that_are_read_are_told_apart_from_those_that_are_written(tmp_path):
    (tmp_path / "a").write_text("read", encoding="utf-8")
    with files_read() as found:
        (tmp_path / "a").read_text(encoding="utf-8")
        (tmp_path / "b").write_text("written", encoding="utf-8")
    (tmp_path / "b").read_text(encoding="utf-8")
    assert tmp_path / "a" in found
    assert tmp_path / "b" not in found
