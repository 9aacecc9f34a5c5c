"""The output vocabulary of a merge, and where every row of the embeddings comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merge_core.architecture import find_key
from merge_core.checkpoint_reader import Checkpoint
from merge_core.errors import MergeError, Problem, and_more, did_you_mean
from merge_core.recipe import Recipe, Tokenizer, TokenSource
from merge_core.row_map import RowMap, Rows
from merge_core.vocabulary import Vocabulary, added_token, checkpoint_vocabulary

_AVERAGED, _ZERO = -1, -2
Ids = NDArray[np.int64]


def tokenizer_settings(recipe: Recipe) -> Tokenizer | None:
    """The recipe's tokenizer block; ``tokenizer_source: X`` is ``tokenizer: {source: X}``."""
    if recipe.tokenizer is not None:
        return recipe.tokenizer
    return None if recipe.tokenizer_source is None else Tokenizer(recipe.tokenizer_source)


def align_vocabularies(
    recipe: Recipe, models: Sequence[str], checkpoints: Mapping[str, Checkpoint]
) -> Alignment | None:
    """Choose the output vocabulary and find every model's rows in it; None without a tokenizer setting.

    Computed once per models and settings and kept with the first model's checkpoint: planning a candidate
    finds it there.

    Args:
        recipe: for its tokenizer settings and base model.
        models: references of the models that are merged.
        checkpoints: reference → checkpoint.

    Raises:
        MergeError: a tokenizer that cannot be read, kinds that have no union, a token's source that is wrong.
    """
    settings = tokenizer_settings(recipe)
    if settings is None:
        return None
    base = None if recipe.base_model is None else str(recipe.base_model)
    ordered = list(dict.fromkeys([*([base] if base is not None and base in checkpoints else []), *models]))
    source = ordered[0] if settings.source in ("union", "base") else str(settings.source)
    inputs = tuple((model, checkpoints[model]) for model in dict.fromkeys([*ordered, source]))
    key = (align_vocabularies, settings, base, source, inputs)
    return checkpoints[source].memo(
        key, lambda: _Aligner(recipe.where, settings, source, ordered, checkpoints).align(base)
    )


@dataclass(frozen=True, slots=True)
class Override:
    """What the recipe says of one token: ``model`` and ``row``, or zeros when there is no model."""

    token: int
    model: str | None
    row: int
    force: bool


class Alignment:
    """The output vocabulary.

    Attributes:
        source: the model whose tokenizer the output's begins with; its tokens keep their ids.
        vocabularies: of the merged models and of the source.
        ids: token → id.
        ordinary: tokens appended to the tokenizer's model, in the order of their ids.
        added: entries of ``added_tokens`` that are appended.
        unchanged: every model has this very vocabulary, and no row moves.
        count: number of rows, padding included.
        warnings: one line each.
        key: equal for equal vocabularies.
    """

    def __init__(
        self,
        source: str,
        base: str | None,
        vocabularies: Mapping[str, Vocabulary],
        ids: Mapping[str, int],
        ordinary: Sequence[str],
        added: Sequence[Mapping[str, Any]],
        overrides: Sequence[Override],
        padding_multiple: int,
        unchanged: bool,
        warnings: Sequence[str],
    ) -> None:
        self.source, self.vocabularies, self.ids = source, vocabularies, ids
        self.ordinary, self.added, self.unchanged = ordinary, added, unchanged
        self.warnings = list(warnings)
        self.key = hashlib.sha256("\0".join(ids).encode(errors="surrogatepass")).hexdigest()
        self._base = base
        self._overrides = overrides
        tokens = max(ids.values()) + 1
        self.count = -(-tokens // padding_multiple) * padding_multiple
        self._positions = np.fromiter(ids.values(), np.int64, len(ids))
        self._tokens = tokens
        self._own: dict[str, Ids] = {}
        self._maps: dict[Any, tuple[tuple[RowMap, ...], tuple[str, ...]]] = {}

    def row_maps(
        self, models: Sequence[str], tensors: Sequence[str], rows: Sequence[int], tensor_of: Callable[[str], str]
    ) -> tuple[tuple[RowMap, ...], tuple[str, ...]]:
        """How the inputs of one tensor are made.

        Args:
            models: references of the inputs.
            tensors: name of the tensor in each.
            rows: how many rows each has.
            tensor_of: the tensor's name in a model that is not an input.

        Returns:
            A map for each input, and warnings.
        """
        key = (tuple(models), tuple(tensors), tuple(rows))
        if key not in self._maps:
            self._maps[key] = self._make_maps(models, tensors, rows, tensor_of)
        return self._maps[key]

    def own_rows(self, model: str) -> Ids:
        """Per output id the model's row, −1 where it lacks the token. (tokens,)"""
        if model not in self._own:
            if model == self.source:
                # Its tokens keep their ids; ids without a token (gaps) keep the row they have.
                result = np.arange(self._tokens, dtype=np.int64)
                result[max(self.vocabularies[model].ids.values()) + 1 :] = -1
            else:
                find = self.vocabularies[model].ids.get
                result = np.full(self._tokens, -1, dtype=np.int64)
                result[self._positions] = np.fromiter([find(token, -1) for token in self.ids], np.int64, len(self.ids))
            self._own[model] = result
        return self._own[model]

    def _make_maps(
        self, models: Sequence[str], tensors: Sequence[str], rows: Sequence[int], tensor_of: Callable[[str], str]
    ) -> tuple[tuple[RowMap, ...], tuple[str, ...]]:
        own = np.stack([self.own_rows(model) for model in models])
        own[own >= np.array(rows)[:, None]] = -1
        has = own >= 0
        owners = has.sum(axis=0)
        # Where the row of a model that lacks the token comes from: a model's position, the average, or zeros.
        origin = np.where(owners == 1, has.argmax(axis=0), np.where(owners == 0, _ZERO, _AVERAGED))
        if self._base in models:
            origin[has[models.index(self._base)]] = models.index(self._base)
        columns = np.arange(self._tokens)
        row = np.where(origin >= 0, own[np.maximum(origin, 0), columns], 0)
        sources = list(zip(models, tensors, strict=True))
        forced = np.zeros(self._tokens, dtype=bool)
        nobody = owners == 0
        for override in self._overrides:
            nobody[override.token] = False
            origin[override.token], row[override.token] = _ZERO, override.row
            if override.model is not None:
                if override.model not in [model for model, _ in sources]:
                    sources.append((override.model, tensor_of(override.model)))
                position = [model for model, _ in sources].index(override.model)
                if position < len(rows) and override.row >= rows[position]:
                    raise MergeError(
                        f'model "{override.model}": {tensors[position]} has {rows[position]} rows, '
                        f"but tokenizer.tokens names row {override.row} of it"
                    )
                origin[override.token] = position
            forced[override.token] = override.force
        maps = []
        for index in range(len(models)):
            filled = ~has[index] | forced
            borrowed = [
                Rows(model, tensor, _tensor(chosen), _tensor(row[chosen]))
                for position, (model, tensor) in enumerate(sources)
                if (chosen := np.flatnonzero(filled & (origin == position))).size
            ]
            averaged = [
                Rows(models[other], tensors[other], _tensor(chosen), _tensor(own[other][chosen]))
                for other in range(len(models))
                if (chosen := np.flatnonzero(filled & (origin == _AVERAGED) & has[other])).size
            ]
            zeros = _tensor(np.flatnonzero(filled & (origin == _ZERO)))
            taken = _tensor(np.where(filled, 0, own[index]))
            maps.append(RowMap(taken, tuple(borrowed), tuple(averaged), zeros, self.count - self._tokens))
        return tuple(maps), self._warn_of(nobody)

    def _warn_of(self, nobody: NDArray[np.bool_]) -> tuple[str, ...]:
        positions = set(np.flatnonzero(nobody).tolist())
        tokens = [repr(token) for token, position in self.ids.items() if position in positions] if positions else []
        return (f"no input has a row for the tokens {and_more(tokens)}: theirs are zero",) if tokens else ()


def _tensor(ids: NDArray[np.int64] | NDArray[np.intp]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))


class _Aligner:
    def __init__(
        self,
        where: str,
        settings: Tokenizer,
        source: str,
        models: Sequence[str],
        checkpoints: Mapping[str, Checkpoint],
    ) -> None:
        self.where, self.settings, self.source, self.models = where, settings, source, models
        self.checkpoints = checkpoints
        problems: list[Problem | str] = []
        self.vocabularies: dict[str, Vocabulary] = {}
        for model in dict.fromkeys([source, *models]):
            try:
                self.vocabularies[model] = checkpoint_vocabulary(checkpoints[model])
            except MergeError as error:
                problems += [f'model "{model}": {problem}' for problem in error.problems]
        if problems:
            raise MergeError(*problems)
        self.warnings: list[str] = []

    def align(self, base: str | None) -> Alignment:
        first = self.vocabularies[self.source]
        ids = dict(first.ids)
        self.next_id = max(ids.values()) + 1
        ordinary: list[str] = []
        added: list[Mapping[str, Any]] = []
        if self.settings.source == "union":
            self.check_kinds()
            ordinary, added = self.append_all(ids)
        for token, _ in self.settings.tokens:
            if token not in ids:
                added.append(self.append(ids, token))
        unchanged = (
            not added
            and not ordinary
            and self.settings.pad_to_multiple_of is None
            and not self.settings.tokens
            and all(other is first or other.ids == first.ids for other in self.vocabularies.values())
        )
        return Alignment(
            self.source,
            base,
            self.vocabularies,
            ids,
            ordinary,
            added,
            self.overrides(ids),
            self.settings.pad_to_multiple_of or 1,
            unchanged,
            self.warnings,
        )

    def check_kinds(self) -> None:
        kinds = {model: vocabulary.kind for model, vocabulary in self.vocabularies.items()}
        if len(set(kinds.values())) > 1:
            found = ", ".join(f'"{model}" {kind}' for model, kind in kinds.items())
            message = f"tokenizers of different kinds have no union: {found}. Use source: base"
            raise MergeError(Problem(("tokenizer",), message, self.where))
        styles = {model: vocabulary.style for model, vocabulary in self.vocabularies.items()}
        if len(set(styles.values())) > 1:
            found = ", ".join(f'"{model}" {style}' for model, style in styles.items())
            self.warnings.append(
                f"tokenizer: the union's tokenizers write spaces differently: {found}. Text is split as "
                f'"{self.source}" does, so that few tokens of the others are ever used'
            )

    def append_all(self, ids: dict[str, int]) -> tuple[list[str], list[Mapping[str, Any]]]:
        """Ordinary tokens of all models, then their added tokens; model by model, in the order of their ids."""
        special = {token for vocabulary in self.vocabularies.values() for token in vocabulary.added}
        start = self.next_id
        ordinary: dict[str, None] = {}
        for vocabulary in self.vocabularies.values():
            if vocabulary.ids.keys() - ids.keys():
                new = [token for token in vocabulary.ids if token not in ids and token not in special]
                ordinary |= dict.fromkeys(sorted(new, key=vocabulary.ids.__getitem__))
        self.next_id = start + len(ordinary)
        ids.update(zip(ordinary, range(start, self.next_id), strict=True))
        added: list[Mapping[str, Any]] = []
        for vocabulary in self.vocabularies.values():
            for token in sorted(vocabulary.added, key=vocabulary.ids.__getitem__):
                if token not in ids:
                    added.append(self.append(ids, token))
        return list(ordinary), added

    def append(self, ids: dict[str, int], token: str) -> dict[str, Any]:
        like = next((own.added[token] for own in self.vocabularies.values() if token in own.added), None)
        ids[token] = self.next_id
        self.next_id += 1
        return added_token(token, ids[token], like)

    def overrides(self, ids: Mapping[str, int]) -> list[Override]:
        found: list[Override] = []
        problems: list[Problem] = []
        for token, entry in self.settings.tokens:
            if entry.source is not None:
                try:
                    model, row = self.row_of(entry.source, token)
                    found.append(Override(ids[token], model, row, entry.force))
                except MergeError as error:
                    place = ("tokenizer", "tokens", token, "source")
                    problems += [Problem(place, problem.message, self.where) for problem in error.problems]
        if problems:
            raise MergeError(*problems)
        return found

    def row_of(self, source: TokenSource, token: str) -> tuple[str | None, int]:
        if source.kind == "zero":
            return None, 0
        model = str(source.model)
        if model not in self.models:
            raise MergeError(f'"{model}" is not one of the merged models.{did_you_mean(model, self.models)}')
        vocabulary = self.vocabularies[model]
        if source.token_id is not None:
            rows = max(vocabulary.ids.values()) + 1
            return model, self.checked_row(source.token_id, model, rows)
        wanted = token if source.token is None else source.token
        if wanted not in vocabulary.ids:
            raise MergeError(f'"{model}" has no token {wanted!r}. Name a token of its tokenizer')
        return model, vocabulary.ids[wanted]

    def checked_row(self, row: int, model: str, tokens: int) -> int:
        # A padded embedding has more rows than tokens, and they can be named.
        rows = max(tokens, int(find_key(self.checkpoints[model].config, "vocab_size") or 0))
        if not 0 <= row < rows:
            raise MergeError(f'token_id {row} is out of range: "{model}" has ids 0 to {rows - 1}')
        return row
