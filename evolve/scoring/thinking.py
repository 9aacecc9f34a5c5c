"""What a model thinks before it answers, and where that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Thinking(BaseModel):
    """For models that think first: the answer follows the last `end`, and stop strings apply to it alone. lm-eval's
    `think_end_token`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    end: Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)] = Field(
        default="</think>", description="The text that ends a thought, or the id of the token that does."
    )
    strip: bool = Field(default=True, description="Remove the thought before scoring.")

    def split(self, text: str) -> tuple[str, str]:
        """The thought with what ended it, and the answer; no thought where nothing ended one.

        Args:
            text: What the model wrote, the end of a thought in it as text.
        """
        before, found, answer = text.rpartition(str(self.end))
        return before + found, answer

    def split_tokens(self, tokens: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """The same of token ids, where an id ends a thought."""
        start = next((place for place in range(len(tokens), 0, -1) if tokens[place - 1] == self.end), 0)
        return tokens[:start], tokens[start:]


THINKING = (
    "For a model that thinks before it answers, such as `{end: </think>}`: only what follows the thought is scored. "
    "If its template has a switch, set `chat_template_args: {enable_thinking: true}`, and allow enough tokens."
)
