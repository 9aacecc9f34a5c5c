"""How a model is asked a generated problem: the text of prompts, and of right answers as they would follow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evolve.scoring.language_model import ChatFormat, GenerationSettings, LanguageModel
from evolve.scoring.scorers.reasoning_gym.config import ReasoningGymTask
from evolve.scoring.scorers.reasoning_gym.family import Exercise


class Asking:
    """How a model is asked: the text of prompts, and of answers as they would follow.

    Args:
        config: The task's.
        examples: Solved problems that are shown first.

    Attributes:
        settings: Of the generation.
    """

    def __init__(self, config: ReasoningGymTask, examples: Sequence[Exercise]) -> None:
        self.settings = GenerationSettings(config.stop, config.max_new_tokens, thinking=config.thinking)
        self._config = config
        self._examples = examples

    def prompt(self, model: LanguageModel, problem: Exercise) -> str:
        """What the model continues."""
        asked = [self._config.prompt_of(shown["question"]) for shown in (*self._examples, problem)]
        answers = [self.answer(shown) for shown in self._examples]
        template = self._config.apply_chat_template
        if not template:
            shown = [f"{question}{answer}" for question, answer in zip(asked, answers, strict=False)]
            return self._config.fewshot_delimiter.join([*shown, asked[-1]])
        system = self._config.system_instruction
        messages = [{"role": "system", "content": system}] if system is not None else []
        for question, answer in itertools.zip_longest(asked, answers):
            messages.append({"role": "user", "content": question})
            messages += [{"role": "assistant", "content": answer}] if answer is not None else []
        chat = ChatFormat(template if isinstance(template, str) else None, self._config.chat_template_args)
        return model.apply_chat_template(messages, chat)

    def answer(self, problem: Exercise) -> str:
        """The right answer as it would follow the prompt."""
        tag = self._config.answer_tag
        return self._config.answer_delimiter + (
            f"<{tag}>{problem['answer']}</{tag}>" if tag else str(problem["answer"])
        )

    def verified_part(self, text: str) -> str | None:
        """Of what a model wrote, what is verified; None where the tag is missing."""
        tag = self._config.answer_tag
        if tag is None:
            return text.strip()
        _, found, rest = text.rpartition(f"<{tag}>")
        return rest.partition(f"</{tag}>")[0].strip() if found else None
