"""Small random models, a character tokenizer and local lm-eval tasks."""

from __future__ import annotations

import json
import os
import random
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from evolve.scoring.backends.hf import HFBackend

pytest.register_assert_rewrite("backend_contract")

ITEMS = 24

# lm-eval and the libraries under it warn about themselves; what this package does still fails on a warning.
_THIRD_PARTY_WARNINGS = (
    "ignore::DeprecationWarning:lm_eval.*",
    "ignore::DeprecationWarning:datasets.*",
    "ignore::ResourceWarning:datasets.*",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in _THIRD_PARTY_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No hub, and the data set cache in a temporary directory."""
    import datasets

    os.environ["HF_HUB_OFFLINE"] = "1"
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One token per printable character, with BOS, EOS and a chat template."""
    characters = ["<s>", "</s>", "<unk>", *string.printable[:95], "\n"]
    rust = Tokenizer(models.WordLevel({text: i for i, text in enumerate(characters)}, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    rust.decoder = decoders.Fuse()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return fast


def tiny_model(tokenizer: Any, seed: int = 0, **settings: Any) -> Any:
    """A random Llama whose answers vary from prompt to prompt."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.4,
            **settings,
        }
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., Any]:
    return lambda **settings: tiny_model(tokenizer, **settings)


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    return tiny_model(tokenizer)


@pytest.fixture
def backend(model: Any, tokenizer: Any) -> HFBackend:
    # Few tokens at a time, so that a handful of items needs several batches.
    return HFBackend(model, tokenizer, "cpu", max_batch_tokens=600)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from threads, and lose much where other processes compete for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Reference = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def lm_eval_results(model: Any, tokenizer: Any) -> Reference:
    """What `lm_eval.simple_evaluate` gives for a task with its own model class: the oracle."""
    import lm_eval
    import lm_eval.evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # It lists the installed packages in a subprocess, which takes a second.
    lm_eval.evaluator.add_env_info = lambda results: None

    def evaluate(directory: Path, name: str, **options: Any) -> dict[str, Any]:
        thinking = {name: options.pop(name) for name in ("think_end_token",) if name in options}
        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=5, **thinking)
        before = Path.cwd()
        os.chdir(directory)
        try:
            manager = TaskManager(
                include_path=str(directory), include_defaults=False, metadata=options.pop("metadata", None)
            )
            options.setdefault("bootstrap_iters", 0)
            results: dict[str, Any] = lm_eval.simple_evaluate(
                model=harness, tasks=[name], task_manager=manager, fewshot_random_seed=7, **options
            )
        finally:
            os.chdir(before)
        return results

    return evaluate


def _questions(generator: random.Random) -> list[dict[str, Any]]:
    rows = []
    for _ in range(ITEMS):
        first, second = generator.randrange(100), generator.randrange(10)
        word = "".join(generator.choices(string.ascii_lowercase, k=generator.randint(1, 12)))
        choices = [str(first + second + offset) for offset in (0, 1, 10, 7)]
        rows.append(
            {
                "question": f"{word}: {first} plus {second}?",
                "answer": str(first + second),
                "choices": choices,
                "label": generator.randrange(4),
                "text": " ".join(generator.choices(["to", "be", "or", "not", word], k=generator.randint(3, 40))),
            }
        )
    return rows


DATA = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
}
BASE = {**DATA, "test_split": "test", "fewshot_split": "train", "num_fewshot": 0}
TASKS: dict[str, dict[str, Any]] = {
    "generate": {
        "output_type": "generate_until",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n", "7a", "Q:"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {
                "name": "first-letter",
                "filter": [
                    {"function": "regex", "regex_pattern": "([a-zA-Z0-9])"},
                    {"function": "take_first"},
                ],
            },
            {"name": "whole", "filter": [{"function": "take_first"}]},
        ],
    },
    "choose": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}} ",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
            {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
        ],
    },
    "decide": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["nope", "yes"],
        "doc_to_target": "{{label % 2}}",
        "metric_list": [
            {"metric": name, "higher_is_better": name != "brier_score"}
            for name in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "f1", "mcc", "brier_score", "exact_match")
        ],
    },
    "fill": {
        "output_type": "multiple_choice",
        "doc_to_text": "!function fill.number",
        "doc_to_choice": "!function fill.beginnings",
        "doc_to_target": "!function fill.ending",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "translate": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "!function fill.overlapping",
        "gen_prefix": "So:",
        "generation_kwargs": {"until": ["</s>"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": name} for name in ("bleu", "chrf", "chrf++", "ter")],
    },
    "vote": {
        "output_type": "generate_until",
        "repeats": 3,
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [" "], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
            {"metric": "!function fill.lengths", "aggregation": "!function fill.spread", "higher_is_better": False},
        ],
        "filter_list": [
            {"name": "vote", "filter": [{"function": "majority_vote"}, {"function": "take_first"}]},
            {"name": "lower", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
        ],
    },
    "complete": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{answer}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": "word_perplexity"},
            {"metric": "byte_perplexity"},
            {"metric": "bits_per_byte"},
        ],
    },
}


# What YAML cannot say: a task whose choices are its prompts, references that share pieces with what the random model
# writes, and a metric with its own aggregation.
FILL = """
import statistics


def number(doc):
    return doc["label"]


def beginnings(doc):
    return [f"{doc['question']} {choice}" for choice in doc["choices"]]


def ending(doc):
    return "is right"


def overlapping(doc):
    return f"{doc['text']} {doc['question']} {doc['answer']}"


def lengths(references, predictions, **kwargs):
    return [len(references[0]), len(predictions[0])]


def spread(items):
    return statistics.pstdev(theirs - ours for ours, theirs in items)
"""


@pytest.fixture(scope="session")
def task_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one task of each kind, a group and a tag, and their data beside them."""
    directory = tmp_path_factory.mktemp("tasks")
    generator = random.Random(0)
    for split in ("train", "test"):
        lines = [json.dumps(row) for row in _questions(generator)]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    for name, settings in TASKS.items():
        content = {"task": name, **BASE, **settings}
        text = yaml.safe_dump(content)
        (directory / f"{name}.yaml").write_text(re.sub(r"'(!function [a-z.]+)'", r"\1", text))
    (directory / "fill.py").write_text(FILL)
    for name, shots in (("first_half", 0), ("second_half", 2)):
        content = {"task": name, "tag": "halves", **BASE, **TASKS["choose"], "num_fewshot": shots}
        content["process_docs"] = f"!!{name}"
        text = yaml.safe_dump(content).replace(f"'!!{name}'", f"!function halves.{name}")
        (directory / f"{name}.yaml").write_text(text)
    (directory / "halves.py").write_text(
        "def first_half(docs):\n    return docs.select(range(5))\n\n\n"
        "def second_half(docs):\n    return docs.select(range(5, len(docs)))\n"
    )
    for name, by_size in (("by_size", True), ("equally", False)):
        content = {
            "group": name,
            "task": ["first_half", "second_half"],
            "aggregate_metric_list": [{"metric": "acc", "weight_by_size": by_size}],
        }
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return directory
