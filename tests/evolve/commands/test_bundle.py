"""`evolve bundle`: what a run was made from, which finds the same when it is run elsewhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from demo_search import demo_search

import evolve
from evolve.actions.bundle import bundle_run
from evolve.actions.rerun_bundle import compare_with_bundle, differs_from_bundle, known_warm_starts
from evolve.commands.cli import main
from evolve.config.reader import read_search
from evolve.preflight.files_read import files_read
from evolve.preflight.prepare import prepare
from evolve.problems import ConfigError
from evolve.search_loop.opening import WARM_STARTS
from evolve.trials.bundle_directory import BundleDirectory
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from merge_core import MergeError
from merge_core.ownership import list_files

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


def variant(mine, run, **changes):
    """A copy of the run whose search says something else."""
    shutil.copytree(mine, run)
    content = yaml.safe_load((run / "search.yml").read_text(encoding="utf-8"))
    (run / "search.yml").write_text(
        yaml.safe_dump({**content, "relative_to": str(mine.parent), **changes}), encoding="utf-8"
    )
    return run


@pytest.mark.parametrize("named", ["{}/list.txt", "../{0.name}/list.txt"])
def test_a_file_whose_name_leads_out_is_told(mine, tmp_path, named):
    tasks = [{"python": "own_scorer:likes", "items": named.format(mine.parent)}]
    with pytest.raises(ConfigError, match=r"tasks\[0\].items: .*\.txt leads out of the bundle"):
        bundle_run(variant(mine, tmp_path / "run", tasks=tasks), tmp_path / "bundle")
    with pytest.raises(ConfigError, match="holds no run"):
        bundle_run(tmp_path, None)


def test_data_of_a_task_that_lead_out_are_told(mine, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "data.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 20, encoding="utf-8")
    task = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": "../data.jsonl"}},
        "validation_split": "validation",
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks" / "own.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    run = variant(mine, tmp_path / "run", tasks=["own"], task_search_path=[str(tmp_path / "tasks")])
    with pytest.raises(ConfigError, match=r"\.\./data.jsonl: leads out of the bundle"):
        bundle_run(run, tmp_path / "bundle")


def test_of_files_of_one_name_that_of_the_first_place_goes_along(mine, tmp_path):
    for place in "ab":
        (tmp_path / place).mkdir()
        (tmp_path / place / "nouns.txt").write_text("\n".join(f"{place}{n}" for n in range(16)), encoding="utf-8")
    scorer = SCORER.replace("from words import words", f"open({str(tmp_path / 'b' / 'nouns.txt')!r}).close()")
    (tmp_path / "a" / "both.py").write_text(scorer, encoding="utf-8")
    paths = [str(tmp_path / place) for place in "ab"]
    tasks = [{"python": "both:likes", "items": "nouns.txt"}]
    bundle_run(variant(mine, tmp_path / "run", tasks=tasks, task_search_path=paths), tmp_path / "bundle")
    kept = BundleDirectory(tmp_path / "bundle").tasks / "nouns.txt"
    assert kept.read_bytes() == (tmp_path / "a" / "nouns.txt").read_bytes()


def renamed(mine, prefix):
    """The recipe of the run with its models by other names of the same directories."""
    text = (mine / "search.yml").read_text(encoding="utf-8").replace("configs/demo_zoo", f"{prefix}configs/demo_zoo")
    return yaml.safe_load(text)["recipe"]


def test_models_that_go_along_keep_their_names_which_masks_are_drawn_by(mine, tmp_path):
    recipe = renamed(mine, "./")
    bundle_run(variant(mine, tmp_path / "run", recipe=recipe), tmp_path / "bundle", models=True)
    bundle = BundleDirectory(tmp_path / "bundle")
    assert yaml.safe_load(bundle.search.read_text(encoding="utf-8"))["recipe"] == recipe
    assert (bundle.path / "configs/demo_zoo/base/model.safetensors").is_file()
    assert any(name.startswith("model ./configs/demo_zoo/base: ") for name in bundle.read_facts()["depends_on"])


def test_a_disk_that_is_full_is_told_in_one_line(mine, tmp_path, monkeypatch):
    copyfile = shutil.copyfile

    def full(source, target, **more):
        if str(source).endswith(".safetensors"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return copyfile(source, target, **more)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(MergeError, match=r"bundle: cannot be written: No space left on device\. Free some space"):
        bundle_run(mine, tmp_path / "bundle", models=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", [f"{ROOT}/", f"../{ROOT.name}/"])
def test_models_whose_names_lead_out_do_not_go_along(mine, tmp_path, prefix):
    run = variant(mine, tmp_path / "run", recipe=renamed(mine, prefix))
    with pytest.raises(ConfigError, match=r"--models: .*/base: such a name leads out of the bundle"):
        bundle_run(run, tmp_path / "bundle", models=True)
    assert len(bundle_run(run, tmp_path / "bundle").missing) == 3


def test_runs_whose_best_stands_for_a_model_go_along(mine, tmp_path):
    earlier = mine.parent / "earlier"
    demo_search(earlier.with_suffix(".yml"), 0.5, experts=("shift", "reversal"), items=(2, 2))
    best = yaml.safe_load(earlier.with_suffix(".yml").read_text(encoding="utf-8"))["recipe"]
    earlier.mkdir()
    (earlier / "best_recipe.yml").write_text(yaml.safe_dump(best), encoding="utf-8")
    (earlier / "search.yml").write_text("storage: postgresql://me:secret@host/runs\nseed: 0\n", encoding="utf-8")
    list_files(earlier)
    recipe = renamed(mine, "")
    recipe["models"][0]["model"] = "earlier"
    run = variant(mine, tmp_path / "run", recipe=recipe)
    made = bundle_run(run, tmp_path / "bundle")
    assert sorted(made.missing) == [f"configs/demo_zoo/{name}" for name in ("base", "reversal", "shift")]
    assert made.files == ["list.txt", "own_scorer.py", "words.py"]
    bundle = BundleDirectory(tmp_path / "bundle")
    inside, outside = (read_search(file).recipe.run_models for file in (bundle.search, run / "search.yml"))
    assert list(inside) == ["earlier"]
    assert inside == outside
    assert not any("secret" in file.read_text() for file in bundle.path.rglob("*.yml"))
    recipe["models"][0]["model"] = f"../{mine.parent.name}/earlier"
    with pytest.raises(ConfigError, match=r"earlier: such a name of a run leads out of the bundle"):
        bundle_run(variant(mine, tmp_path / "out", recipe=recipe), tmp_path / "other")


def test_runs_that_a_search_begins_from_are_told_and_what_is_the_users_stays(mine, tmp_path):
    run = variant(
        mine, tmp_path / "run", warm_start=["earlier"], ray={"address": "ray://me"}, callbacks=["tensorboard"]
    )
    assert list(bundle_run(run, tmp_path / "bundle").earlier) == ["earlier"]
    search = yaml.safe_load((tmp_path / "bundle" / "search.yml").read_text(encoding="utf-8"))
    assert search["warm_start"] == ["earlier"]
    assert not {"ray", "callbacks"} & search.keys()


def test_where_earlier_runs_ended_goes_along(mine, tmp_path):
    run = variant(mine, tmp_path / "run", warm_start=["earlier"], storage=str(tmp_path / "journal.log"))
    shutil.copy(mine.parent / "elsewhere.log", tmp_path / "journal.log")
    noted = [["the best of earlier", [0.25, 0.5], 2, 0]]
    Journal.open(str(tmp_path / "journal.log"), create=True).note(WARM_STARTS, noted)
    assert not bundle_run(run, tmp_path / "bundle").earlier
    bundle = BundleDirectory(tmp_path / "bundle")
    prepared = prepare(read_search(run / "search.yml"))
    assert known_warm_starts(bundle, prepared) == noted
    for other in ([], [["of another search", [0.25], 1, 0]], [["outside", [0.5, 2.0], 2, 0]], [["none"]], 3):
        bundle.facts.write_text(json.dumps({WARM_STARTS: other}), encoding="utf-8")
        assert known_warm_starts(bundle, prepared) is None


def test_a_table_of_trials_that_makes_no_sense_is_said(mine, tmp_path):
    bundle, run = BundleDirectory(tmp_path), RunDirectory(mine)
    bundle.original.mkdir()
    for content in (b"\xff\xfe", b"number\n" + b"x" * 200_000, b"number\n1,2,3\n"):
        (bundle.original / "trials.csv").write_bytes(content)
        assert "bundle" in compare_with_bundle(bundle, run)


def test_facts_that_make_no_sense_are_one_difference_and_not_one_for_every_file(mine, tmp_path):
    bundle, prepared = BundleDirectory(tmp_path), prepare(read_search(mine / "search.yml"))
    for content in ('{"depends_on": [1]}', "{", "[]"):
        bundle.facts.write_text(content, encoding="utf-8")
        assert bundle.depends_on() == {}
        assert [line.partition(":")[0] for line in differs_from_bundle(bundle, prepared)] == [
            "bundle.json was damaged or changed"
        ]
    bundle.facts.unlink()
    os.mkfifo(bundle.facts)  # is not waited for
    assert bundle.read_facts() == {}


def test_a_bundle_is_never_run_into_itself(mine, tmp_path, monkeypatch, capsys):
    bundle_run(mine, tmp_path / "runs" / "mine-bundle", models=True)
    monkeypatch.chdir(tmp_path)
    begun = []

    def note(prepared, directory, *_, **__):
        begun.append(directory)
        raise ConfigError("not now")

    monkeypatch.setattr("evolve.actions.run.run", note)
    for search in ("runs/mine-bundle", "runs/mine-bundle/search.yml"):
        for module in ("own_scorer", "words"):  # as in another process
            monkeypatch.delitem(sys.modules, module)
        with pytest.raises(SystemExit):
            main(["run", search])
        with pytest.raises(SystemExit):
            main(["run", search, "--output", "runs/../runs/mine-bundle"])
        assert "is the bundle that is run" in capsys.readouterr().err
    assert begun == [Path("runs/mine-bundle-again")] * 2


def test_files_that_are_read_are_told_apart_from_those_that_are_written(tmp_path):
    (tmp_path / "a").write_text("read", encoding="utf-8")
    with files_read() as found:
        (tmp_path / "a").read_text(encoding="utf-8")
        (tmp_path / "b").write_text("written", encoding="utf-8")
    (tmp_path / "b").read_text(encoding="utf-8")
    assert tmp_path / "a" in found
    assert tmp_path / "b" not in found
