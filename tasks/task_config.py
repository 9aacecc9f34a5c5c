"""What a user may say about one task in `search.yml`: what all kinds share, and lm-eval's own kind."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["maximize", "minimize"]
Signal = Literal["metric", "margin", "mixed"]


class TaskConfig(BaseModel):
    """What tasks of every kind have in common. The field descriptions become the JSON schema of `search.yml`.

    The kinds are the subclasses, told apart by the key that only they have; see `task_kinds`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: str | None = Field(
        default=None,
        min_length=1,
        description="The name in reports. Needed when a task is used twice, with different metrics say.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Share of this task in the objective, relative to the other tasks' weights. Always "
        "positive: for a metric that should go down set `direction: minimize`.",
    )
    direction: Direction | None = Field(
        default=None,
        description="Whether the metric should go up (`maximize`) or down (`minimize`). Default: what is known about "
        "the metric.",
    )
    signal: Signal = Field(
        default="metric",
        description="What the optimizer is told: the `metric`; the `margin`, a continuous number that items have "
        "beside it where the task allows (how far the right choice is ahead, how probable the right answer is); or "
        "half of each, `mixed`. The recipe is always chosen by the metric.",
    )

    @property
    def default_label(self) -> str:
        """The name in reports where there is no alias."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The name in reports: the alias if there is one."""
        return self.alias or self.default_label

    @property
    def where(self) -> str:
        """What names the task in errors."""
        return f"task {self.label!r}"


class LmEvalTask(TaskConfig):
    """A task of lm-eval's, or one written for it."""

    name: str = Field(
        min_length=1,
        description="An lm-eval task, group or tag: built in, or defined by a YAML file in one of the search "
        "paths. The path of such a YAML file also works.",
    )
    metric: str | None = Field(
        default=None,
        min_length=1,
        description="A metric of the task, such as `acc`, or with the filter of its answers, such as "
        "`exact_match,strict-match`. Default: the first metric and the first filter of the task.",
    )
    num_fewshot: int | None = Field(
        default=None, ge=0, description="Examples shown before each question. Default: the task's own number."
    )
    fewshot_seed: int | None = Field(
        default=None, description="Seed for drawing the few-shot examples. Default: the seed of the search."
    )
    gen_kwargs: dict[str, Any] | str | None = Field(
        default=None,
        description="Generation settings laid over the task's own, such as `{max_gen_toks: 64}` or "
        '`"max_gen_toks=64,until=###"`.',
    )
    apply_chat_template: bool | str = Field(
        default=False, description="Render prompts with the tokenizer's chat template, or with its named one."
    )
    fewshot_as_multiturn: bool = Field(
        default=True, description="With a chat template: few-shot examples as turns, not in one user message."
    )
    system_instruction: str | None = Field(default=None, description="A system message before every prompt.")
    chat_template_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further variables of the chat template, such as `{enable_thinking: false}`.",
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="Values handed to tasks that ask for them, such as `{max_seq_lengths: [4096]}`; lm-eval's "
        "`--metadata`.",
    )
    confirm_run_unsafe_code: bool = Field(
        default=False,
        description="Run a task that executes code written by the model. Do so only in a sandbox.",
    )

    @property
    def default_label(self) -> str:
        """lm-eval's name."""
        return self.name
