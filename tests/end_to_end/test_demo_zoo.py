"""The demo zoo is what its card says: loadable models, offline tasks, correct items kept from training."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
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


def test_tasks_load_offline_from_another_directory(tmp_path: Path) -> None:
    program = f"""
from lm_eval.tasks import TaskManager
tasks = TaskManager(include_path={str(ROOT / "tasks" / "demo")!r}, include_defaults=False).load(
    [f"demo_{{skill}}" for skill in {SKILLS!r}]
)["tasks"]
for name, task in tasks.items():
    document = task.test_docs()[0]
    print(name, len(task.test_docs()), task.doc_to_text(document) == document["question"], task.doc_to_target(document))
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    expected = [f"demo_{skill} {len(_records(skill))} True {_records(skill)[0]['answer']}" for skill in SKILLS]
    assert finished.stdout.splitlines() == expected
