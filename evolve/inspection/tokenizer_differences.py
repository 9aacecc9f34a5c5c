"""How the tokenizers and chat templates of models differ from the first model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merge_core import Checkpoint, MergeError
from merge_core.vocabulary.chat_template import read_chat_template
from merge_core.vocabulary.vocabulary import checkpoint_vocabulary


@dataclass(frozen=True)
class TokenizerDifference:
    """What one model's tokenizer has that the first one's has not, and the other way round.

    Attributes:
        label: of the model.
        more: tokens that only it has.
        fewer: tokens that it lacks.
        moved: tokens of both under another id.
        template: whether its chat template is another one.
        problem: why its tokenizer cannot be read; None where it can.
    """

    label: str
    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()
    moved: int = 0
    template: bool = False
    problem: str | None = None

    @property
    def vocabulary_differs(self) -> bool:
        """Whether a token's row in one model is not its row in the other."""
        return bool(self.more or self.fewer or self.moved)


def tokenizer_differences(checkpoints: Mapping[str, Checkpoint], labels: Sequence[str]) -> list[TokenizerDifference]:
    """Every model but the first that differs from it.

    Args:
        checkpoints: label → model.
        labels: of those that are compared.
    """
    first, *others = labels
    found = [_difference(label, checkpoints[first], checkpoints[label]) for label in others]
    return [one for one in found if one != TokenizerDifference(one.label)]


def _difference(label: str, first: Checkpoint, other: Checkpoint) -> TokenizerDifference:
    try:
        ours, theirs = checkpoint_vocabulary(first).ids, checkpoint_vocabulary(other).ids
    except MergeError as error:
        return TokenizerDifference(label, problem=str(error))
    return TokenizerDifference(
        label,
        more=tuple(sorted(theirs.keys() - ours.keys())),
        fewer=tuple(sorted(ours.keys() - theirs.keys())),
        moved=sum(theirs[token] != row for token, row in ours.items() if token in theirs),
        template=read_chat_template(first.directory) != read_chat_template(other.directory),
    )
