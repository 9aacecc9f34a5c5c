"""How the tokenizers of two models differ: which tokens they have, what an id stands for, how a text is cut."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, and_more
from merge_core.input_files import reading
from merge_core.vocabulary.tokenizer_files import OTHER_FORMS
from merge_core.vocabulary.vocabulary import Vocabulary, declared_tokens, merge_pairs, read_vocabulary

_ALIGN = "Rows are merged id by id; set tokenizer: {source: union} to align the vocabularies"
_CHOOSE = "The result has the first's; set tokenizer: {source: MODEL} to give it another's"


@dataclass(frozen=True, slots=True)
class VocabularyDifference:
    """What the second of two tokenizers has otherwise than the first.

    Attributes:
        more: tokens that only the second has, sorted.
        fewer: tokens that only the first has, sorted.
        moved: tokens of both under another id, sorted.
        renamed: ids of both that stand for other tokens → the first's, the second's.
        segmentation: whether texts are cut otherwise though all tokens are the same: by other merges or scores.
    """

    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    renamed: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    segmentation: bool = False

    @property
    def rows_differ(self) -> bool:
        """Whether the row of an id in one model is not that of the same token in the other."""
        return bool(self.moved or self.renamed)


def vocabulary_difference(first: Vocabulary, second: Vocabulary) -> VocabularyDifference:
    """Compare two tokenizers, by their tokens, ids, merges and scores."""
    ours, theirs = first.ids, second.ids
    if ours == theirs:
        return VocabularyDifference(segmentation=_segmentation(first) != _segmentation(second))
    own, other = dict(ours.items() - theirs.items()), dict(theirs.items() - ours.items())
    there = {index: token for token, index in other.items()}
    return VocabularyDifference(
        more=tuple(sorted(other.keys() - ours.keys())),
        fewer=tuple(sorted(own.keys() - theirs.keys())),
        moved=tuple(sorted(own.keys() & other.keys())),
        renamed={index: (token, there[index]) for token, index in own.items() if index in there},
    )


def unaligned_rows(
    models: Sequence[str], checkpoints: Mapping[str, Checkpoint], align: str = _ALIGN, choose: str = _CHOOSE
) -> tuple[str, ...]:
    """Warn of models that are merged by ids which do not stand for the same tokens in all of them.

    Found once and kept with the first model's checkpoint. Models whose tokenizer files are equal are compared by these
    alone; those whose tokenizer cannot be read are passed over, since nothing else needs it.

    Args:
        models: references, first that of the model whose tokenizer the result has.
        checkpoints: reference → checkpoint.
        align: what to do about other rows.
        choose: what to do about texts that are cut otherwise.

    Returns:
        One line for models with other rows, one for those that cut a text otherwise.
    """
    first, *others = models
    inputs = tuple((model, checkpoints[model]) for model in others)
    return checkpoints[first].memo(
        (unaligned_rows, first, inputs, align, choose),
        lambda: tuple(_warnings(first, checkpoints[first], inputs, align, choose)),
    )


def _warnings(
    first: str, own: Checkpoint, others: Sequence[tuple[str, Checkpoint]], align: str, choose: str
) -> Iterator[str]:
    found = dict(_differences(own, others))
    rows = [f'"{model}" {_rows(difference)}' for model, difference in found.items() if difference.rows_differ]
    if rows:
        yield f'vocabularies differ from that of "{first}": {and_more(rows)}. {align}'
    cut = [f'"{model}"' for model, difference in found.items() if difference.segmentation]
    if cut:
        yield (
            f'tokenizers cut texts otherwise than that of "{first}", by other merges or scores of the same tokens: '
            f"{and_more(cut)}. {choose}"
        )


def _differences(
    own: Checkpoint, others: Sequence[tuple[str, Checkpoint]]
) -> Iterator[tuple[str, VocabularyDifference]]:
    ours: Vocabulary | None = None
    for model, checkpoint in others:
        with contextlib.suppress(MergeError):
            if not _same_files(own.directory, checkpoint.directory):
                # Not by `checkpoint_vocabulary`: a worker would hold the tokenizers of all models for a warning.
                ours = ours or read_vocabulary(own.directory, own.trust_remote_code)
                theirs = read_vocabulary(checkpoint.directory, checkpoint.trust_remote_code)
                yield model, vocabulary_difference(ours, theirs)


def _same_files(first: Path, second: Path) -> bool:
    """Whether two directories hold the same tokenizer, to the byte."""
    names = ["tokenizer.json"]
    if not all((directory / names[0]).exists() for directory in (first, second)):
        patterns = (*names, *OTHER_FORMS)
        found = [{file.name for pattern in patterns for file in own.glob(pattern)} for own in (first, second)]
        names = sorted(found[0] | found[1])
        if found[0] != found[1] or not names:
            return False
    with reading(second):
        same = all(filecmp.cmp(first / name, second / name, shallow=False) for name in names)
    return same and declared_tokens(first) == declared_tokens(second)


def _rows(difference: VocabularyDifference) -> str:
    if not difference.renamed:
        return f"has {len(difference.moved)} tokens under other ids ({difference.moved[0]!r})"
    index, (ours, theirs) = min(difference.renamed.items())
    count = len(difference.renamed)
    return f"has another token at {count} id{'' if count == 1 else 's'} ({index}: {theirs!r} for {ours!r})"


def _segmentation(vocabulary: Vocabulary) -> object:
    """What chooses among equal tokens: merges in their order, or the scores of a unigram model."""
    model = vocabulary.document["model"]
    merges = merge_pairs(model.get("merges") or [])
    return merges, model["vocab"] if isinstance(model["vocab"], list) else None
