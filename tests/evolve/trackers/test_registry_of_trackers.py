"""What trackers write, each with its real package, offline; and that no callback disturbs a search."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from evolve.config.reader import read_search
from evolve.problems import ConfigError
from evolve.trackers.callback import Callback, metrics_of
from evolve.trackers.callback_watcher import CallbackWatcher
from evolve.trackers.registry import TRACKERS, create_callback, find_callback
from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.trial import Evaluation, Kind, Trial

ZOO = Path(__file__).resolve().parents[3] / "configs" / "demo_zoo"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages


def trial(number: int, objective: float | None, kind: Kind = Kind.CANDIDATE, task: str = "sorting") -> Trial:
    evaluation = Evaluation(number, total_seconds=2.0, failure=None if objective is not None else "no memory")
    scores = {} if objective is None else {task: objective}
    return Trial(number, kind, f"trial {number}", 0, {}, evaluation=evaluation, task_scores=scores, objective=objective)


PARENT, FIRST, SECOND, FAILED = trial(0, 0.25, Kind.PARENT), trial(1, 0.5), trial(2, 0.375), trial(3, None)


def events_of(output: Path) -> list[RunStarted | TrialFinished | RunFinished]:
    output.mkdir()
    recipe = output / "best_recipe.yml"
    recipe.write_text("merge_method: linear\n", encoding="utf-8")
    (output / "report.html").write_text("<html></html>", encoding="utf-8")
    finished = [
        TrialFinished(one, best, PARENT, None, number, 3, 2.0, None)
        for number, (one, best) in enumerate([(PARENT, PARENT), (FIRST, FIRST), (SECOND, FIRST), (FAILED, FIRST)])
    ]
    start = RunStarted(output, ["sorting"], 4, "cma", "references", 3, 1)
    return [start, *finished, RunFinished(output, FIRST, {"recipe": recipe}, "a table")]


def tell(callback: Callback, output: Path) -> None:
    with CallbackWatcher(lambda event: None, [callback]) as watch:
        for event in events_of(output):
            watch(event)


def test_the_best_so_far_and_what_it_is_to_beat_stand_beside_every_trial(tmp_path):
    _, parent, first, second, failed, _ = events_of(tmp_path / "run")
    assert "objective" not in metrics_of(parent)  # a parent is no point of the search's curve
    assert metrics_of(second) == {
        "objective": 0.375,
        "tasks/sorting": 0.375,
        "best/objective": 0.5,
        "best/tasks/sorting": 0.5,
        "best_parent/objective": 0.25,
        "best_parent/tasks/sorting": 0.25,
        "candidates": 2.0,
        "seconds": 2.0,
    }
    assert metrics_of(first)["objective"] == 0.5
    assert "objective" not in metrics_of(failed)


def test_tensorboard_has_scores_by_trial_recipe_card_picture_and_where_the_report_is(tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    told = create_callback(find_callback("tensorboard"), {})
    end = told.on_finish

    def on_finish(event: RunFinished) -> None:
        (event.output / "README.md").write_text("# A card\n", encoding="utf-8")
        image.new("RGB", (7, 5), (255, 0, 0)).save(event.output / "history.png")
        end(event)

    monkeypatch.setattr(told, "on_finish", on_finish)
    tell(told, tmp_path / "run")
    assert capsys.readouterr().err == ""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("objective")] == [(1, 0.5), (2, 0.375)]
    assert [one.value for one in found.Scalars("best/objective")] == [0.25, 0.5, 0.5, 0.5]
    texts = {name: found.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0] for name in ("recipe", "card")}
    assert b"merge_method: linear" in texts["recipe"]
    assert texts["card"] == b"# A card\n"
    report = found.Tensors("report/text_summary")[0].tensor_proto.string_val[0]
    assert str(tmp_path / "run" / "report.html").encode() in report
    (picture,) = found.Images("history")
    assert (picture.width, picture.height) == (7, 5)


def test_mlflow_has_metrics_and_files_and_one_run_for_one_that_goes_on(tmp_path, capsys, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)  # beside a database it keeps the files of runs where it is
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tell(create_callback(find_callback("mlflow"), {"uri": uri, "experiment": "merges"}), tmp_path / "run")
    again = create_callback(find_callback("mlflow"), {"uri": uri, "experiment": "merges"})
    with CallbackWatcher(lambda event: None, [again]) as watch:
        watch(RunStarted(tmp_path / "run", ["sorting"], 4, "cma", "references", 3, 1, resumed=[FIRST]))
    assert "warning: callback" not in capsys.readouterr().err
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("merges").experiment_id])
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "objective")] == [
        (1, 0.5),
        (2, 0.375),
    ]
    assert run.data.params["optimizer"] == "cma"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"best_recipe.yml", "report.html"}


def test_wandb_keeps_an_offline_run_on_disk_in_whatever_order_trials_finish(tmp_path, capsys, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    output = tmp_path / "grüße + more"
    start, *_, end = events_of(output)
    with CallbackWatcher(lambda event: None, [create_callback(find_callback("wandb"), {"mode": "offline"})]) as watch:
        watch(start)
        for one in (FAILED, SECOND, FIRST):
            watch(TrialFinished(one, FIRST, PARENT, None, 1, 3, 2.0, None))
        watch(end)
    assert "warning: callback" not in capsys.readouterr().err
    wandb.teardown()  # its own process writes the file to its end
    (log,) = (output / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"best_parent/objective" in content
    assert b"best_recipe.yml" in content
    # A row's entry in protobuf: the key, then field 16 with its value as JSON, of one letter.
    assert list(dict.fromkeys(re.findall(rb"\x05trial\x82\x01\x01(\d)", content))) == [b"3", b"2", b"1"]


@pytest.mark.parametrize("name", ["gsm8k (5-shot)", "a+b", "a//b"])
def test_mlflow_takes_the_names_of_any_task(name):
    validation = pytest.importorskip("mlflow.utils.validation", reason="mlflow is not installed")
    found = trial(1, 0.5, task=name)
    with pytest.raises(Exception, match="Invalid value"):
        validation._validate_metric_name(f"tasks/{name}")
    for metric in metrics_of(TrialFinished(found, found, PARENT, None, 1, 3, 2.0, None)):
        validation._validate_metric_name(metric)


def test_names_that_become_one_are_told_apart():
    names = ["数学", "科学", "gsm8k (5)", "gsm8k [5]", "grün"]
    one = replace(trial(1, 0.5), task_scores=dict(zip(names, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)))
    found = metrics_of(TrialFinished(one, None, None, None, 1, 3, 2.0, None))
    tasks = {name: value for name, value in found.items() if name.startswith("tasks/")}
    assert list(tasks) == [f"tasks/{name}" for name in ("__", "___2", "gsm8k__5_", "gsm8k__5__2", "grun")]
    assert list(tasks.values()) == [0.1, 0.2, 0.3, 0.4, 0.5]


class Broken(Callback):
    closed = False

    def close(self) -> None:
        self.closed = True
        raise OSError("out of ink")

    def on_trial(self, event: TrialFinished) -> None:
        raise SystemExit("out of paper")


class Counting(Callback):
    def __init__(self, factor: int = 1) -> None:
        self.trials: list[int] = []
        self.closed = False

    def on_trial(self, event: TrialFinished) -> None:
        self.trials.append(event.trial.number)

    def close(self) -> None:
        self.closed = True


def test_a_callback_that_fails_is_said_once_and_dropped_and_the_others_go_on(tmp_path, capsys):
    broken, counting, shown = Broken(), Counting(), []
    with CallbackWatcher(shown.append, [broken, counting]) as watch:
        for event in events_of(tmp_path / "run"):
            watch(event)
    told = capsys.readouterr().err
    assert (told.count("out of paper"), told.count("out of ink"), broken.closed) == (1, 1, True)
    assert (counting.trials, counting.closed, len(shown)) == ([0, 1, 2, 3], True, 6)


def test_a_callback_that_ends_the_process_while_it_is_made_cannot_be_made():
    class Ends(Callback):
        def __init__(self):
            sys.exit()

    with pytest.raises(ConfigError, match=r"Ends cannot be made.*SystemExit"):
        create_callback(Ends, {})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("tensorbord", "Did you mean 'tensorboard'"),
        ("no_such_module:Mine", "no module 'no_such_module'"),
        ("mine:Nothing", "has no function 'Nothing'"),
        ("mine:function", "mine:function is no subclass of evolve.Callback"),
        ({"name": "mine:Mine", "options": {"colour": 1}}, "colour"),
        ("mine:Mine", None),
        ({"name": "mine:Mine", "options": {"loud": True}}, None),
    ],
)
def test_a_search_names_callbacks_of_ones_own_and_mistakes_in_them_are_found(tmp_path, entry, message, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(
        "import evolve\n"
        "class Mine(evolve.Callback):\n    def __init__(self, loud=False): self.loud = loud\n"
        "def function(): pass\n"
    )
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(ZOO / "base")}],
        "parameters": {"weight": {"low": 0, "high": 1}},
    }
    search = tmp_path / "search.yml"
    search.write_text(yaml.safe_dump({"recipe": recipe, "tasks": ["demo_sorting"], "callbacks": [entry]}))
    problems = [str(problem) for problem in read_search(search).problems]
    assert len(problems) == (message is not None), problems
    assert message is None or message in problems[0]


def test_every_tracker_is_an_extra_of_its_name():
    import tomllib

    project = tomllib.loads((ZOO.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert TRACKERS.keys() <= project["optional-dependencies"].keys()
