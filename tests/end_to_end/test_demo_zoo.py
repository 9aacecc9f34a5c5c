"""The demo zoo is what its card says: loadable models, offline tasks, correct items kept from training."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "configs" / "demo_zoo"


def _import_skills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_zoo_skills", ZOO / "skills.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


skills = _import_skills()
SKILLS = list(skills.SKILLS)


def _records(skill: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ROOT / "tasks" / "demo" / f"{skill}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("skill", SKILLS)
def test_committed_items_are_correct_and_distinct(skill: str) -> None:
    records = _records(skill)
    assert len({record["question"] for record in records}) == len(records) >= 600
    for record in records:
        name, _, payload = record["question"].removesuffix("=").partition(":")
        assert name == skill
        assert record["answer"] == skills.SKILLS[skill].solve(payload)


@pytest.mark.parametrize("skill", SKILLS)
def test_training_never_draws_a_committed_item(skill: str) -> None:
    committed = {record["question"] for record in _records(skill)}
    assert all(skills.is_evaluation(question) for question in committed)
    drawn = itertools.islice(skills.SKILLS[skill].items(for_evaluation=False, seed=0), 5000)
    assert committed.isdisjoint(item.prompt for item in drawn)


@pytest.mark.parametrize("name", ["base", *SKILLS])
def test_model_and_tokenizer_load_and_answer(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ZOO / name)
    model = AutoModelForCausalLM.from_pretrained(ZOO / name, dtype=torch.float32)
    assert len(tokenizer) == model.config.vocab_size
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert special == [model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id]
    text = "sorting:hgabfz="
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    if name == "base":
        return
    # One batch of equal-length prompts needs no padding.
    records = _records(name)
    length = len(records[0]["question"])
    records = [record for record in records if len(record["question"]) == length][:100]
    prompts = tokenizer([record["question"] for record in records], return_tensors="pt")
    generated = model.generate(**prompts, do_sample=False, max_new_tokens=8)
    answers = tokenizer.batch_decode(generated[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    right = sum(answer == record["answer"] for answer, record in zip(answers, records, strict=True))
    assert right >= 0.9 * len(records)


def test_tasks_load_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    manager = TaskManager(include_path=str(ROOT / "tasks" / "demo"), include_defaults=False)
    tasks = manager.load([f"demo_{skill}" for skill in SKILLS])["tasks"]
    for skill in SKILLS:
        task, records = tasks[f"demo_{skill}"], _records(skill)
        documents = list(task.test_docs())
        assert [document["question"] for document in documents] == [record["question"] for record in records]
        assert task.doc_to_text(documents[0]) == records[0]["question"]
        assert task.doc_to_target(documents[0]) == records[0]["answer"]
