"""One candidate scored: ours against `lm_eval.simple_evaluate`, on the same model in memory, tasks and items.

    python benchmarks/scoring.py [--candidates 5] [--items 200] [--threads 1] [--parts zoo,shared,share,memory]

zoo     the demo zoo's tasks; goal: 4 times as fast
shared  a multiple-choice task made here, four choices after a long context; goal: twice as fast
share   what part of a candidate is neither merge nor the model's forward; goal: under 5 %
memory  resident memory after 50, 250 and 500 candidates; goal: flat

Both run in this process, in turn, on one model whose weights change before each candidate. lm-eval keeps its model
object and its task index, and does without what is no part of a score: bootstrap, samples, the list of installed
packages. It runs with `batch_size="auto"` and with the best fixed size of some tried first, and, once, with its
default of one row. Times are wall and processor seconds; the latter hardly depend on what else the machine does, so
their ratio is the one to read when it is busy.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1")

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "configs" / "demo_zoo"
ZOO_TASKS = ("demo_sorting", "demo_reversal", "demo_shift", "demo_swapping")
LM_EVAL_BATCH_SIZES = (8, 64, 256)
Timed = tuple[float, float]  # wall and processor seconds


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", default="zoo,shared,share,memory")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    parts = {"zoo": zoo, "shared": shared, "share": share, "memory": memory}
    for name in options.parts.split(","):
        parts[name](options)


def zoo(options: argparse.Namespace) -> None:
    """The demo zoo's tasks on one of its models."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(ZOO / "sorting", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "base")
    compare("zoo", model, tokenizer, ROOT / "tasks" / "demo", ZOO_TASKS, options)


def shared(options: argparse.Namespace) -> None:
    """Four choices of some words after a context of some hundred tokens, on a small model made here."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        options = argparse.Namespace(**{**vars(options), "items": options.items // 5})  # each is ten times as long
        write_long_choices(directory, options.items)
        model, tokenizer = model_for_long_contexts()
        compare("shared", model, tokenizer, directory, ("long_choices",), options)


def compare(
    title: str, model: Any, tokenizer: Any, directory: Path, tasks: Sequence[str], options: argparse.Namespace
) -> None:
    """Score candidates with both, in turn, and print medians and their ratio."""
    items = {name: list(range(options.items)) for name in tasks}
    ours, forward_seconds = our_scoring(model, tokenizer, directory, items)
    contestants = {"ours": ours}
    by_lm_eval = {
        size: lm_eval_scoring(model, tokenizer, directory, items, size) for size in (*LM_EVAL_BATCH_SIZES, "auto", 1)
    }
    tuned = min(LM_EVAL_BATCH_SIZES, key=lambda size: timed(by_lm_eval[size])[1][1])
    contestants |= {f"lm_eval, batch_size={size}": by_lm_eval[size] for size in (tuned, "auto", 1)}
    rows: dict[str, list[Timed]] = {name: [] for name in contestants}
    for candidate in range(options.candidates):
        perturb(model, candidate)
        scores = {}
        for name, score in contestants.items():
            if name.endswith("=1") and candidate:  # slow
                continue
            scores[name], took = timed(score)
            rows[name].append(took)
        for name, found in scores.items():
            if any(abs(found[task] - scores["ours"][task]) > 1e-9 for task in tasks):
                sys.exit(f"ours scored {scores['ours']}, {name} {found}")
    print(f"\n{title}: {len(tasks)} task(s) of {options.items} items, {options.candidates} candidates, same scores")
    print(f"{'median seconds':<28}{'wall':>10}{'ratio':>8}{'processor':>12}{'ratio':>8}")
    medians = {name: [statistics.median(row[index] for row in took) for index in (0, 1)] for name, took in rows.items()}
    for name, (wall, processor) in medians.items():
        ratios = wall / medians["ours"][0], processor / medians["ours"][1]
        print(f"{name:<28}{wall:>10.3f}{ratios[0]:>7.1f}x{processor:>12.3f}{ratios[1]:>7.1f}x")
    before = forward_seconds()
    repeated = [timed(ours)[1][0] for _ in range(3)]
    print(f"ours outside the model's forward: {1 - (forward_seconds() - before) / sum(repeated):.1%}")


def our_scoring(
    model: Any, tokenizer: Any, directory: Path, items: dict[str, list[int]]
) -> tuple[Callable[[], dict[str, float]], Callable[[], float]]:
    """What a worker does with a candidate in the live model, prompts built before; and the clock of its forward."""
    from evolve.scoring import LmEvalTask, load_scorers
    from evolve.scoring.backends.hf import HFBackend

    backend = HFBackend(model, tokenizer)
    scorers = load_scorers([LmEvalTask(name=name) for name in items], [directory], seed=0)

    def score() -> dict[str, float]:
        return {
            scorer.name: scorer.aggregate(scorer.score(backend, items[scorer.name]).values).value for scorer in scorers
        }

    score()
    return score, lambda: backend.forward_seconds


def lm_eval_scoring(
    model: Any, tokenizer: Any, directory: Path, items: dict[str, list[int]], batch_size: int | str
) -> Callable[[], dict[str, float]]:
    """`lm_eval.simple_evaluate`, warmed up where that is not slow."""
    import lm_eval
    import lm_eval.evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm_eval.evaluator.add_env_info = lambda results: None
    manager = TaskManager(include_path=str(directory), include_defaults=False)

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

    def score() -> dict[str, float]:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            results = lm_eval.simple_evaluate(
                model=harness, tasks=list(items), task_manager=manager, samples=items, bootstrap_iters=0,
                log_samples=False, fewshot_random_seed=0,
            )  # fmt: skip
        metrics = {name: results["results"][name] for name in items}
        return {name: found.get("acc,none", found.get("exact_match,none")) for name, found in metrics.items()}

    if batch_size != 1:
        score()
    return score


def timed(function: Callable[[], Any]) -> tuple[Any, Timed]:
    """A result with the wall and the processor seconds that it took."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, (time.perf_counter() - wall, time.process_time() - processor)


def perturb(model: Any, candidate: int) -> None:
    """A little different weights, as another candidate has."""
    import torch

    generator = torch.Generator().manual_seed(candidate)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * parameter.abs().mean() * 0.05
            parameter.add_(noise.to(parameter.dtype))


def write_long_choices(directory: Path, items: int) -> None:
    """A multiple-choice task: a story of some 350 tokens, four endings of 4 to 12 words."""
    generator = random.Random(0)
    words = [f"w{index}" for index in range(900)]
    with (directory / "long.jsonl").open("w") as file:
        for _ in range(items):
            story = " ".join(generator.choices(words, k=generator.randint(250, 450)))
            endings = [" ".join(generator.choices(words, k=generator.randint(4, 12))) for _ in range(4)]
            file.write(json.dumps({"story": story, "endings": endings, "label": generator.randrange(4)}) + "\n")
    task = {
        "task": "long_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(directory / "long.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{story}}",
        "doc_to_choice": "{{endings}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (directory / "long_choices.yaml").write_text(json.dumps(task))


def model_for_long_contexts() -> tuple[Any, Any]:
    """A random Llama of 4 layers and 128 features, and a tokenizer of one token per word."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{index}": index + 3 for index in range(900)}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.05, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval(), tokenizer


def zoo_worker(tasks: Sequence[str], threads: int) -> tuple[Any, Callable[[int, dict[str, tuple[int, ...]]], Any]]:
    """A worker on the demo zoo, and what asks it to score a candidate on some items."""
    from evolve.config.machines import BackendConfig
    from evolve.evaluation.request import Request
    from evolve.evaluation.worker import Worker, WorkerSettings
    from evolve.scoring import LmEvalTask

    experts = [str(ZOO / name) for name in ("sorting", "reversal", "shift")]
    worker = Worker(
        WorkerSettings(
            models=(*experts, str(ZOO / "base")),
            relative_to=str(ROOT),
            tokenizer_model=str(ZOO / "base"),
            tasks=tuple(LmEvalTask(name=name) for name in tasks),
            task_search_path=(),
            seed=0,
            backend=BackendConfig(),
            threads=threads,
        )
    )

    def request(candidate: int, items: dict[str, tuple[int, ...]]) -> Request:
        generator = random.Random(candidate)
        models = [{"model": model, "parameters": {"weight": generator.random()}} for model in experts]
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": str(ZOO / "base"),
            "models": models,
            "dtype": "bfloat16",
        }
        return Request(candidate, recipe, items)

    return worker, request


def share(options: argparse.Namespace) -> None:
    """Where the time of a whole candidate goes, with one task and with all four."""
    print(f"\nshare of a candidate's time, {options.items} items of each task")
    print(f"{'tasks':<10}{'seconds':>10}{'merge':>10}{'forward':>10}{'neither':>10}")
    for tasks in (ZOO_TASKS[:1], ZOO_TASKS):
        worker, request = zoo_worker(tasks, options.threads)
        items = dict.fromkeys(tasks, tuple(range(options.items)))
        worker.evaluate(request(0, items))
        rows = [worker.evaluate(request(number, items)) for number in range(1, 2 * options.candidates + 1)]
        if failed := [row.failure for row in rows if row.failure]:
            sys.exit(f"a candidate failed: {failed[0]}")
        total = statistics.median(row.total_seconds for row in rows)
        shares = [
            (
                row.merge_seconds / row.total_seconds,
                row.forward_seconds / row.total_seconds,
                1 - (row.merge_seconds + row.forward_seconds) / row.total_seconds,
            )
            for row in rows
        ]
        parts = [statistics.median(part) for part in zip(*shares, strict=True)]
        print(f"{len(tasks):<10}{total:>10.3f}" + "".join(f"{part:>10.1%}" for part in parts))


def memory(options: argparse.Namespace) -> None:
    """Resident memory of the process over many candidates of few items."""
    worker, request = zoo_worker(ZOO_TASKS, options.threads)
    items = dict.fromkeys(ZOO_TASKS, tuple(range(10)))
    print("\nresident memory over candidates of 4 x 10 items")
    for number in range(1, 501):
        if failure := worker.evaluate(request(number, items)).failure:
            sys.exit(f"candidate {number} failed: {failure}")
        if number in (1, 50, 250, 500):
            print(f"after {number:>4}: {resident_megabytes():>8.1f} MB")
    print(f"peak:       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:>8.1f} MB")


def resident_megabytes() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
