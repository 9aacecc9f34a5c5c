"""The output vocabulary of a merge, and where every row of the embeddings comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merge_core.errors import MergeError, and_more
from merge_core.vocabulary.row_map import RowMap, Rows
from merge_core.vocabulary.vocabulary import Vocabulary

_AVERAGED, _ZERO = -1, -2
Ids = NDArray[np.int64]


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

    @property
    def changes_tokenizer(self) -> bool:
        """Whether the output's tokenizer is not the source's as it stands."""
        return bool(self.ordinary or self.added or self.vocabularies[self.source].left_out)

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
