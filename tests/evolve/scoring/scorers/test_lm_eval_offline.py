"""Tasks whose datasets are on the hub, where it is not reached: what is cached loads, what is not is said at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
import yaml
from huggingface_hub import constants

from evolve.scoring import LmEvalTask, TaskError, load_scorers
from evolve.scoring.scorers.lm_eval import catalogue
from evolve.scoring.scorers.lm_eval.datasets_of_the_hub import ask_the_hub, explain_missing, may_be_of_the_hub

TASK = {
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two tasks, of which the data of one were fetched from the hub before."""
    rows = [{"question": f"{number}?", "answer": str(number)} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = datasets.load_dataset("json", data_files={"test": str(tmp_path / "rows.jsonl")}, cache_dir=tmp_path / "made")
    kept = Path(made["test"].cache_files[0]["filename"]).parent
    place = tmp_path / "cache" / "org___cached" / "default" / "0.0.0" / ("0" * 40)
    shutil.copytree(kept, place)
    (place / "json-test.arrow").rename(place / "cached-test.arrow")  # files bear the name of the dataset
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in ("cached", "absent"):
        content = yaml.safe_dump({"task": name, "dataset_path": f"org/{name}", **TASK})
        (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
    return tmp_path


def test_what_is_cached_loads_and_what_is_not_is_said_with_what_to_do(cached: Path):
    (scorer,) = load_scorers([LmEvalTask(name="cached")], [cached], seed=0)
    assert len(scorer.item_ids()) == 3
    with pytest.raises(TaskError) as caught:
        load_scorers([LmEvalTask(name="absent")], [cached], seed=0)
    (problem,) = caught.value.problems
    assert (
        f"its dataset org/absent is not in {cached / 'cache'}, and offline mode is set. Run evolve" in problem.message
    )


@pytest.mark.parametrize(
    "said",
    [
        "Couldn't reach 'org/absent' on the Hub (OfflineModeIsEnabled)",
        "Couldn't reach the Hugging Face Hub for dataset 'org/absent': Offline mode is enabled.",
        "Couldn't find cache for org/absent for config 'main'",
    ],
)
def test_the_dataset_is_named_in_whichever_words_it_is_missed(said: str):
    assert (explain_missing(said) or "").startswith("its dataset org/absent is not in ")


def test_a_hub_that_does_not_answer_is_asked_once(
    cached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    ask_the_hub.cache_clear()
    try:
        for _ in range(2):
            with pytest.raises(TaskError, match=r"org/absent is not in .*, and http://127\.0\.0\.1:9 is not reached"):
                load_scorers([LmEvalTask(name="absent")], [cached], seed=0)
        assert capsys.readouterr().err.count("is not reached") == 1
        load_scorers([LmEvalTask(name="cached")], [cached], seed=0)
    finally:
        ask_the_hub.cache_clear()


def test_nothing_is_asked_for_tasks_whose_data_are_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "ask_the_hub", None)
    load_scorers([LmEvalTask(name="demo_sorting")], [], seed=0)
    assert not may_be_of_the_hub({"dataset_path": "json", "dataset_kwargs": {"data_files": "a.jsonl"}})
    assert may_be_of_the_hub({"dataset_path": "org/data"})
    assert may_be_of_the_hub({"include": "common.yaml"})
