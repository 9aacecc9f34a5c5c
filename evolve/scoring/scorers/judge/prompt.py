"""What the judge is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from evolve.scoring.backends.bounded_templates import templates
from evolve.scoring.errors import Problem, TaskError


class JudgePrompt:
    """A template of an item's fields and the candidate's answer.

    The answer is data: whatever a candidate writes, it is not taken for a template.

    Args:
        template: Jinja2.
        question_field: The field of an item that holds the question.

    Raises:
        TaskError: The template is not one.
    """

    def __init__(self, template: str, question_field: str) -> None:
        try:
            jinja2.Environment().parse(template)  # runs and computes nothing
        except jinja2.TemplateError as error:
            raise TaskError(Problem(("prompt",), str(error))) from error
        self._template = template
        self._question_field = question_field

    def check(self, items: Sequence[Any]) -> None:
        """Render every item once, with an answer that shows whether the template uses it.

        Raises:
            TaskError: An item has no question, or lacks a field that the template uses; or the template does not
                use the answer.
        """
        problems = []
        for number, item in enumerate(items):
            try:
                without, with_answer = self.render(item, ""), self.render(item, "\ue000")
            except TaskError as error:
                problems += [f"item {number}: {problem}" for problem in error.problems]
                continue
            if without == with_answer:
                problems.append("prompt does not use the answer. Put {{ answer }} into it.")
                break
        if problems:
            more = [f"and {len(problems) - 3} items more"] if len(problems) > 3 else []
            raise TaskError(*problems[:3], *more)

    def question(self, item: Any) -> str:
        """What the candidate is asked.

        Raises:
            TaskError: The item has no question.
        """
        question = item.get(self._question_field) if isinstance(item, Mapping) else item
        if not isinstance(question, str) or not question.strip():
            raise TaskError(f"expected a text in field {self._question_field!r}, found {question!r}")
        return question

    def render(self, item: Any, answer: str) -> str:
        """What the judge is asked about an answer.

        Raises:
            TaskError: The item lacks a field that the template uses.
        """
        fields = {str(key): value for key, value in item.items()} if isinstance(item, Mapping) else {}
        fields |= {"question": self.question(item), "answer": answer}
        try:
            return templates.text(self._template, fields)
        except TaskError as error:
            raise TaskError(Problem(("prompt",), str(error))) from error
