"""Every reader of files from outside, with a sound file that it reads and the errors that it may raise."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from mutations import as_json, damaged, mutated
from safetensors.torch import save_file

from evolve.actions.check_search import check_search
from evolve.config.reader import read_search
from evolve.problems import ConfigError
from evolve.scoring.backends.pretrained_files import known_config, load_generation_config
from evolve.scoring.errors import TaskError
from evolve.trials.journal import Journal, JournalError
from evolve.trials.journal_lines import sealed
from evolve.trials.trial import Evaluation, Kind, Trial
from merge_core import Checkpoint, MergeError, Recipe, build_plan, parse_recipes
from merge_core.checkpoint.layout import find_layout
from merge_core.checkpoint.lora import LoraCheckpoint
from merge_core.checkpoint.weight_files import read_pickle_headers
from merge_core.vocabulary.chat_template import check_template, read_chat_template

DOCUMENTED = (MergeError, ConfigError, TaskError, JournalError)
Bytes = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        name: what it reads.
        make: an input, by a random generator.
        read: the reader; it may raise nothing but `DOCUMENTED`.
    """

    name: str
    make: Bytes
    read: Callable[[bytes], object]


def targets(root: Path) -> Iterator[Target]:
    """All of them.

    Args:
        root: an empty directory, which they write their files to.
    """
    model = write_model(root / "model")
    other = write_model(root / "other")
    recipe_models = {"a": Checkpoint.open(model), "b": Checkpoint.open(other)}
    union = Recipe.from_mapping({**RECIPE, "tokenizer": {"source": "union"}})

    def in_model(name: str, read: Callable[[], object]) -> Callable[[bytes], object]:
        sound = (model / name).read_bytes()

        def with_file(content: bytes) -> object:
            try:
                (model / name).write_bytes(content)
                return read()
            finally:
                (model / name).write_bytes(sound)

        return with_file

    def planned() -> object:
        return build_plan(union, {"a": Checkpoint.open(model), "b": recipe_models["b"]})

    def laid_out() -> object:
        return find_layout(Checkpoint.open(model))

    def content(name: str) -> Any:
        return json.loads((model / name).read_bytes())

    yield Target("recipe", of_yaml(RECIPE, SLICES, TOKENS), lambda data: parse_recipes(data.decode("utf-8", "replace")))
    (root / "search").mkdir()
    search = root / "search" / "search.yml"

    def read_search_file(data: bytes) -> object:
        search.write_bytes(data)
        found = read_search(search)
        return [str(found.document.located(problem)) for problem in found.problems]

    yield Target("search.yml", of_yaml(SEARCH, GENOME), read_search_file)
    yield Target("safetensors header", headers(model / "model.safetensors"), in_model("model.safetensors", laid_out))
    yield Target("config.json", of_json(content("config.json")), in_model("config.json", planned))
    yield Target("tokenizer.json", of_json(content("tokenizer.json")), in_model("tokenizer.json", planned))
    settings = of_json(content("tokenizer_config.json"))
    yield Target("tokenizer_config.json", settings, in_model("tokenizer_config.json", planned))
    template = in_model("tokenizer_config.json", lambda: read_chat_template(model))
    yield Target("template of a tokenizer", settings, template)
    sharded = write_shards(root / "sharded")
    index = sharded / "model.safetensors.index.json"
    yield Target("index", of_json(json.loads(index.read_bytes())), writer(index, lambda: Checkpoint.open(sharded)))
    adapter = write_adapter(root / "adapter")
    file = adapter / "adapter_config.json"
    folded = writer(file, lambda: LoraCheckpoint(recipe_models["b"], adapter).tensors)
    yield Target("adapter", of_json(json.loads(file.read_bytes())), folded)
    pickled = root / "pytorch_model.bin"
    torch.save({"layers.0.weight": torch.ones(2, 2), "norm": torch.ones(2)}, pickled)
    sound = pickled.read_bytes()
    yield Target("pickle", lambda choose: damaged(sound, choose), writer(pickled, lambda: read_pickle_headers(pickled)))
    yield Target("chat template", of_text(TEMPLATE), lambda data: check_template(data.decode("utf-8", "replace"), "r"))
    (root / "search" / "text.txt").write_text("some words\n\n" * 20)
    checked = root / "search" / "checked.yml"
    checked.write_text(yaml.safe_dump({**SEARCH, **SCORED}))

    whole = in_model("config.json", lambda: check_search(checked, {}))
    yield Target("config.json of a search", of_json(content("config.json")), whole)
    yield Target("transformers config", of_json(content("config.json")), lambda data: known_config(as_mapping(data)))
    generation = model / "generation_config.json"
    read_generation = writer(generation, lambda: load_generation_config(model))
    yield Target("generation_config.json", of_json({"eos_token_id": [1, 2], "temperature": 0.5}), read_generation)
    journal = write_journal(root / "journal.log")
    read_journal = writer(journal, lambda: Journal.open(str(journal), create=True).trials())
    yield Target("journal", of_lines(journal.read_bytes()), read_journal)
    from later_targets import later_targets

    (root / "later").mkdir()
    yield from later_targets(root / "later", model, other)


def writer(file: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    def with_file(content: bytes) -> object:
        file.write_bytes(content)
        return read()

    return with_file


def as_mapping(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


# Inputs --------------------------------------------------------------------------------------------------


def of_json(document: Any) -> Bytes:
    def make(choose: random.Random) -> bytes:
        found = as_json(mutated(document, choose))
        return damaged(found, choose) if choose.random() < 0.2 else found

    return make


def of_yaml(*documents: Any) -> Bytes:
    texts = [yaml.safe_dump(document, sort_keys=False) for document in documents]

    def make(choose: random.Random) -> bytes:
        which = choose.randrange(len(documents))
        if choose.random() < 0.4:
            return damaged(texts[which].encode(), choose)
        changed = mutated(documents[which], choose)
        return yaml.dump(changed, sort_keys=False, Dumper=yaml.CSafeDumper, allow_unicode=True).encode(errors="replace")

    return make


def of_text(text: str) -> Bytes:
    return lambda choose: damaged(text.encode(), choose)


def of_lines(content: bytes) -> Bytes:
    """A file of JSON lines: lines changed, lost, doubled and swapped, and bytes."""

    def make(choose: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        position = choose.randrange(len(lines))
        match choose.randrange(5):
            case 0:
                changed = mutated(json.loads(lines[position]), choose)
                sound = isinstance(changed, dict) and choose.random() < 0.8
                lines[position] = sealed(changed, position) if sound else as_json(changed) + b"\n"
            case 1:
                del lines[position]
            case 2:
                lines.insert(position, choose.choice(lines))
            case 3:
                choose.shuffle(lines)
            case _:
                return damaged(content, choose)
        return b"".join(lines)

    return make


def headers(file: Path) -> Bytes:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]

    def make(choose: random.Random) -> bytes:
        text = as_json(mutated(header, choose))
        if choose.random() < 0.2:
            text = damaged(text, choose)
        stated = len(text) if choose.random() < 0.95 else choose.choice((0, 7, len(text) * 2, 2**40, 2**64 - 1))
        return struct.pack("<Q", stated) + text + data

    return make


# Sound files ---------------------------------------------------------------------------------------------

RECIPE = {
    "merge_method": "linear",
    "models": [{"model": name, "parameters": {"weight": 0.5}} for name in "ab"],
    "dtype": "float32",
    "parameters": {"normalize": True},
}
SLICES = {
    "name": "x",
    "merge_method": "ties",
    "base_model": {"model": {"path": "a", "revision": "main"}, "lora": "c"},
    "slices": [
        {
            "sources": [
                {"model": "a", "layer_range": [0, 2]},
                {"model": "b@v1+c", "layer_range": [0, 2], "parameters": {"weight": [0, 0.5, 1], "density": 0.5}},
            ],
            "parameters": {"lambda": [{"filter": "mlp", "value": 0.3}, {"value": 1}]},
        }
    ],
    "chat_template": "chatml",
    "tokenizer_source": "union",
}
TOKEN = {"kind": "model_token", "model": "b", "token_id": 3}
TOKENS = {
    **RECIPE,
    "tokenizer": {
        "source": "union",
        "pad_to_multiple_of": 8,
        "tokens": {
            "<s>": {"source": "a", "force": True},
            "x": {"source": {"kind": "model_token", "model": "b", "token_id": 3}},
        },
    },
    "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
}
GENE = {"low": 0, "high": 1, "init": 0.5, "layers": {"knots": 3}, "filters": ["mlp"], "name": "w"}
SEARCH = {
    "recipe": {
        "merge_method": {"choices": ["ties", "linear"]},
        "base_model": "a",
        "models": [{"model": "b", "parameters": {"weight": GENE, "density": {"low": 0.1, "high": 1, "log": True}}}],
    },
    "tasks": ["echo", {"name": "echo", "weight": 2, "alias": "again", "num_fewshot": 1}, {"python": "m:f", "items": 3}],
    "items": {"search": 4, "held_out": 4},
    "budget": {"evaluations": 40, "minutes": 3},
    "optimizer": {"name": "cma", "population_size": 8, "options": {}},
    "backend": {"name": "hf", "dtype": "float32", "model_args": {"max_length": 64}},
    "seed": 1,
}
SCORED: dict[str, Any] = {
    "recipe": {
        "merge_method": "ties",
        "base_model": "../model",
        "models": [{"model": "../other", "parameters": {"weight": {"low": 0, "high": 1}}}],
    },
    "tasks": [{"perplexity": "text.txt", "unit": "paragraph"}],
    "optimizer": "cma",
}
GENOME = {
    "genome": {"models": ["a", "b"], "merge_method": "linear", "layer_granularity": 1, "filters": ["mlp"]},
    "tasks": [{"name": "echo", "weight": 0.5, "metric": "acc"}],
    "limit": 3,
}
TEMPLATE = (
    "{%- set ns = namespace(x=0) %}{% for m in messages if m.role is defined %}{{ '<|' ~ m['role'] | upper ~ '|>' }}"
    "{% if loop.first and not add_generation_prompt %}{{ m.content | trim }}{% else %}{{ raise_exception('x') }}"
    "{% endif %}"
    "{% endfor %}{% macro f(a, b=1) %}{{ a[1:2] }}{% endmacro %}{% generation %}{{ f(1) }}{% endgeneration %}"
)


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NO_AFFIXES = {"continuing_subword_prefix": None, "end_of_word_suffix": None}


def write_model(directory: Path) -> Path:
    directory.mkdir()
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (4,)}
    shapes |= dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (8, 4))
    for layer in (f"model.layers.{number}" for number in range(2)):
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (4, 4) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (4, 4) for part in ("gate", "up", "down")}
        shapes |= {f"{layer}.{part}_layernorm.weight": (4,) for part in ("input", "post_attention")}
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4}
    config |= {"num_attention_heads": 2, "layer_types": ["full_attention"] * 2, "tie_word_embeddings": False}
    config |= {"eos_token_id": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    (directory / "config.json").write_text(json.dumps(config))
    vocabulary = {text: number for number, text in enumerate(("a", "b", "c", "d", "e", "ab"))}
    entry = {"id": 6, "content": "<s>", "special": True, "lstrip": False, "normalized": False, "rstrip": False}
    entry["single_word"] = False
    tokenizer: dict[str, Any] = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]], **NO_AFFIXES},
        "added_tokens": [entry],
    }
    (directory / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "pre_tokenizer": BYTES, "decoder": BYTES, **tokenizer})
    )
    declared = {"7": {"content": "</s>", "special": True}}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": declared, "eos_token": "</s>"}
    settings["chat_template"] = [{"name": "default", "template": "{{ messages }}"}]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def write_shards(directory: Path) -> Path:
    directory.mkdir()
    files = {"layers.0.weight": "1.safetensors", "layers.1.weight": "2.safetensors"}
    for name, file in files.items():
        save_file({name: torch.ones(2, 2)}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return directory


def write_adapter(directory: Path) -> Path:
    directory.mkdir()
    module = "base_model.model.model.layers.0.mlp.up_proj"
    sides = {f"{module}.lora_A.weight": torch.ones(2, 4), f"{module}.lora_B.weight": torch.ones(4, 2)}
    save_file(sides, directory / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": True, "fan_in_fan_out": False}
    settings |= {
        "alpha_pattern": {"up_proj": 8},
        "base_model_name_or_path": "org/base",
        "init_lora_weights": "gaussian",
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def write_journal(file: Path) -> Path:
    journal = Journal.open(str(file), create=True)
    journal.write_header({"config": {"seed": 1}})
    for number in range(2):
        trial = Trial(number=number, kind=Kind.PARENT, label=f"m{number}", batch=-1, recipe=RECIPE)
        journal.begin([trial], {})
        found = Evaluation(number, scores={"t": {0: 1.0, 3: 0.0}})
        journal.finish(Trial(**{**vars(trial), "evaluation": found, "objective": 0.5, "task_scores": {"t": 0.5}}))
    return file
