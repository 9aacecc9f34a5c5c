"""Long context: a sentence hidden in a long text, and a question that only it answers.

After Kamradt, "Needle in a haystack: pressure testing LLMs" (2023), but with lengths that are exact in the model's own
tokens, and scored by one forward pass: the answer's log-likelihood, and whether greedy decoding would write it.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.language_model import (
    ChatFormat,
    GenerationSettings,
    LanguageModel,
    Prepared,
    PreparedContinuation,
)
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.invented_prose import sentences
from evolve.scoring.scorers.registry import TaskKind, one_by_one, register
from evolve.scoring.scorers.statistic_scorer import StatisticScorer
from evolve.scoring.scorers.user_files import SearchPaths, read_text
from evolve.scoring.scores.item_statistics import MeanOfItems
from evolve.scoring.scores.signals import likelihood_signal
from evolve.scoring.targets import Answer, Target
from evolve.scoring.task_config import Direction, TaskConfig

MOST_NEEDLES = 10_000
_POOL = 4096  # sentences of invented prose
_HERE = "<<the text stands here>>"
_SETTLEMENTS = ("harbour", "mill", "garden", "tower", "library", "station", "bakery", "quarry", "chapel", "ferry")
_COLOURS = ("red", "blue", "white", "green", "yellow", "grey", "brown", "black", "silver", "golden")
_INTRODUCTION = "Somewhere in the following text a secret number is told. Remember it.\n\n"
_QUESTION = "\n\nWhat is the secret number of the {key}?"
_BEGINNING = "The secret number of the {key} is"
_NEEDLE = " The secret number of the {key} is {number}."


class NeedleSettings(BaseModel):
    """The hidden sentences and the text around them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(
        min_length=1, description="Exact numbers of tokens of prompt and answer together, such as `[4096, 32768]`."
    )
    depths: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="Position of the needle, from 0 (beginning of the text) to 1 (end).",
    )
    needles: int = Field(
        default=4, ge=1, le=MOST_NEEDLES, description="Items per length and depth, each with its own needle."
    )
    text: str | None = Field(
        default=None,
        min_length=1,
        description="A UTF-8 file as the surrounding text, repeated if short; default: invented prose.",
    )


class NeedleTask(TaskConfig):
    """Sentences to find in long texts, generated from your text or from invented prose."""

    needle: NeedleSettings = Field(description="Lengths, depths, number of needles, and text.")
    apply_chat_template: bool = Field(default=False, description="Use the tokenizer's chat template.")

    @property
    def default_label(self) -> str:
        """Of a task that has no name."""
        return "needle"

    @property
    def longest_input(self) -> tuple[tuple[str, ...], int]:
        """The longest of the lengths."""
        return ("needle", "lengths"), max(self.needle.lengths)


def load_needle_scorer(config: NeedleTask, paths: SearchPaths, seed: int) -> NeedleScorer:
    """Read the text and lay out the items.

    Raises:
        TaskError: The text is not there, or a length or depth makes no sense.
    """
    settings = config.needle
    problems = [
        Problem(("needle", "depths"), f"depth {depth:g} is not in [0, 1]")
        for depth in settings.depths
        if not 0 <= depth <= 1
    ]
    problems += [
        Problem(("needle", "lengths"), f"length {length} is not positive") for length in settings.lengths if length < 1
    ]
    hay: list[str] = []
    try:
        hay = _hay(settings, paths, seed)
    except TaskError as error:
        problems += [problem.within("needle", "text") for problem in error.problems]
    if problems:
        raise TaskError(*problems)
    cells = list(product(settings.lengths, settings.depths, range(settings.needles)))
    items = [_item(number, length, depth, len(hay), seed) for number, (length, depth, _) in enumerate(cells)]
    return NeedleScorer(config.label, config.direction or "maximize", items, hay, config.apply_chat_template)


@dataclass(frozen=True, slots=True)
class NeedleItem:
    """A needle and where it is hidden.

    Attributes:
        length: Tokens of prompt and answer together.
        depth: From 0 to 1.
        key: What the question asks for.
        number: The answer.
        start: The sentence of the hay that the text begins with.
    """

    length: int
    depth: float
    key: str
    number: str
    start: int


class NeedleScorer(StatisticScorer):
    """The share of needles that are found.

    An item's value is 1 where greedy decoding writes the number, else 0; its signal is the geometric mean
    probability of the number's tokens.

    Args:
        name: In reports.
        direction: `maximize`.
        items: All items.
        hay: The sentences they are hidden in.
        chat: Whether to ask by the chat template.
    """

    runs_user_code = False

    generates = False

    def __init__(
        self, name: str, direction: Direction, items: Sequence[NeedleItem], hay: Sequence[str], chat: bool
    ) -> None:
        content = [[list(astuple(item)) for item in items], list(hay)]
        super().__init__(name, "acc", direction, len(items), MeanOfItems(statistics.fmean), content)
        self._items = items
        self._hay = hay
        self._chat = chat
        self._prepared: dict[tuple[str, int], PreparedContinuation] = {}
        self._encoded: dict[tuple[str, int], list[int]] = {}

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> list[Prepared]:
        """The texts; see `TellsRequests`."""
        return [self.prepare(model, item) for item in self._checked(item_ids)]

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """Whether each needle was found, and how probable the right answer was.

        Raises:
            TaskError: A length is beyond the model's context, or too short for needle and question.
        """
        requests = {item: self.prepare(model, item) for item in self._checked(item_ids)}
        answers = dict(zip(requests, model.loglikelihood(list(requests.values())), strict=True))
        values = {item: float(greedy) for item, (_, greedy) in answers.items()}
        signals = {
            item: likelihood_signal(log_likelihood, len(requests[item].continuation))
            for item, (log_likelihood, _) in answers.items()
        }
        return ScoredItems(dict[int, Any](values), signals)

    def targets(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, Target]:
        """The number that was hidden; none where it is not to be found."""
        if self.direction == "minimize":
            return {}
        return {item: Target((Answer((self.prepare(model, item),)),)) for item in self._checked(item_ids)}

    def prepare(self, model: LanguageModel, item: int) -> PreparedContinuation:
        """The tokens of an item's prompt and of its answer, from memory after the first time.

        Raises:
            TaskError: Its length is beyond the model's context, or too short.
        """
        what = self._items[item]
        if what.length > model.max_length:
            raise TaskError(
                f"task {self.name!r}: length {what.length} is longer than the model's context of {model.max_length} "
                "tokens. Name lengths up to that."
            )
        key = model.encoding_key, item
        if key not in self._prepared:
            self._prepared[key] = self._build(model, what)
        return self._prepared[key]

    def _build(self, model: LanguageModel, item: NeedleItem) -> PreparedContinuation:
        def encode(text: str) -> tuple[int, ...]:
            return tuple(model.tokenizer.encode(text, add_special_tokens=False, verbose=False))

        question = _QUESTION.format(key=item.key)
        if self._chat:
            asked = [{"role": "user", "content": f"{_INTRODUCTION}{_HERE}{question}"}]
            before, _, after = model.apply_chat_template(asked, ChatFormat()).partition(_HERE)
        else:
            before, after = _INTRODUCTION, f"{question}\n"
        # What begins the prompt has the special tokens that prompts begin with.
        head = model.prepare_generation(before, GenerationSettings()).tokens
        tail = encode(after + _BEGINNING.format(key=item.key))
        needle = encode(_NEEDLE.format(key=item.key, number=item.number))
        answer = encode(f" {item.number}")
        room = item.length - len(head) - len(needle) - len(tail) - len(answer)
        if room < 0:
            raise TaskError(
                f"task {self.name!r}: length {item.length} is too short: needle, question and answer alone are "
                f"{item.length - room} tokens"
            )
        hay, place = self._fill(model, item, room)
        prompt = (*head, *hay[:place], *needle, *hay[place:], *tail)
        return PreparedContinuation(prompt, answer)

    def _fill(self, model: LanguageModel, item: NeedleItem, room: int) -> tuple[list[int], int]:
        """Exactly `room` tokens, and the end of a sentence among them at about the item's depth."""
        hay: list[int] = []
        place = 0
        sentence = item.start
        while len(hay) < room:
            if len(hay) <= item.depth * room:
                place = len(hay)
            hay += self._encode_sentence(model, sentence % len(self._hay))
            sentence += 1
            if not hay and sentence == item.start + len(self._hay):
                raise TaskError(f"task {self.name!r}: the text has no tokens for this tokenizer")
        return hay[:room], room if item.depth == 1 else place

    def _encode_sentence(self, model: LanguageModel, number: int) -> list[int]:
        """From memory after the first time; most items need few of the sentences."""
        key = model.encoding_key, number
        if key not in self._encoded:
            text = f" {self._hay[number]}"
            self._encoded[key] = list(model.tokenizer.encode(text, add_special_tokens=False, verbose=False))
        return self._encoded[key]


def _hay(settings: NeedleSettings, paths: SearchPaths, seed: int) -> list[str]:
    if settings.text is None:
        return sentences(_POOL, seed)
    text = read_text(paths.file(settings.text))
    return [part.strip() for part in re.split(r"(?<=[.!?\u3002])\s+|\n\s*\n", text) if part.strip()]


def _item(number: int, length: int, depth: float, hay: int, seed: int) -> NeedleItem:
    # By text: Random then draws the same on every machine and in every version of Python.
    generator = random.Random(f"needle {seed} {number}")
    key = f"{generator.choice(_COLOURS)} {generator.choice(_SETTLEMENTS)}"
    return NeedleItem(length, depth, key, str(generator.randrange(100_000, 1_000_000)), generator.randrange(hay))


register(TaskKind("needle", NeedleTask, one_by_one(load_needle_scorer)))
