"""The rows of a donor's tokens in a model's embedding or head: the model's own where it has the token, else made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge_core.errors import MergeError, and_more, did_you_mean
from merge_core.toolbox.token_approximations import APPROXIMATIONS, KnownRows, Settings
from merge_core.toolbox.token_matches import TokenMatches
from merge_core.vocabulary.vocabulary import Vocabulary

POOR_SHARE = 0.02
"""The share of tokens that count as hardly trained; that of the candidates in https://arxiv.org/abs/2405.05417."""


def hardly_trained(embedding: Tensor) -> frozenset[int]:
    """The tokens with the shortest rows, which training has hardly moved.

    Source: https://arxiv.org/abs/2405.05417, whose indicator this is for models with a head of their own.

    Args:
        embedding: the rows of all tokens, [tokens, size].
    """
    lengths = embedding.float().norm(dim=1)
    count = int(POOR_SHARE * len(lengths))
    return frozenset(lengths.topk(count, largest=False).indices.tolist())


def check_method(name: str) -> None:
    """Refuse a way to make rows that is not known.

    Raises:
        MergeError: with the nearest name.
    """
    if name == "mp_rope":
        raise MergeError(
            "method mp_rope: is not here, as no paper defines it and mergekit's own does not run with today's "
            "transformers. Use omp"
        )
    if name not in APPROXIMATIONS:
        raise MergeError(
            f'method "{name}": expected one of {", ".join(APPROXIMATIONS)}.{did_you_mean(name, APPROXIMATIONS)}'
        )


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Where the row of every token comes from.

    Attributes:
        taken: donor id → model id of rows that are the model's own.
        anchors: those among them by which others are made.
        made: donor ids of the rows that are made.
    """

    taken: Mapping[int, int]
    anchors: Mapping[int, int]
    made: Sequence[int]

    @staticmethod
    def of(
        matches: TokenMatches, others: Mapping[int, int], poor: frozenset[int], donor_poor: frozenset[int]
    ) -> RowPlan:
        """Plan the rows of a tensor.

        Args:
            matches: of the vocabularies.
            others: donor id → model id of tokens that are not the same, and have the model's row nevertheless.
            poor: ids of the model's tokens that were hardly trained.
            donor_poor: of the donor's.

        Raises:
            MergeError: the vocabularies have nothing in common.
        """
        same = {ours: theirs for ours, theirs in matches.same.items() if theirs not in poor}
        anchors = {ours: theirs for ours, theirs in same.items() if ours not in donor_poor}
        if not anchors:
            raise MergeError(
                "the tokenizers have no token in common, so that nothing says what the donor's tokens mean"
            )
        taken = {**{ours: theirs for ours, theirs in others.items() if theirs not in poor}, **same}
        return RowPlan(taken, anchors, [token for token in matches.texts if token not in taken])


class Splitter:
    """The tokens that a model splits a text into.

    Args:
        vocabulary: the model's.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._tokenizer = vocabulary.tokenizer()

    def split(self, text: bytes) -> list[int]:
        """Token ids; of bytes that are no UTF-8, such as half a character, none."""
        try:
            found = self._tokenizer.encode(text.decode(), add_special_tokens=False).ids
        except UnicodeDecodeError:
            return []
        return [token for token in found if token < len(self._ids)]


def transplanted_rows(
    plan: RowPlan,
    own: Tensor,
    donor: Tensor,
    tokens: int,
    pieces: Callable[[int], Sequence[int]],
    method: str,
    settings: Settings,
    *,
    is_head: bool,
    batch: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Make the rows of a tensor, one batch after the other.

    Args:
        plan: where they come from.
        own: the model's tensor, the rows of its tokens, [tokens, size].
        donor: the donor's, [rows, donor's size].
        tokens: how many the donor's tokenizer has.
        pieces: donor id → the model's tokens for its text.
        method: one of `APPROXIMATIONS`.
        settings: of the method.
        is_head: whether rows tell the next token.
        batch: how many rows are made at once.
        device: where the arithmetic runs.

    Yields:
        Nothing but the same tensor after every batch, complete after the last: [tokens, size], float32. Rows of
        ids that no token has are the mean of all others.
    """
    table = own.to(device, torch.float32)
    theirs = donor.to(torch.float32)
    seeds = torch.Generator().manual_seed(settings.seed + is_head)
    ids, rows = torch.tensor(list(plan.anchors)), torch.tensor(list(plan.anchors.values()), device=device)
    known = KnownRows(theirs[ids].to(device), table[rows], table, is_head, seeds)
    approximate = APPROXIMATIONS[method](known, settings)
    result = torch.full((tokens, table.shape[1]), torch.nan)
    result[list(plan.taken)] = own[list(plan.taken.values())].to(torch.float32)
    for start in range(0, len(plan.made), batch):
        these = list(plan.made[start : start + batch])
        made = settings.scale * approximate(theirs[these].to(device), [pieces(token) for token in these])
        if settings.noise:
            made = made + settings.noise * known.normal(*made.shape)
        if not made.isfinite().all():
            broken = [token for token, row in zip(these, made, strict=True) if not row.isfinite().all()]
            raise MergeError(
                f"method {method}: no finite rows for the tokens {and_more(map(str, broken))}. Use another"
            )
        result[these] = made.cpu()
        yield result
    empty = result[:, 0].isnan()
    result[empty] = result[~empty].mean(0)
    yield result
