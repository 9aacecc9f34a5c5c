"""Scores a live model on generated problems, by the verifier that comes with them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.language_model import LanguageModel, Prepared, PreparedContinuation, PreparedGeneration
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.item_failures import one_line, settle
from evolve.scoring.scorers.reasoning_gym.asking import Asking
from evolve.scoring.scorers.reasoning_gym.config import ReasoningGymTask
from evolve.scoring.scorers.reasoning_gym.family import Exercise, Family, open_family, quietly
from evolve.scoring.scorers.statistic_scorer import StatisticScorer
from evolve.scoring.scores.item_statistics import MeanOfItems
from evolve.scoring.scores.signals import likelihood_signal
from evolve.scoring.targets import Target, right_answer

SEEDS_APART = 1_000_000
"""Problems between the first of one `seed` and the first of the next: neighbouring seeds share none."""

_EXAMPLES_AT = SEEDS_APART // 2  # beyond all items


def load_reasoning_gym_scorer(config: ReasoningGymTask, seed: int) -> ReasoningGymScorer:
    """Make the problems.

    Args:
        config: The task.
        seed: Of the problems, where the task names none.

    Raises:
        TaskError: The package is missing, there is no such family, it refuses its settings, or it has fewer problems.
    """
    name = config.reasoning_gym
    first = (config.seed if config.seed is not None else seed) * SEEDS_APART
    family = open_family(name, config.config, first, config.items)
    try:
        with quietly():
            examples = list(family.different(_EXAMPLES_AT, config.num_fewshot).values())
            items = family.different(0, config.items, [example["question"] for example in examples])
    except Exception as error:  # some settings are refused only where a problem is made
        raise TaskError(Problem(("config",), f"{name} makes no problem: {one_line(error)}")) from error
    if len(items) < config.items:
        message = f"{name} has only {len(items)} different problems with its settings. Ask for as many, or widen config"
        raise TaskError(Problem(("items",), message))
    if any(example["answer"] is None for example in examples):
        message = f"{name} does not tell its answers, so that no solved problem can be shown. Remove num_fewshot"
        raise TaskError(Problem(("num_fewshot",), message))
    # After a thought of the model's own, nobody knows how probable a right answer is.
    tells_answers = config.thinking is None and all(problem["answer"] for problem in items.values())
    kind = AnsweredProblemsScorer if tells_answers else ReasoningGymScorer
    return kind(config, family, items, Asking(config, examples))


class ReasoningGymScorer(StatisticScorer):
    """The mean of what a family's verifier says of a model's answers.

    Args:
        config: The task's.
        family: Whose verifier is asked.
        items: Seed → problem.
        asking: How the model is asked.
    """

    runs_user_code = False

    def __init__(self, config: ReasoningGymTask, family: Family, items: Mapping[int, Exercise], asking: Asking) -> None:
        content = [[seed, problem["question"], problem["answer"]] for seed, problem in items.items()]
        metric = "score" if config.partial_credit else "acc"
        super().__init__(
            config.label,
            metric,
            config.direction or "maximize",
            len(items),
            MeanOfItems(statistics.fmean),
            content,
        )
        self._config = config
        self._family = family
        self._items = items
        self._asking = asking
        self._prepared: dict[tuple[str, int], PreparedGeneration] = {}

    def item_ids(self) -> tuple[int, ...]:
        """The seeds that the problems are made from."""
        return tuple(self._items)

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> list[Prepared]:
        """The problems; see `TellsRequests`."""
        return [self.prepare(model, item) for item in self._checked(item_ids)]

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """What the verifier says of each answer.

        Raises:
            ScoringError: The verifier does not work and the user does not allow the item to be left out.
        """
        prepared = {item: self.prepare(model, item) for item in self._checked(item_ids)}
        values: dict[int, float] = {}
        failures: dict[int, str] = {}
        for item, text in zip(prepared, model.generate(list(prepared.values())), strict=True):
            try:
                credit = self._family.verify(self._asking.verified_part(text), self._items[item])
            except Exception as error:  # verifiers are code of many hands
                failures[item] = one_line(error)
            else:
                values[item] = credit if self._config.partial_credit else float(credit == 1)
        return settle(self.name, values, self.signals(model, list(values)), failures, self._config.on_item_error)

    def signals(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, float]:
        """None: nothing is known but the verifier."""
        return {}

    def prepare(self, model: LanguageModel, item: int) -> PreparedGeneration:
        """The tokens of an item's prompt, from memory after the first time."""
        key = model.encoding_key, item
        if key not in self._prepared:
            prompt = self._asking.prompt(model, self._items[item])
            self._prepared[key] = model.prepare_generation(prompt, self._asking.settings)
        return self._prepared[key]

    def _checked(self, item_ids: Sequence[int]) -> list[int]:
        ids = sorted(set(item_ids))
        for item in ids:
            if item not in self._items:
                raise TaskError(f"task {self.name!r}: there is no item {item}; its {self._count} are numbered by seed")
        return ids


class AnsweredProblemsScorer(ReasoningGymScorer):
    """Problems of a family that tells the answer of each.

    An item's signal is the geometric mean probability of the right answer's tokens.
    """

    def __init__(self, config: ReasoningGymTask, family: Family, items: Mapping[int, Exercise], asking: Asking) -> None:
        super().__init__(config, family, items, asking)
        self._answers: dict[tuple[str, int], PreparedContinuation] = {}

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> list[Prepared]:
        """The problems and their right answers."""
        right = [self._right(model, item) for item in self._checked(item_ids)]
        return [*super().prepared_requests(model, item_ids), *right]

    def signals(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, float]:
        """How probable the right answer of each item is.

        Raises:
            TaskError: A right answer is longer than answers may be.
        """
        right = [self._right(model, item) for item in item_ids]
        found = model.loglikelihood(right) if right else []
        return {
            item: likelihood_signal(log_likelihood, len(answer.continuation))
            for item, answer, (log_likelihood, _) in zip(item_ids, right, found, strict=True)
        }

    def targets(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, Target]:
        """The right answer of each item, which the model should write."""
        found = {}
        for item in self._checked(item_ids):
            problem, request = self._items[item], self.prepare(model, item)
            answer = self._asking.answer(problem)
            right = right_answer(model, self._asking.prompt(model, problem), answer, request)
            if right:
                found[item] = Target(right, prompt=request)
        return found

    def _right(self, model: LanguageModel, item: int) -> PreparedContinuation:
        key = model.encoding_key, item
        if key not in self._answers:
            problem = self._items[item]
            right = model.prepare_answer(self._asking.prompt(model, problem), self._asking.answer(problem))
            if len(right.continuation) > self._config.max_new_tokens:
                raise TaskError(
                    f"task {self.name!r}: item {item}: its right answer has {len(right.continuation)} tokens, and "
                    f"max_new_tokens is {self._config.max_new_tokens}. Raise max_new_tokens, or set a config with "
                    "shorter answers"
                )
            self._answers[key] = right
        return self._answers[key]
