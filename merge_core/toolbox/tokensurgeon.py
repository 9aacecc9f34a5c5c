"""A model with another model's tokenizer: its embedding and head get a row for each of the donor's tokens.

Tokens that both have keep the model's rows; for the others rows are made that mean to the model what they mean to the
donor. Everything between embedding and head stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from merge_core.checkpoint.card_metadata import stated_licences
from merge_core.checkpoint.layout import HEAD, Layout, checkpoint_layout, is_head, is_position
from merge_core.checkpoint.open_checkpoints import open_checkpoints
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.writer import DEFAULT_SHARD_BYTES, ShardWriter
from merge_core.errors import MergeError, and_more
from merge_core.execute.devices import find_device
from merge_core.execute.model_card import plain_card
from merge_core.json_files import read_json, write_json
from merge_core.output_directory import make_vacant, new_directory
from merge_core.recipe.model_reference import ModelReference, local_directories
from merge_core.toolbox.token_approximations import Settings
from merge_core.toolbox.token_matches import match_tokens
from merge_core.toolbox.transplanted_rows import RowPlan, Splitter, check_method, hardly_trained, transplanted_rows
from merge_core.vocabulary.tokenizer_files import OutputTokenizer, is_token_id, special_ids
from merge_core.vocabulary.vocabulary import Vocabulary, checkpoint_vocabulary

Tables = Literal["embed", "lm_head", "yes", "no"]
"""Which of embedding and head something is done to."""


@dataclass(frozen=True, slots=True)
class Transplanted:
    """A finished model.

    Attributes:
        path: its directory.
        taken: tokens whose rows are the model's own.
        made: tokens whose rows were made, in the embedding.
        rows: of the embedding, padding included.
        warnings: what a user should know, one line each.
    """

    path: Path
    taken: int
    made: int
    rows: int
    warnings: tuple[str, ...]


def transplant_tokenizer(
    model: ModelReference | str,
    donor: ModelReference | str,
    output: Path | str,
    *,
    method: str = "omp",
    settings: Settings | None = None,
    prefix_match: Tables = "no",
    byte_match: Tables = "no",
    magikarp: bool = False,
    pad_to_multiple_of: int = 1,
    batch: int = 512,
    device: torch.device | str = "cpu",
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    cache: Path | None = None,
    trust_remote_code: bool = False,
) -> Transplanted:
    """Write a model with the tokenizer of another.

    Args:
        model: what gets a new tokenizer.
        donor: whose tokenizer, and whose embedding tells what its tokens mean.
        output: directory to make; it appears whole or not at all.
        method: how rows are made, a name of `APPROXIMATIONS`.
        settings: of the method.
        prefix_match: where a token that the model lacks has the row of the longest one that it begins with.
        byte_match: where a token of a single byte (``<0x0A>``) has the row of that byte in another form.
        magikarp: rows of tokens that were hardly trained are made, too, and none is made of them.
        pad_to_multiple_of: rows are added up to a multiple of it, each the mean of all others.
        batch: how many rows are made at once.
        device: where the arithmetic runs; ``auto`` for a GPU where there is one.
        shard_bytes: largest size of a weights file.
        overwrite: replace a model that was made here.
        progress: ``progress(done, total, what)``, called after every step.
        cache: where models of the hub are kept, in place of the hub's own setting.
        trust_remote_code: let Python code that comes with a model run where nothing else reads its tokenizer.

    Raises:
        MergeError: the models cannot be read or have no tokenizer, the method is not known; the output is taken.
    """
    check_method(method)
    model, donor = ModelReference.parse(model), ModelReference.parse(donor)
    output = Path(output).absolute()
    needed = {f'model "{reference}"': local_directories(reference) for reference in (model, donor)}
    make_vacant(output, overwrite, needed)
    opened = open_checkpoints((model, donor), cache=cache, trust_remote_code=trust_remote_code)
    ours, theirs = opened[str(model)], opened[str(donor)]
    work = _Surgery(ours, theirs, method, settings or Settings(), batch, find_device(device), pad_to_multiple_of)
    work.match(prefix_match, byte_match, magikarp)
    with torch.inference_mode(), new_directory(output, overwrite) as directory:
        OutputTokenizer(theirs.directory, ours.directory, None, None).write(directory)
        about = f"`{model}` with the tokenizer of `{donor}`; rows of tokens that it lacked are made by `{method}`."
        card = plain_card((model, donor), output.name, about, stated_licences(opened))
        (directory / "README.md").write_text(card, encoding="utf-8")
        ShardWriter(directory, work.layout(), shard_bytes).write(work.tensors(progress))
        write_json(directory / "config.json", work.config())
        generation = directory / "generation_config.json"
        if generation.is_file():
            named = theirs.directory / generation.name
            stated = read_json(named) if named.is_file() else theirs.config
            write_json(generation, work.with_token_ids(read_json(ours.directory / generation.name), stated))
    return Transplanted(output, len(work.plans[False].taken), len(work.plans[False].made), work.rows, work.warnings)


class _Surgery:
    """One pass over the tensors of a model."""

    def __init__(
        self,
        model: Checkpoint,
        donor: Checkpoint,
        method: str,
        settings: Settings,
        batch: int,
        device: torch.device,
        multiple: int,
    ) -> None:
        self.model, self.donor = model, donor
        self.method, self.settings, self.batch, self.device = method, settings, batch, device
        self.ours, self.theirs = checkpoint_layout(model), checkpoint_layout(donor)
        self.vocabulary, self.donated = _with_rows(model, self.ours), _with_rows(donor, self.theirs)
        # A token without a row is in the donor's tokenizer nevertheless, and so in the result's.
        self.tokens = max(checkpoint_vocabulary(donor).ids.values()) + 1
        self.rows = -(-self.tokens // multiple) * multiple
        self.plans: dict[bool, RowPlan] = {}
        self.warnings: tuple[str, ...] = ()
        self._check_others()

    def match(self, prefix_match: Tables, byte_match: Tables, magikarp: bool) -> None:
        """Plan where rows come from, in the embedding and in the head."""
        self.matches = match_tokens(self.vocabulary, self.donated)
        self.splitter = Splitter(self.vocabulary)
        poor = [self._hardly_trained(*side) if magikarp else frozenset[int]() for side in self._sides()]
        for head in (False, True):
            wanted = {"yes", "lm_head" if head else "embed", *(("lm_head",) if self.ours.tied else ())}
            prefixes = self.matches.prefixes if prefix_match in wanted else {}
            same_byte = self.matches.same_byte if byte_match in wanted else {}
            self.plans[head] = RowPlan.of(self.matches, {**prefixes, **same_byte}, *poor)
        if self.donated.left_out:
            left = and_more(map(repr, sorted(self.donated.left_out)))
            self.warnings = (
                f"{self.donor.directory}: its embedding has no rows for {left}, which get the mean of all",
            )

    def _sides(self) -> Iterator[tuple[Checkpoint, Layout, Vocabulary]]:
        yield self.model, self.ours, self.vocabulary
        yield self.donor, self.theirs, self.donated

    @staticmethod
    def _hardly_trained(checkpoint: Checkpoint, layout: Layout, vocabulary: Vocabulary) -> frozenset[int]:
        return hardly_trained(checkpoint.read(str(layout.embedding))[: max(vocabulary.ids.values()) + 1])

    def _check_others(self) -> None:
        """Refuse other tensors with a row per token, of which nothing is known in the donor."""
        rows = self.model.tensors[str(self.ours.embedding)].shape[0]
        others = [
            name
            for name in (*self.ours.before.values(), *self.ours.after.values())
            if len(self.model.tensors[name].shape) == 2
            and self.model.tensors[name].shape[0] == rows
            and name not in self.ours.vocabulary_tensors
            and not is_position(name)
        ]
        if others:
            raise MergeError(
                f"{self.model.directory}: {and_more(others)} have a row per token too, beside embedding and head, and "
                "nothing says what they are for other tokens. Use a model without them"
            )

    def layout(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and shape of the result's tensors."""
        tables = self.ours.vocabulary_tensors
        return [
            (name, header.dtype, (self.rows, *header.shape[1:]) if name in tables else header.shape)
            for name, header in self.model.tensors.items()
            if not (self.ours.tied and is_head(name) and name not in tables)
        ]

    def tensors(self, progress: Callable[[int, int, str], None] | None) -> Iterator[tuple[str, Tensor]]:
        """The result's tensors in their order."""
        jobs, done = self.layout(), 0
        batches = {name: 1 - -len(self._plan(name).made) // self.batch for name in self._tables}
        total = len(jobs) + sum(batches.values())
        for name, dtype, _ in jobs:
            if name not in self.ours.vocabulary_tensors:
                tensor = self.model.read(name)
            elif name not in self._tables:
                tensor = self._moved(name)
            else:
                for tensor in self._made(name):  # noqa: B007  the last one is complete
                    done += 1
                    if progress is not None:
                        progress(done, total, name)
                tensor = self._padded(tensor)
            yield name, tensor.to(dtype)
            self.model.release(name)
            done += 1
            if progress is not None:
                progress(done, total, name)

    @property
    def _tables(self) -> tuple[str, ...]:
        """The matrices with a row per token."""
        return tuple(name for name in self.ours.vocabulary_tensors if len(self.model.tensors[name].shape) == 2)

    def _plan(self, name: str) -> RowPlan:
        return self.plans[name != self.ours.embedding]

    def _made(self, name: str) -> Iterator[Tensor]:
        head = name != self.ours.embedding
        here = self.theirs.after.get(HEAD) if head else None
        own = self.model.read(name)[: max(self.vocabulary.ids.values()) + 1]
        donor = self.donor.read(here or str(self.theirs.embedding))
        return transplanted_rows(
            self._plan(name),
            own,
            donor,
            self.tokens,
            self._pieces,
            self.method,
            self.settings,
            is_head=head,
            batch=self.batch,
            device=self.device,
        )

    def _pieces(self, token: int) -> list[int]:
        return self.splitter.split(self.matches.texts[token])

    def _moved(self, name: str) -> Tensor:
        """What else has a number per token, such as the head's bias: the model's own, and else the mean."""
        own, taken = self.model.read(name).float(), self._plan(name).taken
        result = own.mean(0).repeat(self.rows, *[1] * (own.dim() - 1))
        result[list(taken)] = own[list(taken.values())]
        return result

    def _padded(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.mean(0).expand(self.rows - len(rows), -1)])

    def config(self) -> dict[str, Any]:
        """The model's config with the new vocabulary."""
        return self.with_token_ids(_with_vocabulary(self.model.config, self.rows), self.donor.config)

    def with_token_ids(self, config: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
        """A config whose ids of special tokens are the donor's, and else those of the same tokens."""
        return special_ids(self._with_new_ids(config), stated)

    def _with_new_ids(self, config: Mapping[str, Any]) -> dict[str, Any]:
        new = {theirs: ours for ours, theirs in self.matches.same.items()}
        result = dict(config)
        for key, value in config.items():
            if isinstance(value, dict):
                result[key] = self._with_new_ids(value)
            elif is_token_id(key):
                is_list = isinstance(value, list)
                result[key] = [new[token] for token in value if token in new] if is_list else new.get(value)
        return result


def _with_vocabulary(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A config whose language model has so many rows."""
    if "vocab_size" in config:
        return {**config, "vocab_size": rows}
    for key in sorted(config, key=lambda key: "text" not in key):
        if isinstance(config[key], dict) and "vocab_size" in config[key]:
            return {**config, key: {**config[key], "vocab_size": rows}}
    return dict(config)


def _with_rows(checkpoint: Checkpoint, layout: Layout) -> Vocabulary:
    """The tokens of a model that have a row."""
    if layout.embedding is None:
        raise MergeError(f"{checkpoint.directory}: no embedding among its tensors. Is it a language model?")
    return checkpoint_vocabulary(checkpoint).within(checkpoint.tensors[layout.embedding].shape[0])
