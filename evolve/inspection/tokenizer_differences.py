"""How the tokenizers and chat templates of models differ from the first model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from merge_core import Checkpoint, MergeError
from merge_core.vocabulary.chat_template import read_chat_template
from merge_core.vocabulary.differences import VocabularyDifference, vocabulary_difference
from merge_core.vocabulary.vocabulary import checkpoint_vocabulary


@dataclass(frozen=True)
class TokenizerDifference:
    """What one model's tokenizer has that the first one's has not, and the other way round.

    Attributes:
        label: of the model.
        vocabulary: how its tokens and their ids differ.
        template: whether its chat template is another one.
        problem: why its tokenizer cannot be read; None where it can.
    """

    label: str
    vocabulary: VocabularyDifference = field(default_factory=VocabularyDifference)
    template: bool = False
    problem: str | None = None

    @property
    def vocabulary_differs(self) -> bool:
        """Whether a token's row in one model is not its row in the other."""
        return bool(self.vocabulary.more or self.vocabulary.fewer) or self.vocabulary.rows_differ


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
        vocabulary = vocabulary_difference(checkpoint_vocabulary(first), checkpoint_vocabulary(other))
    except MergeError as error:
        return TokenizerDifference(label, problem=str(error))
    return TokenizerDifference(
        label,
        vocabulary,
        template=read_chat_template(first.directory) != read_chat_template(other.directory),
    )
