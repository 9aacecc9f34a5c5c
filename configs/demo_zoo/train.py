"""Train the demo zoo: a small base model and one expert per skill, fine-tuned from it.

python configs/demo_zoo/train.py                    # everything: task items, base, experts, table
python configs/demo_zoo/train.py --only base        # one model; experts start from the base on disk
python configs/demo_zoo/train.py --evaluate         # print the table of the models on disk
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from model import IGNORED, ZOO, encode, exact_match, load, new_model, save, train_tokenizer, uniform_merge
from skills import SKILLS, Item, evaluation_items
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

ITEMS = ZOO.parents[1] / "tasks" / "demo"
ITEMS_PER_SKILL = 600
FRESH_ITEMS = 300
BATCH_SIZE = 64
WARM_UP_STEPS = 50


@dataclass(frozen=True)
class Run:
    """How one model is trained.

    Training ends when exact match on fresh items of the training side is at least `target` for every skill, or
    after `max_steps`.
    """

    skills: tuple[str, ...]
    learning_rate: float
    max_steps: int
    check_every: int
    target: float
    decay: bool  # the learning rate falls linearly to nothing at max_steps
    seed: int
    balance_at: float = 1.0  # a skill that scores this much gets no data until it falls behind again


# The base is stopped when it half knows every skill; from there each expert finishes one and, with nothing to
# remind it, forgets the others. An expert trained further or faster than this cannot be merged at all, and one
# reminded of the other skills (even with 0.5 % of its data) merges well with uniform weights.
RUNS = {
    "base": Run(
        tuple(SKILLS),
        learning_rate=1e-3,
        max_steps=1000,
        check_every=25,
        target=0.25,
        decay=False,
        balance_at=0.5,
        seed=1,
    ),
    **{
        name: Run((name,), learning_rate=2.5e-4, max_steps=300, check_every=50, target=0.96, decay=True, seed=seed)
        for seed, name in enumerate(SKILLS, start=2)
    },
}


def train(name: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train `model` in place as `RUNS[name]` says, with cross entropy on the answers alone."""
    run = RUNS[name]
    fresh = {
        skill: encode(list(itertools.islice(_training_items(skill, -1), FRESH_ITEMS)), tokenizer)
        for skill in run.skills
    }
    streams = {skill: _training_items(skill, run.seed) for skill in run.skills}
    shares = [1.0] * len(run.skills)
    random_numbers = random.Random(run.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate, weight_decay=0.01, fused=True)
    for step in range(1, run.max_steps + 1):
        remaining = 1 - (step - 1) / run.max_steps if run.decay else 1.0
        optimizer.param_groups[0]["lr"] = run.learning_rate * min(1.0, step / WARM_UP_STEPS, remaining)
        drawn = random_numbers.choices(run.skills, shares, k=BATCH_SIZE)
        input_ids, labels = encode([next(streams[skill]) for skill in drawn], tokenizer)
        logits = model(input_ids).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % run.check_every == 0:
            scores = [exact_match(model, *fresh[skill]) for skill in run.skills]
            shown = "  ".join(f"{skill} {score:.2f}" for skill, score in zip(run.skills, scores, strict=True))
            print(f"{name}  step {step}  loss {loss.item():.3f}  {shown}", file=sys.stderr, flush=True)
            if min(scores) >= run.target:
                break
            shares = [max(0.0, run.balance_at - score) for score in scores]


def _training_items(skill: str, seed: int) -> Iterator[Item]:
    return SKILLS[skill].items(for_evaluation=False, seed=seed)


def write_task_items() -> None:
    for skill in SKILLS.values():
        lines = [
            json.dumps({"question": item.prompt, "answer": item.answer})
            for item in evaluation_items(skill, ITEMS_PER_SKILL)
        ]
        (ITEMS / f"{skill.name}.jsonl").write_text("\n".join(lines) + "\n")


def read_task_items(skill: str) -> list[Item]:
    lines = (ITEMS / f"{skill}.jsonl").read_text().splitlines()
    return [Item(record["question"], record["answer"]) for record in map(json.loads, lines)]


def print_table() -> None:
    """Print exact match on all committed evaluation items, as the rows of the card's table."""
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "base")
    tensors = {skill: encode(read_task_items(skill), tokenizer) for skill in SKILLS}
    models = {name: load(name) for name in RUNS}
    models["uniform merge"] = uniform_merge([models[skill] for skill in SKILLS])
    print("| model | " + " | ".join(SKILLS) + " | mean |")
    print("| --- |" + " --- |" * (len(SKILLS) + 1))
    for name, model in models.items():
        scores = [exact_match(model, *tensors[skill]) for skill in SKILLS]
        cells = [f"{score:.3f}" for score in [*scores, sum(scores) / len(scores)]]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo zoo, or print its table.")
    parser.add_argument("--only", choices=RUNS, help="train this model alone; experts start from the base on disk")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; print the table of the models on disk")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it brings, and the sums keep their order
    if not arguments.evaluate:
        write_task_items()
        tokenizer = train_tokenizer()
        for name in [arguments.only] if arguments.only else RUNS:
            torch.manual_seed(RUNS[name].seed)
            model = new_model(tokenizer) if name == "base" else load("base")
            train(name, model, tokenizer)
            save(name, model, tokenizer)
    if not arguments.only:
        print_table()


if __name__ == "__main__":
    main()
