"""From a recipe's tokenizer settings to the output vocabulary: which tokens it has, and whose rows they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merge_core.checkpoint.layout import checkpoint_layout, find_key
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, Problem, and_more, did_you_mean
from merge_core.recipe.parts import Tokenizer, TokenSource
from merge_core.recipe.recipe import Recipe
from merge_core.vocabulary.alignment import Alignment, Override
from merge_core.vocabulary.vocabulary import Vocabulary, added_token, checkpoint_vocabulary


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
        MergeError: a tokenizer that cannot be read, a token's source that is wrong.
    """
    settings = _tokenizer_settings(recipe)
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


def _tokenizer_settings(recipe: Recipe) -> Tokenizer | None:
    """The recipe's tokenizer block; ``tokenizer_source: X`` is ``tokenizer: {source: X}``."""
    if recipe.tokenizer is not None:
        return recipe.tokenizer
    return None if recipe.tokenizer_source is None else Tokenizer(recipe.tokenizer_source)


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
        self.warnings: list[str] = []
        self.vocabularies: dict[str, Vocabulary] = {}
        for model in dict.fromkeys([source, *models]):
            try:
                self.vocabularies[model] = self.with_rows(model)
            except MergeError as error:
                problems += [f'model "{model}": {problem}' for problem in error.problems]
        if problems:
            raise MergeError(*problems)

    def with_rows(self, model: str) -> Vocabulary:
        checkpoint = self.checkpoints[model]
        layout, vocabulary = checkpoint_layout(checkpoint), checkpoint_vocabulary(checkpoint)
        if layout.embedding is None:
            return vocabulary
        rows = checkpoint.tensors[layout.embedding].shape[0]
        found = vocabulary.within(rows)
        if found.left_out:
            tokens = and_more(repr(token) for token in sorted(found.left_out, key=vocabulary.ids.__getitem__))
            self.warnings.append(f'tokenizer: "{model}" has {rows} rows and none for {tokens}: left out')
        return found

    def align(self, base: str | None) -> Alignment:
        first = self.vocabularies[self.source]
        ids = dict(first.ids)
        self.next_id = max(ids.values()) + 1
        ordinary: list[str] = []
        added: list[Mapping[str, Any]] = []
        if self.settings.source == "union":
            self.warn_of_kinds()
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

    def warn_of_kinds(self) -> None:
        kinds = {model: vocabulary.kind for model, vocabulary in self.vocabularies.items()}
        if len(set(kinds.values())) > 1:
            found = ", ".join(f'"{model}" {kind}' for model, kind in kinds.items())
            self.warnings.append(
                f'tokenizer: the union\'s tokenizers are of different kinds: {found}. Text is split as "{self.source}" '
                "does: tokens of the other kinds have rows, and no text is split into them"
            )
            return
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
