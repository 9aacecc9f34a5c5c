"""`evolve run` with scoring of the user's own, on the demo zoo's real models."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from finished_runs import trials
from judge_stand_in import completion, serving

from evolve.commands import cli

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["items.search=10", "items.held_out=10", "budget.evaluations=12", "validation.finalists=2", "start.steps=2"]
SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "PASSWORD")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray and the libraries under it
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def evolve(*arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return stopped.value.code


def run(config, output, *arguments, settings=SMALL):
    sets = [text for setting in settings for text in ("--set", setting)]
    return evolve("run", config, "--output", output, *sets, *arguments)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped configuration, in small."""
    output = tmp_path_factory.mktemp("runs") / "own"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name in SECRETS:
            patch.setenv(name, "not-for-anyone")
        assert run("configs/own_scoring.yml", output) == 0
    return output


def test_nothing_of_the_environment_is_in_what_a_search_leaves(shipped):
    files = [path for path in shipped.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if b"not-for-anyone" in path.read_bytes()]


def test_the_shipped_configuration_runs_and_its_best_is_feasible(shipped):
    rows = trials(shipped)
    assert sum(row["kind"] == "candidate" for row in rows) == 12
    infeasible = [row for row in rows if row["state"] == "infeasible"]
    assert infeasible
    for row in rows:
        outside = float(row["constraint.repeats_a_letter"]) > 0.6
        assert outside == (row["state"] == "infeasible") == (row["objective"] == "") == (float(row["violation"]) > 0)
        assert all(row[f"score.{name}"] for name in ("sorting", "reversal", "shifted"))
    summary = json.loads((shipped / "run.json").read_text())
    assert rows[summary["best"]]["state"] == "complete"
    assert summary["infeasible"] == len(infeasible)
    assert "(infeasible)" in (shipped / "README.md").read_text()


def test_the_recorded_search_is_sound_where_it_lies(shipped):
    assert evolve("check", shipped / "search.yml") == 0
    recorded = yaml.safe_load((shipped / "search.yml").read_text())
    assert (shipped / recorded["relative_to"]).resolve() == ROOT / "configs"


def test_status_counts_what_was_infeasible(shipped, capsys):
    assert evolve("status", shipped) == 0
    assert "infeasible" in capsys.readouterr().out


SEARCH = {
    "recipe": {
        "merge_method": "task_arithmetic",
        "base_model": "configs/demo_zoo/base",
        "models": [{"model": "configs/demo_zoo/sorting", "parameters": {"weight": {"low": 0.0, "high": 1.5}}}],
        "dtype": "bfloat16",
    },
    "items": {"search": 4, "held_out": 4},
    "budget": {"evaluations": 6},
    "start": "references",
    "optimizer": {"population_size": 6},
    "workers": {"count": 1, "cpus": 1},
}
FUNCTIONS = '''
seen = 0

def moody(model, items):
    """Has no score for its third item on every other model."""
    global seen
    seen += 1
    return [float("nan") if place == 2 and seen % 2 == 0 else 0.5 for place, _ in enumerate(items)]

def lengths(model, items):
    import own_constants

    return [len(item) + 0.5 + own_constants.BONUS for item in items]

def broken(model, items):
    return [1 / 0 for item in items]

def never(answers):
    return [1.0 for _ in answers]

def says(model, items):
    return [len(answer) for answer in model.generate([f"sorting:{item}bcdef=" for item in "abcd"], max_new_tokens=2)]
'''


@pytest.fixture
def search(tmp_path):
    def write(**changes):
        (tmp_path / "own_functions.py").write_text(FUNCTIONS)
        sys.modules.pop("own_functions", None)
        path = tmp_path / "search.yml"
        path.write_text(yaml.safe_dump({**SEARCH, **changes}))
        return path

    return write


def test_a_candidate_whose_item_has_no_score_is_recorded_as_failed_with_the_item(search, tmp_path):
    path = search(tasks=[{"python": "own_functions:moody", "items": 8}])
    assert run(path, tmp_path / "out", settings=()) == 0
    rows = trials(tmp_path / "out")
    failed = [row for row in rows if row["state"] == "failed"]
    assert 0 < len(failed) < len(rows)
    for row in failed:
        assert row["objective"] == ""
        assert row["failure"].startswith("task 'moody': item ")
        assert row["failure"].endswith("the score is nan, not a finite number")


def own_search(search, tmp_path):
    """A search by a function whose module imports one from beside it, and by a task with a prompt, on copied models."""
    (tmp_path / "words.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\n")
    (tmp_path / "own_constants.py").write_text("BONUS = 0.0\n")
    for model in ("base", "sorting"):
        shutil.copytree(ROOT / "configs" / "demo_zoo" / model, tmp_path / model)
    for name, copy in {"sorting.yaml": "asked.yaml", "load.py": "load.py", "sorting.jsonl": "sorting.jsonl"}.items():
        shutil.copyfile(ROOT / "tasks" / "demo" / name, tmp_path / copy)
    return search(
        recipe=json.loads(json.dumps(SEARCH["recipe"]).replace("configs/demo_zoo/", "./")),
        tasks=[
            {"python": "own_functions:lengths", "items": "words.txt"},
            {"name": "asked.yaml", "alias": "asked"},
        ],
        constraints=[{"python": "own_functions:never", "answers_of": "asked", "at_most": 1.0}],
        task_search_path=[str(tmp_path)],
    )


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    for name in ("own_functions", "own_constants"):
        sys.modules.pop(name, None)


CHANGES = {
    "task 'lengths': items": lambda at: edit(at / "words.txt", "h", "hh"),
    "task 'lengths': own_constants.py": lambda at: edit(at / "own_constants.py", "0.0", "0.1"),
    "task 'lengths': own_functions.py": lambda at: edit(at / "own_functions.py", "0.5", "0.25"),
    "constraint 'never': own_functions.py": lambda at: edit(at / "own_functions.py", "[1.0", "[0.5"),
    "task 'asked': doc_to_text": lambda at: edit(at / "asked.yaml", "{{question}}", "{{question}} "),
    "model ./sorting: model.safetensors": lambda at: shutil.copyfile(
        ROOT / "configs" / "demo_zoo" / "reversal" / "model.safetensors", at / "sorting" / "model.safetensors"
    ),
    "model ./base: config.json": lambda at: edit(at / "base" / "config.json", "{", "{ "),
}


def test_a_run_is_not_continued_with_scores_of_something_else_unless_all_are_scored_anew(search, tmp_path, capsys):
    path, output = own_search(search, tmp_path), tmp_path / "out"
    kept = tmp_path / "kept"
    assert run(path, output, settings=()) == 0
    assert run(path, output, settings=()) == 0
    before = trials(output)
    shutil.copytree(tmp_path, kept, ignore=shutil.ignore_patterns("kept"))
    capsys.readouterr()
    for what, change in CHANGES.items():
        change(tmp_path)
        assert run(path, output, settings=()) == 2
        said = capsys.readouterr().err
        assert f"error: {what} has changed" in said
        assert f"The {len(before)} results of this run were scored with what it was before" in said
        assert trials(output) == before
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
        for name in ("own_functions", "own_constants"):
            sys.modules.pop(name, None)
    CHANGES["task 'lengths': own_constants.py"](tmp_path)
    assert run(path, output, "--rescore", settings=()) == 0
    assert "task 'lengths': own_constants.py has changed; scored anew" in capsys.readouterr().err
    assert trials(output) != before
    assert run(path, tmp_path / "fresh", settings=()) == 0
    assert trials(output) == trials(tmp_path / "fresh")
    backend = optuna.storages.journal.JournalFileBackend(str(output / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    old, new = (optuna.load_study(study_name=name, storage=storage) for name in ("evolve", "evolve-2"))
    assert [trial.user_attrs["result"]["objective"] or "" for trial in old.trials] == [
        float(row["objective"]) if row["objective"] else "" for row in before
    ]
    assert len(new.trials) == len(before)


def test_before_anything_is_scored_a_function_may_be_mended(search, tmp_path, capsys):
    path = search(tasks=[{"python": "own_functions:broken", "items": 8}])
    assert run(path, tmp_path / "out", settings=()) == 1
    edit(tmp_path / "own_functions.py", "1 / 0", "0.5")
    assert run(path, tmp_path / "out", settings=()) == 0
    assert "own_functions.py has changed; nothing was scored before" in capsys.readouterr().err
    assert {row["state"] for row in trials(tmp_path / "out")} == {"complete"}


def test_a_run_of_which_no_model_can_be_scored_has_a_report_with_the_reason(search, tmp_path):
    path = search(tasks=[{"python": "own_functions:broken", "items": 8}])
    assert run(path, tmp_path / "out", settings=()) == 1
    report = (tmp_path / "out" / "report.html").read_text()
    assert "No parent could be scored: see what failed, below." in report
    assert "ZeroDivisionError" in report


def test_skipped_items_are_counted(search, tmp_path):
    path = search(tasks=[{"python": "own_functions:moody", "items": 8, "on_item_error": "skip"}])
    assert run(path, tmp_path / "out", settings=()) == 0
    rows = trials(tmp_path / "out")
    assert {row["skipped_items"] for row in rows} == {"0", "1"}
    assert all(row["state"] == "complete" for row in rows)


def test_without_a_feasible_candidate_there_is_no_model_and_the_nearest_is_named(search, tmp_path, capsys):
    constraint = {"python": "own_functions:never", "answers_of": "says", "at_most": 0.5}
    path = search(tasks=[{"python": "own_functions:says", "items": 8}], constraints=[constraint])
    assert run(path, tmp_path / "out", settings=()) != 0
    said = capsys.readouterr().err
    assert "no candidate is feasible; the nearest is candidate 1: never 1.0000 (violation 1)" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "model").exists()


def test_an_endpoint_that_is_down_is_one_line_before_anything_is_scored(search, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    judge = {
        "judge": {"base_url": url, "model": "wise", "backoff_seconds": 0.01},
        "items": str(ROOT / "tasks" / "judge" / "questions.jsonl"),
        "prompt": "{{ question }} {{ answer }}",
        "parse": {"regex": r"(\d)"},
        "range": {"low": 0, "high": 9},
        "cache": "cache.sqlite",
    }
    path = search(tasks=[judge])
    assert run(path, tmp_path / "out", settings=()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"error: task 'judge': judge: {url}/chat/completions: no answer in 2 tries: ConnectError")
    assert not (tmp_path / "out" / "journal.log").exists()


def test_a_judge_that_breaks_down_fails_candidates_and_its_key_is_in_no_file(search, tmp_path, capsys, monkeypatch):
    key = "sk-nobody-may-read-this-0123456789"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", key)
    (tmp_path / "words.jsonl").write_text(
        "".join(json.dumps({"question": f"sorting:{a}bcdef="}) + "\n" for a in "ghijklmn")
    )
    with serving() as endpoint:
        endpoint.answer = lambda body: (
            completion(f"Mark: {len(endpoint.bodies) % 10}")
            if len(endpoint.bodies) < 10  # the probe and the parents; later answers that are new find nobody
            else (500, {}, f"no more; your key was {key}")
        )
        judge = {
            "base_url": endpoint.url,
            "model": "wise",
            "api_key_env": "JUDGE_KEY",
            "retries": 1,
            "backoff_seconds": 0,
        }
        task = {
            "judge": judge,
            "items": "words.jsonl",
            "prompt": "{{ question }} {{ answer }}",
            "parse": {"regex": r"Mark: (\d+)"},
            "range": {"low": 0, "high": 9},
            "max_new_tokens": 8,
            "cache": "cache.sqlite",
        }
        path = search(tasks=[task], validation={"finalists": 0}, budget={"evaluations": 12})
        code = run(path, tmp_path / "out", settings=())
        assert set(endpoint.keys) == {f"Bearer {key}"}
    assert code == 0
    rows = trials(tmp_path / "out")
    failed = [row for row in rows if row["state"] == "failed"]
    assert 0 < len(failed) < len(rows)
    assert all("no answer in 2 tries: HTTP 500: no more; your key was ***" in row["failure"] for row in failed)
    said = capsys.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [content for content in [*written, said.out.encode(), said.err.encode()] if key.encode() in content]
