"""How well a model predicts the user's own texts: bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from evolve.scoring.backends.text_windows import rolling_windows
from evolve.scoring.errors import Problem, TaskError
from evolve.scoring.language_model import LanguageModel, Prepared, PreparedContinuation
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.registry import TaskKind, one_by_one, register
from evolve.scoring.scorers.statistic_scorer import StatisticScorer
from evolve.scoring.scorers.text_units import Unit, cut
from evolve.scoring.scorers.user_files import SearchPaths, read_text
from evolve.scoring.scores.item_statistics import LogLikelihoodOfItems
from evolve.scoring.scores.signals import likelihood_signal
from evolve.scoring.targets import Answer, Target
from evolve.scoring.task_config import Direction, TaskConfig

# A longer window gains little and costs much memory: logits for the whole vocabulary at every token.
_DEFAULT_WINDOW = 2048


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_several),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class PerplexityTask(TaskConfig):
    """Bits per byte of your text files: the bits that all texts cost the model, divided by their bytes."""

    perplexity: Patterns = Field(
        min_length=1, description="UTF-8 text files, or patterns such as `texts/*.txt`; a single one needs no list."
    )
    unit: Unit = Field(
        default="file",
        description="What an item is: a `file`, a `paragraph` (separated by blank lines), or a `chunk` of chunk_bytes.",
    )
    chunk_bytes: int = Field(default=4096, ge=1, description="Maximum size of a chunk, in bytes of UTF-8.")
    window: int | None = Field(
        default=None,
        ge=1,
        description="Maximum input in tokens; longer items are read in windows. Default: the model's context, at most "
        f"{_DEFAULT_WINDOW}.",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that each further window predicts, after window - stride tokens of context. Default: the "
        "window, as in lm-eval; smaller is slower and more accurate.",
    )

    @property
    def default_label(self) -> str:
        """Of a task that has no name."""
        return "perplexity"

    @model_validator(mode="after")
    def _consistent(self) -> PerplexityTask:
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} is longer than window {self.window}")
        return self


def load_perplexity_scorer(config: PerplexityTask, paths: SearchPaths) -> PerplexityScorer:
    """Read the texts and cut them into items.

    Raises:
        TaskError: A file is not there, is empty, or is no UTF-8 text.
    """
    problems: list[Problem] = []
    items: list[str] = []
    seen = set()
    for pattern in config.perplexity:
        try:
            for path in paths.files(pattern):
                if path.resolve() not in seen:
                    items += cut(read_text(path), config.unit, config.chunk_bytes)
                seen.add(path.resolve())
        except TaskError as error:
            problems += [problem.within("perplexity") for problem in error.problems]
    if problems:
        raise TaskError(*problems)
    return PerplexityScorer(config.label, config.direction or "minimize", items, config.window, config.stride)


class PerplexityScorer(StatisticScorer):
    """Bits per byte of texts.

    An item's value is its negative log-likelihood in nats; the score is the sum of bits over the sum of bytes, and
    an item's signal the inverse of its perplexity per byte.

    Args:
        name: In reports.
        direction: `minimize`, unless the texts are to be unlearnt.
        texts: The items.
        window: Longest input in tokens; None is the model's, up to a default.
        stride: Tokens that each further window predicts; None is all of them.
    """

    runs_user_code = False

    generates = False

    def __init__(
        self, name: str, direction: Direction, texts: Sequence[str], window: int | None, stride: int | None
    ) -> None:
        self._texts = texts
        self._bytes = [len(text.encode()) for text in texts]
        self._window = window
        self._stride = stride
        self._prepared: dict[tuple[str, int], list[PreparedContinuation]] = {}
        statistic = LogLikelihoodOfItems(_bits_per_byte, lambda item: self._bytes[item], exponential=False)
        super().__init__(name, "bits_per_byte", direction, len(texts), statistic, list(texts))

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> list[Prepared]:
        """The windows of each text; see `TellsRequests`."""
        window = self._window_for(model)
        return [request for item in self._checked(item_ids) for request in self._requests(model, item, window)]

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """What each text costs, in nats.

        Raises:
            TaskError: The window is longer than the model's context.
        """
        window = self._window_for(model)
        requests = {item: self._requests(model, item, window) for item in self._checked(item_ids)}
        scores = iter(model.loglikelihood([request for windows in requests.values() for request in windows]))
        values = {item: -math.fsum(next(scores)[0] for _ in windows) for item, windows in requests.items()}
        signals = {item: likelihood_signal(-nats, self._bytes[item]) for item, nats in values.items()}
        return ScoredItems(dict[int, Any](values), signals)

    def targets(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, Target]:
        """The texts themselves, by the byte; none where they are to be unlearnt."""
        if self.direction == "maximize":
            return {}
        window = self._window_for(model)
        return {
            item: Target((Answer(tuple(self._requests(model, item, window)), max(1.0, self._bytes[item])),))
            for item in self._checked(item_ids)
        }

    def _window_for(self, model: LanguageModel) -> int:
        window = min(model.max_length, _DEFAULT_WINDOW) if self._window is None else self._window
        if window > model.max_length:
            raise TaskError(
                f"task {self.name!r}: window {window} is longer than the model's context of {model.max_length} tokens. "
                f"Set window: {model.max_length} or less."
            )
        if self._stride is not None and self._stride > window:
            raise TaskError(f"task {self.name!r}: stride {self._stride} is longer than the window of {window} tokens")
        return window

    def _requests(self, model: LanguageModel, item: int, window: int) -> list[PreparedContinuation]:
        key = model.encoding_key, item
        if key not in self._prepared:
            text = model.prepare_text(self._texts[item])
            windows = rolling_windows(text.tokens, text.prefix_token, window, self._stride)
            self._prepared[key] = [PreparedContinuation(*pair) for pair in windows]
        return self._prepared[key]


def _bits_per_byte(pairs: Sequence[tuple[float, float]]) -> float:
    """The bits per byte of (log-likelihood in nats, bytes) pairs."""
    nats = -math.fsum(value for value, _ in pairs)
    return nats / math.log(2) / math.fsum(size for _, size in pairs)


register(
    TaskKind(
        "perplexity", PerplexityTask, one_by_one(lambda config, paths, seed: load_perplexity_scorer(config, paths))
    )
)
