"""Marks from a judge: asked in parallel, once for each prompt, again where the answer has no mark."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evolve.scoring.errors import ScoringError
from evolve.scoring.scorers.judge.answer_cache import AnswerCache, request_key
from evolve.scoring.scorers.judge.endpoint import Ask, Endpoint
from evolve.scoring.scorers.judge.marks import MarkReader, UnreadableMarkError


class Judge:
    """Marks by a judge model.

    Args:
        endpoint: Where it is.
        request: What all requests share.
        reader: Reads a mark off an answer.
        cache: Answers that had a mark.
        attempts: How often it is asked for an answer with a mark.
        concurrency: How many requests at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: Mapping[str, Any],
        reader: MarkReader,
        cache: AnswerCache,
        attempts: int,
        concurrency: int,
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._reader = reader
        self._cache = cache
        self._attempts = attempts
        self._concurrency = concurrency

    def probe(self) -> None:
        """Ask for next to nothing, to learn now whether there is anybody.

        Raises:
            EndpointError: There is not, or the key or the model is wrong.
        """
        with self._endpoint.connected(retries=1) as ask:
            ask(self._body("Reply with the number 1."))

    def marks(self, prompts: Mapping[int, str]) -> tuple[dict[int, float], dict[int, str]]:
        """Each item's mark, or why it has none.

        Args:
            prompts: Item -> what the judge is asked. Equal prompts are asked once.

        Raises:
            EndpointError: The endpoint does not answer, so that no item can be marked.
            UnavailableError: The cache cannot be used.
        """
        distinct = list(dict.fromkeys(prompts.values()))
        with self._endpoint.connected() as ask, ThreadPoolExecutor(self._concurrency, "judge") as pool:
            futures = [pool.submit(self._mark, ask, prompt) for prompt in distinct]
            try:
                found = dict(zip(distinct, [future.result() for future in futures], strict=True))
            except ScoringError:
                pool.shutdown(cancel_futures=True)  # the others would wait as long and get no further
                raise
        marks = {item: mark for item, prompt in prompts.items() if isinstance(mark := found[prompt], float)}
        return marks, {item: str(found[prompt]) for item, prompt in prompts.items() if item not in marks}

    def _mark(self, ask: Ask, prompt: str) -> float | str:
        body = self._body(prompt)
        key = request_key(self._endpoint.url, body)
        kept = self._cache.get(key)
        reason = ""
        if kept is not None:
            try:
                return self._reader.read(kept)
            except UnreadableMarkError:
                pass  # kept under another rule of parsing; this rule asks anew
        for _ in range(self._attempts):
            answer = ask(body)
            try:
                mark = self._reader.read(answer)
            except UnreadableMarkError as error:
                reason = str(error)
                continue
            stored = self._cache.put(key, answer, instead_of=kept)
            # Another process may have been first: all take its answer.
            return mark if stored == answer else self._reader.read(stored)
        times = f" ({self._attempts} attempts)" if self._attempts > 1 else ""
        return f"{reason}{times}"

    def _body(self, prompt: str) -> dict[str, Any]:
        return {**self._request, "messages": [*self._request["messages"], {"role": "user", "content": prompt}]}
