"""YAML → `Tokenizer`: whose vocabulary the result has, and where the rows of single tokens come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.bounds import PADDING_MULTIPLE, TOKENS
from merge_core.errors import Place, did_you_mean, shown
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.part_reader import PartReader
from merge_core.recipe.parts import TokenEmbedding, Tokenizer, TokenSource


class TokenizerReader(PartReader):
    """Reads the tokenizer settings of a recipe."""

    def vocabulary_source(self, value: object, place: Place) -> str | ModelReference | None:
        """``union``, ``base`` or a model."""
        if value in ("union", "base"):
            return str(value)
        return self.reference(value, place)

    def read(self, value: object) -> Tokenizer | None:
        """The recipe's ``tokenizer``."""
        if value is None:
            return None
        mapping = self.mapping(value, ("tokenizer",), ("source", "tokens", "pad_to_multiple_of"))
        if mapping is None:
            return None
        padding = mapping.get("pad_to_multiple_of")
        if padding is not None and (
            not isinstance(padding, int) or isinstance(padding, bool) or not 0 < padding <= PADDING_MULTIPLE
        ):
            message = f"expected a whole number from 1 to {PADDING_MULTIPLE}, got {shown(padding)}"
            self.problem(("tokenizer", "pad_to_multiple_of"), message)
            padding = None
        tokens = mapping.get("tokens") or {}
        if not isinstance(tokens, Mapping):
            self.problem(("tokenizer", "tokens"), f"expected a map from token texts, got {shown(tokens)}")
            tokens = {}
        read = [
            (str(token), self.token(content, ("tokenizer", "tokens", str(token)))) for token, content in tokens.items()
        ]
        source = self.vocabulary_source(mapping.get("source"), ("tokenizer", "source"))
        return Tokenizer(
            source or "union", tuple((token, entry) for token, entry in read if entry is not None), padding
        )

    def token(self, value: object, place: Place) -> TokenEmbedding | None:
        mapping = self.mapping(value, place, ("source", "force"))
        if mapping is None:
            return None
        force = mapping.get("force", False)
        if not isinstance(force, bool):
            self.problem((*place, "force"), f"expected true or false, got {shown(force)}")
            force = False
        source = mapping.get("source")
        if isinstance(source, Mapping) and "kind" in source:
            return TokenEmbedding(self.token_source(source, (*place, "source")), force)
        reference = self.reference(source, (*place, "source"))
        return TokenEmbedding(None if reference is None else TokenSource("model", reference), force)

    def token_source(self, source: Mapping[str, Any], place: Place) -> TokenSource | None:
        kind = source["kind"]
        if kind == "zero":
            self.mapping(source, place, ("kind",))
            return TokenSource("zero")
        if kind != "model_token":
            self.problem(place, f'unknown kind "{kind}".{did_you_mean(kind, ["zero", "model_token"])}')
            return None
        self.mapping(source, place, ("kind", "model", "token", "token_id"))
        token, token_id = source.get("token"), source.get("token_id")
        if (token is None) == (token_id is None):
            self.problem(place, "expected exactly one of token and token_id")
        elif token_id is not None and (type(token_id) is not int or not 0 <= token_id < TOKENS):
            self.problem((*place, "token_id"), f"expected a whole number from 0, got {shown(token_id)}")
        return TokenSource(
            "model_token", self.required_model(source, place), self.text(token, (*place, "token")), token_id
        )
