"""Train the conventions bed: a small Qwen2 that half knows every skill, and an expert of each.

python benchmarks/search/conventions/train.py build/beds/conventions             # minutes on one core
python benchmarks/search/conventions/train.py build/beds/conventions --evaluate  # the table of the models there
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from skills import ALPHABET, SKILLS, Item, evaluation_items
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

IGNORED = -100  # a label that torch's cross entropy leaves out
SPECIAL = ("<pad>", "<bos>", "<eos>")
BATCH_SIZE = 64
WARM_UP_STEPS = 50
FRESH_ITEMS = 100
EVALUATION_ITEMS = 500
TASK_ITEMS = 600


@dataclass(frozen=True)
class Run:
    """How one model is trained: until its skills' mean on fresh items is at `target`, or for `max_steps`."""

    skills: tuple[str, ...]
    learning_rate: float
    max_steps: int
    check_every: int
    target: float
    decay: bool
    seed: int


# The base is stopped when it half knows everything. From there an expert finishes one skill and, with nothing to remind
# it, loses others, first of all the one that contradicts it.
RUNS = {
    "base": Run(tuple(SKILLS), learning_rate=5e-4, max_steps=2000, check_every=5, target=0.4, decay=False, seed=1),
    **{
        name: Run((name,), learning_rate=5e-4, max_steps=300, check_every=50, target=0.98, decay=True, seed=seed)
        for seed, name in enumerate(SKILLS, start=2)
    },
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character that occurs."""
    characters = [*ALPHABET, *sorted({letter for skill in SKILLS.values() for letter in skill.mark}), "=", "\n"]
    vocabulary = {text: number for number, text in enumerate((*SPECIAL, *characters))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        model_max_length=64,
    )


def new_model(vocabulary: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained Qwen2 of 1.1 million parameters, with grouped queries and a head of its own."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(vocabulary),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            pad_token_id=vocabulary.pad_token_id,
            bos_token_id=vocabulary.bos_token_id,
            eos_token_id=vocabulary.eos_token_id,
        )
    )


def encode(items: Sequence[Item], vocabulary: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """`input_ids` and `labels`, both [items, tokens]; only the answer and the end are labelled. All are as long."""
    tokens = torch.tensor([[*vocabulary.encode(item.prompt + item.answer), vocabulary.eos_token_id] for item in items])
    labels = tokens.clone()
    labels[:, : len(items[0].prompt)] = IGNORED
    return tokens, labels


@torch.inference_mode()
def exact_match(model: Any, tokens: Tensor, labels: Tensor) -> float:
    """The share of items that greedy decoding answers exactly: the likeliest token is always the gold one."""
    predicted, gold = model(tokens).logits[:, :-1].argmax(-1), labels[:, 1:]
    return float(((predicted == gold) | (gold == IGNORED)).all(1).float().mean())


def train(name: str, model: Qwen2ForCausalLM, vocabulary: PreTrainedTokenizerFast) -> None:
    """Train in place as `RUNS[name]` says, with cross entropy on the answers alone."""
    run = RUNS[name]
    fresh = {skill: encode(_fresh_items(skill), vocabulary) for skill in run.skills}
    streams = {skill: SKILLS[skill].items(for_evaluation=False, seed=run.seed) for skill in run.skills}
    draw = random.Random(run.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate, weight_decay=0.01, fused=True)
    for step in range(1, run.max_steps + 1):
        remaining = 1 - (step - 1) / run.max_steps if run.decay else 1.0
        optimizer.param_groups[0]["lr"] = run.learning_rate * min(1.0, step / WARM_UP_STEPS, remaining)
        drawn = draw.choices(run.skills, k=BATCH_SIZE)
        tokens, labels = encode([next(streams[skill]) for skill in drawn], vocabulary)
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
        loss = functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % run.check_every == 0:
            scores = [exact_match(model, *fresh[skill]) for skill in run.skills]
            shown = "  ".join(f"{skill} {score:.2f}" for skill, score in zip(run.skills, scores, strict=True))
            print(f"{name}  step {step}  loss {loss.item():.3f}  {shown}", file=sys.stderr, flush=True)
            if sum(scores) >= run.target * len(scores):
                break


def _fresh_items(skill: str) -> list[Item]:
    """Items of the training side that no run is trained on in this order."""
    return list(itertools.islice(SKILLS[skill].items(for_evaluation=False, seed=-1), FRESH_ITEMS))


def write_task_items() -> None:
    """What the search's tasks ask, beside their YAML files."""
    for name, skill in SKILLS.items():
        lines = [json.dumps(asdict(item)) for item in evaluation_items(skill, TASK_ITEMS)]
        (Path(__file__).parent / "tasks" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def print_table(directory: Path, vocabulary: PreTrainedTokenizerFast) -> None:
    """Exact match on evaluation items: of every model, and of plain sums of task vectors with one weight for all."""
    items = {name: encode(evaluation_items(skill, EVALUATION_ITEMS), vocabulary) for name, skill in SKILLS.items()}
    states = {name: AutoModelForCausalLM.from_pretrained(directory / name).float().state_dict() for name in RUNS}
    base = states["base"]
    for weight in (1 / len(SKILLS), 0.25, 0.4, 0.6, 1.0):
        states[f"all × {weight:g}"] = {
            name: tensor + weight * sum(states[skill][name] - tensor for skill in SKILLS)
            for name, tensor in base.items()
        }
    model = new_model(vocabulary)
    print("| model | " + " | ".join(SKILLS) + " | mean |")
    print("| --- |" + " --- |" * (len(SKILLS) + 1))
    for name, state in states.items():
        model.load_state_dict(state)
        scores = [exact_match(model, *of_skill) for of_skill in items.values()]
        print(f"| {name} | " + " | ".join(f"{score:.3f}" for score in [*scores, sum(scores) / len(scores)]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the conventions bed, or print its table.")
    parser.add_argument("directory", type=Path, help="a model goes to DIRECTORY/NAME")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; print the table of the models there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it brings, and the sums keep their order
    vocabulary = tokenizer()
    if not arguments.evaluate:
        write_task_items()
    for name in [] if arguments.evaluate else RUNS:
        torch.manual_seed(RUNS[name].seed)
        model = new_model(vocabulary) if name == "base" else _stored(arguments.directory / "base")
        train(name, model, vocabulary)
        model.to(torch.bfloat16).save_pretrained(arguments.directory / name)
        vocabulary.save_pretrained(arguments.directory / name)
    print_table(arguments.directory, vocabulary)


def _stored(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


if __name__ == "__main__":
    main()
