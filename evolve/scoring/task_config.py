"""What a user may say about any task in `search.yml`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["maximize", "minimize"]
Signal = Literal["metric", "margin", "mixed"]


class TaskConfig(BaseModel):
    """What tasks of every kind have in common. The field descriptions become the JSON schema of `search.yml`.

    The kinds are the subclasses, told apart by the key that only they have; see `scorers.registry`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: str | None = Field(
        default=None,
        min_length=1,
        description="The name in reports. Needed if a task is used twice, for instance with different metrics.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Weight of this task in the objective, relative to the other tasks'. Always positive: for a metric "
        "that should go down, set `direction: minimize`.",
    )
    direction: Direction | None = Field(
        default=None,
        description="Whether the metric should go up (`maximize`) or down (`minimize`). Default: the metric's usual "
        "direction.",
    )
    signal: Signal = Field(
        default="metric",
        description="What the optimizer receives: the `metric`; the `margin`, a continuous number per item, if the "
        "task has one (how far the right choice is ahead, how probable the right answer is); or `mixed`, half of "
        "each. The best recipe is always chosen by the metric.",
    )

    @property
    def default_label(self) -> str:
        """The name in reports where there is no alias."""
        raise NotImplementedError

    @property
    def longest_input(self) -> tuple[tuple[str, ...], int] | None:
        """Which setting says how long the longest input is, and its number of tokens; None where none does."""
        return None

    @property
    def label(self) -> str:
        """The name in reports: the alias if there is one."""
        return self.alias or self.default_label

    @property
    def where(self) -> str:
        """What names the task in errors."""
        return f"task {self.label!r}"
