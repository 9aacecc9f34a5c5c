"""The demo zoo's tokenizer and model: built, stored, loaded, and asked."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import torch
from skills import SKILLS, Item
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ZOO = Path(__file__).parent
IGNORED = -100  # a label that torch's cross entropy leaves out


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on prompts: a skill's name with its colon becomes one token, all else stays bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[a-z]+:|."), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [
        item.prompt
        for skill in SKILLS.values()
        for item in itertools.islice(skill.items(for_evaluation=False, seed=0), 50)
    ]
    tokenizer.train_from_iterator(prompts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        model_max_length=64,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make an untrained Llama of 1.2 million parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def save(name: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a model in bf16, with the tokenizer beside it."""
    model.to(torch.bfloat16).save_pretrained(ZOO / name)
    tokenizer.save_pretrained(ZOO / name)


def load(name: str) -> LlamaForCausalLM:
    """Load a stored model in float32; its values are those that bf16 can hold."""
    model = AutoModelForCausalLM.from_pretrained(ZOO / name, dtype=torch.float32).eval()
    return cast(LlamaForCausalLM, model)


def uniform_merge(experts: list[LlamaForCausalLM]) -> LlamaForCausalLM:
    """Average the experts' parameters, rounded to bf16: the merge that needs no search."""
    merged = load("base")
    with torch.inference_mode():
        for name, parameter in merged.named_parameters():
            average = torch.stack([expert.get_parameter(name) for expert in experts]).mean(0)
            parameter.copy_(average.to(torch.bfloat16))
    return merged


def encode(items: list[Item], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Turn items into `input_ids` and `labels`, both [items, longest]; only the answer and the end are labelled."""
    prompts = tokenizer([item.prompt for item in items])["input_ids"]
    answers = tokenizer([item.answer for item in items])["input_ids"]
    length = max(len(prompt) + len(answer) + 1 for prompt, answer in zip(prompts, answers, strict=True))
    input_ids = torch.full((len(items), length), tokenizer.pad_token_id)
    labels = torch.full((len(items), length), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens = torch.tensor([*prompt, *answer, tokenizer.eos_token_id])
        input_ids[row, : len(tokens)] = tokens
        labels[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    return input_ids, labels


@torch.inference_mode()
def exact_match(model: LlamaForCausalLM, input_ids: Tensor, labels: Tensor) -> float:
    """The share of items that greedy decoding answers exactly.

    One forward pass over the gold answers decides it: greedy decoding writes the gold answer if and only if the
    most likely token after every prefix of the gold answer is the gold one.
    """
    predicted = model(input_ids).logits[:, :-1].argmax(-1)
    gold = labels[:, 1:]
    return float(((predicted == gold) | (gold == IGNORED)).all(1).float().mean())
