"""What a user may say about a task of generated problems."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evolve.scoring.backends.bounded_templates import templates
from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.scorers.item_failures import ON_ITEM_ERROR, OnItemError
from evolve.scoring.task_config import TaskConfig
from evolve.scoring.thinking import THINKING, Thinking

MOST_ITEMS = 100_000
"""Of one task: far below the distance between the problems of two seeds."""


class ReasoningGymTask(TaskConfig):
    """Generated problems of one family of `reasoning-gym`; the score is the mean of its verifier's scores, 0 to 1."""

    reasoning_gym: str = Field(
        min_length=1, description="A family, such as `family_relationships`. Needs `pip install reasoning-gym`."
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="The family's own settings, such as `{min_words: 3, max_words: 5}`."
    )
    items: int = Field(default=1000, ge=1, le=MOST_ITEMS, description="Number of problems; no two are equal.")
    seed: int | None = Field(
        default=None, ge=0, description="Another seed gives entirely different problems. Default: the search's seed."
    )
    num_fewshot: int = Field(default=0, ge=0, description="Solved problems shown before each problem, always the same.")
    prompt: str | None = Field(
        default=None,
        min_length=1,
        description="A Jinja2 template of `question`. Default: the question alone with a chat template, else "
        '`"Question: {{ question }}\\nAnswer:"`.',
    )
    target_delimiter: str | None = Field(
        default=None, description='Between prompt and answer. Default: nothing with a chat template, else `" "`.'
    )
    fewshot_delimiter: str = Field(default="\n\n", description="Between solved problems, without a chat template.")
    stop: tuple[str, ...] = Field(default=("\n\n",), description="Strings that end an answer.")
    max_new_tokens: int = Field(default=64, ge=1, description="Maximum tokens of an answer.")
    answer_tag: str | None = Field(
        default=None,
        pattern=r"^\w+$",
        description="Verify only the text between the last `<tag>` and `</tag>`, as in `answer`. Default: the whole "
        "answer.",
    )
    partial_credit: bool = Field(
        default=True,
        description="Count partly right answers as the verifier scores them; otherwise only a full score counts.",
    )
    apply_chat_template: bool | str = Field(
        default=False, description="Render prompts with the tokenizer's chat template; a text selects one by name."
    )
    system_instruction: str | None = Field(default=None, description="With the chat template: a system message.")
    chat_template_args: dict[str, Any] = Field(
        default_factory=dict, description="Further variables of the chat template, such as `{enable_thinking: false}`."
    )
    thinking: Thinking | None = Field(default=None, description=THINKING)
    on_item_error: OnItemError = Field(default="fail", description=ON_ITEM_ERROR)

    @property
    def default_label(self) -> str:
        """The family's name."""
        return self.reasoning_gym

    def prompt_of(self, question: str) -> str:
        """What the model is asked.

        Raises:
            TaskError: The template of the prompt cannot be rendered.
        """
        if self.prompt is not None:
            return templates.text(self.prompt, {"question": question})
        return question if self.apply_chat_template else f"Question: {question}\nAnswer:"

    @property
    def answer_delimiter(self) -> str:
        """Between prompt and answer."""
        return self.target_delimiter if self.target_delimiter is not None else ("" if self.apply_chat_template else " ")

    @model_validator(mode="after")
    def _consistent(self) -> ReasoningGymTask:
        if self.system_instruction is not None and not self.apply_chat_template:
            raise ValueError("system_instruction needs apply_chat_template: true")
        if self.thinking is not None and self.signal != "metric":
            message = f"{self.signal} asks how probable answers right after the prompt are, and a thought comes first"
            raise TaskError(Problem(("signal",), f"{message}. Remove signal"))
        try:
            uses_question = self.prompt_of("\ue000") != self.prompt_of("")
        except TaskError as error:
            raise TaskError(Problem(("prompt",), str(error))) from None
        if not uses_question:
            raise TaskError(Problem(("prompt",), "does not use the question. Put {{ question }} into it"))
        return self
