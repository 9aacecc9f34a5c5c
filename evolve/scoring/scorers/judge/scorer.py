"""Scores what a candidate answers by what a judge says of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.language_model import LanguageModel
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.item_failures import OnItemError, settle
from evolve.scoring.scorers.item_source import load_items
from evolve.scoring.scorers.judge.answer_cache import AnswerCache, default_path
from evolve.scoring.scorers.judge.config import JudgeSettings, JudgeTask
from evolve.scoring.scorers.judge.endpoint import Endpoint
from evolve.scoring.scorers.judge.judge import Judge
from evolve.scoring.scorers.judge.marks import MarkReader
from evolve.scoring.scorers.judge.prompt import JudgePrompt
from evolve.scoring.scorers.statistic_scorer import StatisticScorer
from evolve.scoring.scorers.text_model import PreparedRequests, TextModel
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scores.item_statistics import MeanOfItems
from evolve.scoring.task_config import Direction


def load_judge_scorer(config: JudgeTask, paths: SearchPaths) -> JudgeScorer:
    """Read the questions and make ready to ask. Nothing is asked yet.

    Raises:
        TaskError: With everything that is wrong with questions, prompt, key or cache.
    """
    problems: list[Problem] = []
    try:
        items = load_items(config.items, paths)
        prompt = JudgePrompt(config.prompt, config.question)
        prompt.check(items)
    except TaskError as error:
        problems += error.problems
    settings = config.judge
    try:
        endpoint = Endpoint(
            settings.base_url,
            settings.api_key_env,
            settings.timeout_seconds,
            settings.retries,
            settings.backoff_seconds,
        )
        cache = AnswerCache(default_path() if config.cache is None else paths.directory / config.cache)
    except TaskError as error:
        problems += error.problems
    if problems:
        raise TaskError(*problems)
    parse, marks = config.parse, config.range
    judge = Judge(
        endpoint,
        _request(settings, config.system),
        MarkReader(parse.regex, parse.json_key, parse.values, marks.low, marks.high),
        cache,
        config.attempts,
        settings.concurrency,
    )
    asking = Asking(config.apply_chat_template, config.system_instruction, config.max_new_tokens, config.stop)
    return JudgeScorer(config.label, config.direction or "maximize", items, prompt, asking, judge, config.on_item_error)


def _request(settings: JudgeSettings, system: str | None) -> dict[str, Any]:
    """What all requests share; the judge's prompt is added as the last message."""
    request: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "system", "content": system}] if system is not None else [],
    }
    if settings.temperature is not None:
        request["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        request["max_tokens"] = settings.max_tokens
    return request | settings.options


class Asking:
    """How the candidate is asked.

    Args:
        chat: By the chat template.
        system: A system message.
        max_new_tokens: Of an answer.
        stop: Texts that end an answer.
    """

    def __init__(self, chat: bool, system: str | None, max_new_tokens: int, stop: Sequence[str]) -> None:
        self._chat = chat
        self._system = system
        self._max_new_tokens = max_new_tokens
        self._stop = stop

    def answers(self, model: TextModel, questions: Sequence[str]) -> list[str]:
        """The model's answers."""
        prompts = [self._prompt(model, question) for question in questions]
        return model.generate(prompts, self._max_new_tokens, self._stop)

    def _prompt(self, model: TextModel, question: str) -> str:
        if not self._chat:
            return question
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        return model.chat([*system, {"role": "user", "content": question}])


class JudgeScorer(StatisticScorer):
    """The mean mark that a judge gives to a candidate's answers.

    Args:
        name: In reports.
        direction: Whether marks should go up or down.
        items: The questions and what belongs to them.
        prompt: What the judge is asked about an answer.
        asking: How the candidate is asked.
        judge: The judge.
        on_item_error: What becomes of the candidate when an answer has no mark.
    """

    runs_user_code = False

    def __init__(
        self,
        name: str,
        direction: Direction,
        items: Sequence[Any],
        prompt: JudgePrompt,
        asking: Asking,
        judge: Judge,
        on_item_error: OnItemError,
    ) -> None:
        super().__init__(name, "mark", direction, len(items), MeanOfItems(statistics.fmean), list(items))
        self._items = items
        self._prompt = prompt
        self._asking = asking
        self._judge = judge
        self._on_item_error: OnItemError = on_item_error
        self._prepared = PreparedRequests()

    def probe(self) -> None:
        """Learn whether the judge is there, before a search begins.

        Raises:
            EndpointError: It is not.
        """
        self._judge.probe()

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """The mark of each answer, from 0 to 1.

        Raises:
            ScoringError: The judge does not answer, or gives an answer no mark and the user does not allow that.
        """
        ids = self._checked(item_ids)
        questions = [self._prompt.question(self._items[item]) for item in ids]
        answers = self._asking.answers(TextModel(model, self._prepared), questions)
        prompts = {
            item: self._prompt.render(self._items[item], answer) for item, answer in zip(ids, answers, strict=True)
        }
        marks, failures = self._judge.marks(prompts)
        return settle(self.name, marks, {}, failures, self._on_item_error)
