"""What a user may say about a task of lm-eval's."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.task_config import TaskConfig
from evolve.scoring.thinking import THINKING, Thinking


class LmEvalTask(TaskConfig):
    """A task of lm-eval, or one written for it."""

    name: str = Field(
        min_length=1,
        description="An lm-eval task, group or tag: built in, or defined by a YAML file in one of the search "
        "paths. The path of such a YAML file also works.",
    )
    metric: str | None = Field(
        default=None,
        min_length=1,
        description="A metric of the task, such as `acc`, or with a filter, such as `exact_match,strict-match`. "
        "Default: the task's first metric and first filter.",
    )
    num_fewshot: int | None = Field(
        default=None, ge=0, description="Examples shown before each question. Default: the task's own number."
    )
    fewshot_seed: int | None = Field(
        default=None, description="Seed for drawing the few-shot examples. Default: the seed of the search."
    )
    gen_kwargs: dict[str, Any] | str | None = Field(
        default=None,
        description="Generation settings that override the task's own, such as `{max_gen_toks: 64}` or "
        '`"max_gen_toks=64,until=###"`.',
    )
    apply_chat_template: bool | str = Field(
        default=False, description="Render prompts with the tokenizer's chat template; a text selects one by name."
    )
    fewshot_as_multiturn: bool = Field(
        default=True,
        description="With a chat template: few-shot examples as turns of the conversation, not in one user message.",
    )
    system_instruction: str | None = Field(default=None, description="A system message before every prompt.")
    chat_template_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further variables of the chat template, such as `{enable_thinking: false}`.",
    )
    thinking: Thinking | None = Field(default=None, description=THINKING)
    repeats: int | None = Field(
        default=None,
        ge=2,
        description="For sampled answers (`gen_kwargs: {temperature: 0.6}`): how often each item is asked. Its value "
        "is the mean over the answers, avg@k. Default: the task's own repeats, all of which its filters see.",
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="Values for tasks that read them, such as `{max_seq_lengths: [4096]}`; lm-eval's `--metadata`.",
    )
    confirm_run_unsafe_code: bool = Field(
        default=False,
        description="Allow a task that executes code written by the model. Use a sandbox.",
    )

    @property
    def default_label(self) -> str:
        """lm-eval's name."""
        return self.name

    @model_validator(mode="after")
    def _consistent(self) -> LmEvalTask:
        if self.thinking is not None and self.signal != "metric":
            message = f"{self.signal} asks how probable answers right after the prompt are, and a thought comes first"
            raise TaskError(Problem(("signal",), f"{message}. Remove signal"))
        return self
