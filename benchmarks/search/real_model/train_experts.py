"""Train the real-model bed's experts: one LoRA adapter per skill, all at once, in PEFT's format.

python benchmarks/search/real_model/train_experts.py --base BASE --items ITEMS --output OUTPUT --device cuda

Needs torch, transformers and safetensors alone, so that it also runs where nothing can be installed. `ITEMS` has a
`SKILL.train.jsonl` and a `SKILL.evaluation.jsonl` for every skill, lines of `{"prompt": …, "answer": …}`, which
`make_items.py` writes.

The experts share the frozen base: a batch holds as many rows of every skill, and each skill's rows pass through
updates of their own (LoRA, https://arxiv.org/abs/2106.09685), which are batched matrix products. So six experts cost
as many kernel launches as one, and none sees another's gradient.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

RANK = 16
ALPHA = 32
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WARM_UP_STEPS = 20
PAD_TO = 16  # lengths come in few sizes, so that kernels are chosen once

Tokens = tuple[list[int], list[int]]
"""A prompt, and the answer with the token that ends it."""


@dataclass(frozen=True)
class Batch:
    """Rows of several skills, one skill after the other.

    Attributes:
        input_ids: [skills × rows, longest], padded on the right, where a causal model needs no mask.
        rows, columns: Of the positions that are followed by a token of an answer.
        targets: Those tokens.
        skills: Which skill each of them is of.
    """

    input_ids: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    skills: Tensor

    @staticmethod
    def of(items: Sequence[Sequence[Tokens]], device: str) -> Batch:
        """Make one from as many items of every skill."""
        flat = [item for of_skill in items for item in of_skill]
        longest = max(len(prompt) + len(answer) for prompt, answer in flat)
        input_ids = torch.zeros(len(flat), math.ceil(longest / PAD_TO) * PAD_TO, dtype=torch.long)
        places = []
        for row, (prompt, answer) in enumerate(flat):
            input_ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            places += [(row, len(prompt) + at - 1, token, row // len(items[0])) for at, token in enumerate(answer)]
        rows, columns, targets, skills = torch.tensor(places).T.to(device)
        return Batch(input_ids.to(device), rows, columns, targets, skills)


class ExpertsLinear(nn.Module):
    """A frozen linear layer, and for every expert an update `α/r · B·A` of its own.

    Args:
        frozen: The base's layer.
        experts: How many; rows come in so many equal groups.
    """

    def __init__(self, frozen: nn.Linear, experts: int) -> None:
        super().__init__()
        self.frozen = frozen
        device = frozen.weight.device
        self.down = nn.Parameter(torch.empty(experts, RANK, frozen.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(experts, frozen.out_features, RANK, device=device))
        nn.init.uniform_(self.down, -1 / math.sqrt(frozen.in_features), 1 / math.sqrt(frozen.in_features))

    def forward(self, inputs: Tensor) -> Tensor:
        grouped = inputs.reshape(len(self.down), -1, inputs.shape[-1])
        low = torch.bmm(grouped, self.down.to(inputs.dtype).mT)
        update = torch.bmm(low, self.up.to(inputs.dtype).mT * (ALPHA / RANK))
        outputs: Tensor = self.frozen(inputs)
        return outputs + update.reshape(outputs.shape)

    def delta(self, weights: Sequence[float]) -> Tensor:
        """The experts' updates, each times its weight, summed: [outputs, inputs]."""
        scale = torch.tensor(weights, device=self.up.device).view(-1, 1, 1) * (ALPHA / RANK)
        return torch.bmm(self.up * scale, self.down).sum(0)


def with_experts(model: PreTrainedModel, experts: int) -> dict[str, ExpertsLinear]:
    """Freeze a model and put updates beside its linear layers, in place; returns them by the layers' names."""
    model.requires_grad_(False)
    layers = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS:
            parent, _, child = name.rpartition(".")
            layers[name] = ExpertsLinear(module, experts)
            setattr(model.get_submodule(parent), child, layers[name])
    return layers


def batches(items: Sequence[Sequence[Tokens]], rows: int, device: str, seed: int) -> Iterator[Batch]:
    """Batches without end; every skill's items are shuffled anew when all have been seen."""

    def shuffled(of_skill: Sequence[Tokens]) -> Iterator[Tokens]:
        draw = random.Random(seed)
        while True:
            yield from draw.sample(of_skill, len(of_skill))

    streams = [shuffled(of_skill) for of_skill in items]
    while True:
        yield Batch.of([[next(stream) for _ in range(rows)] for stream in streams], device)


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The logits of answers' tokens alone, in float32: [answer tokens, vocabulary]."""
    hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return model.lm_head(hidden[batch.rows, batch.columns]).float()


def train(
    model: PreTrainedModel,
    layers: Mapping[str, ExpertsLinear],
    items: Mapping[str, Sequence[Tokens]],
    steps: int,
    rows: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train every skill's updates with cross entropy on its answers, their learning rate falling as a cosine."""
    device = str(model.device)
    parameters = [parameter for layer in layers.values() for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
    start = time.perf_counter()
    for step, batch in zip(range(1, steps + 1), batches(list(items.values()), rows, device, seed), strict=False):
        share = min(1.0, step / WARM_UP_STEPS) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * share
        losses = functional.cross_entropy(answer_logits(model, batch), batch.targets, reduction="none")
        sums = torch.zeros(2, len(items), device=losses.device)
        sums = sums.index_add(1, batch.skills, torch.stack([losses, torch.ones_like(losses)]))
        by_skill = sums[0] / sums[1]
        optimizer.zero_grad()
        by_skill.sum().backward()
        optimizer.step()
        if step % 25 == 0 or step == steps:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in zip(items, by_skill.tolist(), strict=True))
            print(f"step {step}  {time.perf_counter() - start:.0f} s  {shown}", flush=True)


@torch.inference_mode()
def exact_match(model: PreTrainedModel, items: Sequence[Tokens], rows: int = 100) -> float:
    """The share of items that greedy decoding answers exactly.

    It does if and only if the most likely token after every prefix of the gold answer is the gold one.
    """
    right = 0
    for begin in range(0, len(items), rows):
        batch = Batch.of([items[begin : begin + rows]], str(model.device))
        wrong = answer_logits(model, batch).argmax(-1) != batch.targets
        right += len(batch.input_ids) - len(set(batch.rows[wrong].tolist()))
    return right / len(items)


def print_table(
    model: PreTrainedModel, layers: Mapping[str, ExpertsLinear], items: Mapping[str, Sequence[Tokens]]
) -> None:
    """Exact match on evaluation items: of the base, of every expert, and of their sums with one weight for all.

    Folds the updates into the model, which is of no use afterwards.
    """
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.frozen)
    frozen = {name: layer.frozen.weight.clone() for name, layer in layers.items()}
    models = {"base": [0.0] * len(items)}
    models |= {skill: [float(skill == other) for other in items] for skill in items}
    models |= {f"all × {weight:g}": [weight] * len(items) for weight in (1 / len(items), 0.3, 0.5, 0.75, 1.0)}
    print("| model | " + " | ".join(items) + " | mean |")
    print("| --- |" + " --- |" * (len(items) + 1))
    for shown, weights in models.items():
        with torch.inference_mode():
            for name, layer in layers.items():
                layer.frozen.weight.copy_(frozen[name].float() + layer.delta(weights))
        scores = [exact_match(model, of_skill) for of_skill in items.values()]
        cells = [f"{score:.3f}" for score in [*scores, sum(scores) / len(scores)]]
        print(f"| {shown} | " + " | ".join(cells) + " |", flush=True)


def save_adapter(layers: Mapping[str, ExpertsLinear], expert: int, directory: Path) -> None:
    """Write one expert as PEFT would, in bf16."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, layer in layers.items():
        for part, stacked in (("lora_A", layer.down), ("lora_B", layer.up)):
            tensors[f"base_model.model.{name}.{part}.weight"] = stacked[expert].detach().to("cpu", torch.bfloat16)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_items(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """The items of a file, in tokens."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    prompts = tokenizer([record["prompt"] for record in records], add_special_tokens=False)["input_ids"]
    answers = tokenizer([record["answer"] for record in records], add_special_tokens=False)["input_ids"]
    return [(prompt, [*answer, tokenizer.eos_token_id]) for prompt, answer in zip(prompts, answers, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one LoRA adapter per skill.")
    parser.add_argument("--base", type=Path, required=True, help="directory of the base model")
    parser.add_argument(
        "--items", type=Path, required=True, help="directory of SKILL.train.jsonl, SKILL.evaluation.jsonl"
    )
    parser.add_argument("--output", type=Path, required=True, help="an adapter goes to OUTPUT/SKILL")
    parser.add_argument("--skills", nargs="+", help="default: all that have items")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=64, help="items of each skill in a batch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--evaluation-items", type=int, default=300, help="of each skill, for the table; 0: no table")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    skills = arguments.skills or sorted(path.name.split(".")[0] for path in arguments.items.glob("*.train.jsonl"))
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.bfloat16).to(arguments.device)
    torch.manual_seed(arguments.seed)
    layers = with_experts(model, len(skills))
    training = {skill: read_items(arguments.items / f"{skill}.train.jsonl", tokenizer) for skill in skills}
    train(model, layers, training, arguments.steps, arguments.rows, arguments.learning_rate, arguments.seed)
    for expert, skill in enumerate(skills):
        save_adapter(layers, expert, arguments.output / skill)
    if arguments.evaluation_items:
        evaluation = {
            skill: read_items(arguments.items / f"{skill}.evaluation.jsonl", tokenizer)[: arguments.evaluation_items]
            for skill in skills
        }
        print_table(model, layers, evaluation)


if __name__ == "__main__":
    main()
