"""A judge behind an endpoint that limits, fails, hangs and talks nonsense; nothing of that becomes a mark."""

from __future__ import annotations

import json
import logging
import math
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from judge_stand_in import StandIn, after, completion, serving
from pydantic import ValidationError

from evolve.scoring import ScoringError, TaskError, UnavailableError, load_scorers, parse_task, probe_scorers
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.judge.answer_cache import AnswerCache, default_path, request_key
from evolve.scoring.scorers.judge.endpoint import Endpoint, EndpointError
from evolve.scoring.scorers.judge.marks import MarkReader, UnreadableMarkError

KEY = "sk-this-is-a-secret-0123456789"
QUESTIONS = [{"question": f"What is {number} and one?", "reference": str(number + 1)} for number in range(6)]
PROMPT = "Question: {{ question }}\nRight: {{ reference }}\nAnswer: {{ answer }}\nMark it from 1 to 9."


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as stand_in:
        yield stand_in


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in QUESTIONS))
    return tmp_path


def settings_of(url: str, judge: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "judge": {"base_url": url, "model": "wise", "backoff_seconds": 0.01, "timeout_seconds": 5, **(judge or {})},
        "items": "questions.jsonl",
        "prompt": PROMPT,
        "parse": {"regex": r"Score: (-?\d+)"},
        "range": {"low": 1, "high": 9},
        "max_new_tokens": 8,
        "cache": "cache.sqlite",
        **changes,
    }


def scorer_of(directory: Path, url: str, judge: dict[str, Any] | None = None, **changes: Any) -> Any:
    (scorer,) = load_scorers([parse_task(settings_of(url, judge, **changes))], [], 0, directory)
    return scorer


def refusal(directory: Path, url: str = "http://127.0.0.1:9/v1", **changes: Any) -> list[str]:
    with pytest.raises(TaskError) as caught:
        scorer_of(directory, url, **changes)
    return [problem.message for problem in caught.value.problems]


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


class TestMarks:
    def test_are_scaled_to_between_0_and_1(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        endpoint.answer = lambda body: completion(f"Well. Score: {prompt_of(body).count('1') % 9 + 1}")
        scorer = scorer_of(directory, endpoint.url)
        scored = scorer.score(backend, range(6))
        by_question = {prompt_of(body).split("\n")[0]: prompt_of(body).count("1") % 9 for body in endpoint.bodies}
        expected = [by_question[f"Question: {item['question']}"] / 8 for item in QUESTIONS]
        assert list(scored.values.values()) == pytest.approx(expected)
        assert (scorer.name, scorer.metric, scorer.direction) == ("judge", "mark", "maximize")

    def test_are_of_what_the_candidate_answers(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        from evolve.scoring.scorers.text_model import TextModel

        scorer_of(directory, endpoint.url, stop=["e"], judge={"options": {"seed": 4}}).score(backend, [2])
        (body,) = endpoint.bodies
        (answer,) = TextModel(backend).generate([QUESTIONS[2]["question"]], max_new_tokens=8, stop=["e"])
        assert prompt_of(body) == (
            f"Question: {QUESTIONS[2]['question']}\nRight: 3\nAnswer: {answer}\nMark it from 1 to 9."
        )
        expected = {"model": "wise", "temperature": 0.0, "max_tokens": 512, "seed": 4}
        assert {key: value for key, value in body.items() if key != "messages"} == expected

    def test_by_the_chat_template_with_system_messages_to_both(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        asked: list[str] = []
        generate = backend.generate
        backend.generate = lambda requests: (  # type: ignore[method-assign]
            asked.extend(backend.tokenizer.decode(request.tokens) for request in requests) or generate(requests)
        )
        options = {"apply_chat_template": True, "system_instruction": "Be brief.", "system": "Be strict."}
        scorer_of(directory, endpoint.url, **options).score(backend, [0])
        assert asked == [f"[system]Be brief.\n[user]{QUESTIONS[0]['question']}\n[assistant]"]
        assert endpoint.bodies[0]["messages"][0] == {"role": "system", "content": "Be strict."}

    @pytest.mark.parametrize(
        ("rule", "answer", "expected"),
        [
            ({"regex": r"(\d+)/10"}, "First 3/10, in the end 8/10.", 0.8),
            ({"regex": r"\b(yes|no)\b", "values": {"Yes": 10, "no": 0}}, "Hm, yes", 1.0),
            ({"json_key": "score"}, 'Here:\n```json\n{"why": "so", "score": 2.5}\n```', 0.25),
            ({"json_key": "score"}, '{"score": "4"}', 0.4),
        ],
    )
    def test_are_read_by_the_rule(self, rule: dict[str, Any], answer: str, expected: float) -> None:
        reader = MarkReader(rule.get("regex"), rule.get("json_key"), rule.get("values", {}), 0, 10)
        assert reader.read(answer) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("rule", "answer", "said"),
        [
            ({"regex": r"(\d+)/10"}, "I will not say.", "has no mark: 'I will not say.'"),
            ({"regex": r"(\d+)/10"}, "", "has no mark: ''"),
            ({"regex": r"(-?\d+)/10"}, "-3/10", "-3 is not in 0 to 10"),
            ({"regex": r"(\d+)/10"}, "11/10", "11 is not in 0 to 10"),
            ({"regex": r"(\w+)!"}, "perhaps!", "'perhaps' is not a number"),
            ({"regex": r"(\w+)!"}, "nan!", "'nan' is not a number"),
            ({"json_key": "score"}, "Score: 3", "has no JSON object"),
            ({"json_key": "score"}, '{"scores": 3}', "has no key 'score'"),
            ({"json_key": "score"}, '{"score": true}', "True is not a number"),
            ({"json_key": "score"}, '{"score": null}', "None is not a number"),
            ({"json_key": "score"}, '{"score": [3]}', r"\[3\] is not a number"),
            ({"json_key": "score"}, '{"score": 1' + 400 * "0" + "}", "is not a number"),
            ({"json_key": "score"}, '{"score": 1' + 5000 * "0" + "}", "has no JSON object"),
            ({"json_key": "score"}, '{"score": ' + 5000 * "[" + "}", "has no JSON object"),
        ],
    )
    def test_that_cannot_be_read_are_no_marks(self, rule: dict[str, Any], answer: str, said: str) -> None:
        reader = MarkReader(rule.get("regex"), rule.get("json_key"), {}, 0, 10)
        with pytest.raises(UnreadableMarkError, match=said):
            reader.read(answer)


class TestUnreadableAnswers:
    def test_are_asked_for_again(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        endpoint.script = [completion("Hm."), completion("Score: 0"), completion("Score: 9")]
        assert scorer_of(directory, endpoint.url).score(backend, [0]).values == {0: 1.0}
        assert len(endpoint.bodies) == 3

    def test_fail_the_candidate_and_name_the_item(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        endpoint.answer = lambda body: completion("Hm." if "is 3 and" in prompt_of(body) else "Score: 9")
        with pytest.raises(ScoringError, match=r"task 'judge': item 3: the judge's answer has no mark.*\(3 attempts\)"):
            scorer_of(directory, endpoint.url).score(backend, range(6))

    def test_may_be_left_out(
        self, directory: Path, endpoint: StandIn, backend: HFBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        endpoint.answer = lambda body: completion("Hm." if "is 3 and" in prompt_of(body) else "Score: 9")
        with caplog.at_level(logging.WARNING):
            scored = scorer_of(directory, endpoint.url, on_item_error="skip", attempts=1).score(backend, range(6))
        assert scored.values == dict.fromkeys((0, 1, 2, 4, 5), 1.0)
        assert "no mark" in scored.skipped[3]


class TestTransport:
    def test_rate_limits_are_waited_for_as_long_as_they_say(self, endpoint: StandIn) -> None:
        pauses: list[float] = []
        endpoint.script = [(429, {"Retry-After": "7"}, "slow down"), (429, {"Retry-After": "soon"}, ""), (503, {}, "")]
        judge = Endpoint(endpoint.url, None, 5, 4, 1.0, sleep=pauses.append)
        with judge.connected() as ask:
            assert ask({"model": "wise"}) == "Score: 5"
        assert pauses[0] == 7
        assert all(0 <= pause <= 2**number for number, pause in enumerate(pauses[1:], start=1))

    def test_a_date_in_retry_after_is_obeyed_and_no_pause_is_endless(self, endpoint: StandIn) -> None:
        from email.utils import formatdate

        pauses: list[float] = []
        soon = formatdate(time.time() + 30, usegmt=True)
        endpoint.script = [(429, {"Retry-After": soon}, ""), (429, {"Retry-After": "86400"}, "")]
        with Endpoint(endpoint.url, None, 5, 4, 0.0, sleep=pauses.append).connected() as ask:
            ask({})
        assert 25 < pauses[0] <= 30
        assert pauses[1] == 120

    @pytest.mark.parametrize(
        ("reply", "said"),
        [
            ((500, {}, '{"error": {"message": "out of memory"}}'), "HTTP 500: out of memory"),
            ((200, {}, "<html>gateway</html>"), "not a chat completion: <html>gateway</html>"),
            ((200, {}, "[]"), "not a chat completion"),
            ((200, {}, '{"choices": [{"message": {"content": "Score: 7'), 'not a chat completion: {"choices"'),
            ((200, {}, '{"error": {"code": 429, "message": "slow down"}}'), "not a chat completion: slow down"),
            ((200, {}, '{"choices": []}'), "not a chat completion"),
            (completion(None), "a chat completion without text"),
            ((200, {}, 100_000 * "["), r"not a chat completion: [[["),
            ((503, {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, 100_000 * "["), "HTTP 503: [[["),
        ],
    )
    def test_what_does_not_pass_is_given_up_with_the_reason(self, reply: Any, said: str, endpoint: StandIn) -> None:
        endpoint.answer = lambda body: reply
        with pytest.raises(EndpointError) as caught, Endpoint(endpoint.url, None, 5, 2, 0.0).connected() as ask:
            ask({})
        assert f"{endpoint.url}/chat/completions: no answer in 3 tries: {said}" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(endpoint.bodies) == 3

    @pytest.mark.parametrize(
        ("status", "said"),
        [(400, "HTTP 400: bad"), (401, "Name the key's variable in api_key_env"), (404, "Check base_url and model")],
    )
    def test_what_cannot_pass_is_not_tried_again(self, status: int, said: str, endpoint: StandIn) -> None:
        endpoint.answer = lambda body: (status, {}, '{"error": "bad"}')
        with pytest.raises(EndpointError, match=said), Endpoint(endpoint.url, None, 5, 4, 0.0).connected() as ask:
            ask({})
        assert len(endpoint.bodies) == 1

    def test_an_endpoint_that_hangs_is_left(self, endpoint: StandIn) -> None:
        endpoint.script = [after(1.0, completion("Score: 1"))]
        with Endpoint(endpoint.url, None, 0.2, 1, 0.0).connected() as ask:
            assert ask({}) == "Score: 5"
        endpoint.script = [after(1.0, completion("Score: 1"))]
        with (
            pytest.raises(EndpointError, match=r"no answer within 0\.2 s"),
            Endpoint(endpoint.url, None, 0.2, 0, 0.0).connected() as ask,
        ):
            ask({})

    def test_an_answer_that_trickles_in_for_ever_is_left(self) -> None:
        import threading

        server = socket.create_server(("127.0.0.1", 0))
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        try:
            with (
                pytest.raises(EndpointError, match=r"no complete answer within 0\.3 s"),
                Endpoint(url, None, 0.3, 0, 0.0).connected() as ask,
            ):
                ask({})
        finally:
            stop.set()
            thread.join()
            server.close()

    def test_requests_run_side_by_side_and_no_more_than_allowed(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        endpoint.script = [after(0.1, completion("Score: 9")) for _ in range(6)]
        scorer_of(directory, endpoint.url, judge={"concurrency": 3}).score(backend, range(6))
        assert 1 < endpoint.most_at_once <= 3


class TestEndpointDown:
    @pytest.fixture
    def closed(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    def test_the_probe_says_so_in_one_line(self, directory: Path, closed: str) -> None:
        with pytest.raises(TaskError) as caught:
            probe_scorers([scorer_of(directory, closed, alias="style")])
        (problem,) = map(str, caught.value.problems)
        assert problem.startswith(f"task 'style': judge: {closed}/chat/completions: no answer in 2 tries: ConnectError")
        assert "\n" not in problem

    def test_the_candidate_fails_though_items_may_be_skipped(
        self, directory: Path, closed: str, backend: HFBackend
    ) -> None:
        scorer = scorer_of(directory, closed, judge={"retries": 1}, on_item_error="skip")
        with pytest.raises(UnavailableError, match="no answer in 2 tries: ConnectError"):
            scorer.score(backend, range(6))

    def test_a_judge_that_is_there_passes_the_probe(self, directory: Path, endpoint: StandIn) -> None:
        probe_scorers([scorer_of(directory, endpoint.url)])
        assert len(endpoint.bodies) == 1


class TestCache:
    def test_no_answer_is_asked_for_twice_by_whichever_scorer(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        first = scorer_of(directory, endpoint.url).score(backend, range(6))
        asked = len(endpoint.bodies)
        assert scorer_of(directory, endpoint.url).score(backend, range(6)) == first
        assert len(endpoint.bodies) == asked

    @pytest.mark.parametrize(
        "change",
        [
            {"judge": {"model": "wiser"}},
            {"judge": {"temperature": 0.5}},
            {"judge": {"options": {"seed": 1}}},
            {"prompt": PROMPT + " Please."},
            {"system": "Be strict."},
        ],
    )
    def test_another_judge_prompt_or_setting_is_asked_anew(
        self, change: dict[str, Any], directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        scorer_of(directory, endpoint.url).score(backend, [0])
        scorer_of(directory, endpoint.url, **change).score(backend, [0])
        assert len(endpoint.bodies) == 2

    def test_an_answer_without_a_mark_is_not_kept(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        endpoint.script = [completion("Hm.")]
        with pytest.raises(ScoringError):
            scorer_of(directory, endpoint.url, attempts=1).score(backend, [0])
        assert scorer_of(directory, endpoint.url, attempts=1).score(backend, [0]).values == {0: 0.5}

    def test_another_rule_reads_what_is_kept_or_asks_and_keeps_anew(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        endpoint.script = [completion("Score: 5, grade A"), completion("Rank: 2")]
        scorer_of(directory, endpoint.url).score(backend, [0])
        graded = {"regex": "grade ([A-C])", "values": {"a": 9, "b": 5, "c": 1}}
        assert scorer_of(directory, endpoint.url, parse=graded).score(backend, [0]).values == {0: 1.0}
        assert len(endpoint.bodies) == 1
        for _ in range(2):
            ranked = scorer_of(directory, endpoint.url, parse={"regex": r"Rank: (\d)"})
            assert ranked.score(backend, [0]).values == {0: 0.125}
        assert len(endpoint.bodies) == 2

    def test_equal_answers_are_marked_once(self, directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
        (directory / "same.txt").write_text("Again?\n" * 5)
        scorer = scorer_of(directory, endpoint.url, items="same.txt", prompt="{{ question }} {{ answer }}")
        assert scorer.score(backend, range(5)).values == dict.fromkeys(range(5), 0.5)
        assert len(endpoint.bodies) == 1

    def test_several_processes_may_use_one_file(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from evolve.scoring.scorers.judge.answer_cache import AnswerCache\n"
            "cache = AnswerCache(Path(sys.argv[1]))\n"
            "for n in range(60): cache.put(str(n), sys.argv[2])\n"
        )
        path = tmp_path / "shared.sqlite"
        writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
        assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
        cache = AnswerCache(path)
        assert all(cache.get(str(number)) in ("a", "b", "c") for number in range(60))

    def test_the_first_answer_stays_unless_it_was_of_no_use(self, tmp_path: Path) -> None:
        cache = AnswerCache(tmp_path / "c.sqlite")
        assert cache.get("k") is None
        assert cache.put("k", "one") == "one"
        assert cache.put("k", "two") == "one"
        assert cache.put("k", "three", instead_of="one") == "three"
        assert cache.get("k") == "three"

    def test_an_answer_with_half_a_character_is_kept(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        endpoint.answer = lambda body: completion("\ud800 Score: 9")
        assert scorer_of(directory, endpoint.url).score(backend, [0]).values == {0: 1.0}

    def test_a_file_that_cannot_be_used_any_more_is_no_fault_of_the_candidate(
        self, directory: Path, endpoint: StandIn, backend: HFBackend
    ) -> None:
        scorer = scorer_of(directory, endpoint.url)
        (directory / "cache.sqlite").write_bytes(b"replaced" * 100)
        with pytest.raises(UnavailableError, match=r"cache.sqlite cannot be used: file is not a database"):
            scorer.score(backend, [0])

    def test_a_file_that_is_no_cache_is_refused(self, directory: Path) -> None:
        (directory / "cache.sqlite").write_text("this is no database, however long it is " * 100)
        (said,) = refusal(directory)
        assert "cache.sqlite cannot be used: file is not a database. Set `cache` to another file." in said

    def test_by_default_it_is_one_file_for_all_searches(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_path() == tmp_path / "evolve-merge" / "judge-answers.sqlite"

    def test_a_user_without_a_home_is_told_where_to_keep_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", unknown)
        with pytest.raises(TaskError, match=r"home directory\. Set `cache` to a file, or XDG_CACHE_HOME"):
            default_path()

    def test_the_hash_of_a_request_does_not_depend_on_the_order_of_its_keys(self) -> None:
        assert request_key("u", {"a": 1, "b": 2}) == request_key("u", {"b": 2, "a": 1}) != request_key("v", {"a": 1})


class TestKey:
    def test_goes_to_the_endpoint_and_nowhere_else(
        self,
        directory: Path,
        endpoint: StandIn,
        backend: HFBackend,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("JUDGE_KEY", KEY)
        config = parse_task(settings_of(endpoint.url, {"api_key_env": "JUDGE_KEY", "retries": 0}))
        with caplog.at_level(logging.DEBUG):
            (scorer,) = load_scorers([config], [], 0, directory)
            scorer.score(backend, range(6))
            assert set(endpoint.keys) == {f"Bearer {KEY}"}
            endpoint.answer = lambda body: (401, {}, json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}}))
            with pytest.raises(TaskError) as refused:
                probe_scorers([scorer])
            endpoint.answer = lambda body: (500, {}, f"the key {KEY} broke me")
            with pytest.raises(TaskError) as failed:
                probe_scorers([scorer])
        assert "Incorrect API key: ***. Check the key in JUDGE_KEY" in str(refused.value)
        assert "the key *** broke me" in str(failed.value)
        kept = [path.read_bytes() for path in directory.iterdir()]
        kept += [repr(config).encode(), config.model_dump_json().encode(), caplog.text.encode(), repr(scorer).encode()]
        kept += [str(refused.value).encode(), str(failed.value).encode()]
        assert not [content for content in kept if KEY.encode() in content]

    def test_that_is_absent_is_said_before_the_search(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("JUDGE_KEY", raising=False)
        (said,) = refusal(directory, judge={"api_key_env": "JUDGE_KEY"})
        assert said == "task 'judge': environment variable JUDGE_KEY is not set. Put the key into it."

    def test_in_the_address_is_refused(self) -> None:
        for url in ("http://user:secret@host/v1", "http://host/v1?key=secret"):
            with pytest.raises(ValidationError, match="A key goes into the environment variable") as caught:
                parse_task(settings_of(url))
            assert "secret" not in caught.value.errors(include_input=False)[0]["msg"]


class TestConfiguration:
    def test_fields_that_an_item_lacks_are_found_before_the_search(self, directory: Path) -> None:
        (directory / "questions.jsonl").write_text('{"question": "a", "reference": "b"}\n{"question": "c"}\n')
        assert refusal(directory) == ["task 'judge': item 1: prompt: 'reference' is undefined"]

    def test_items_without_a_question_are_named_and_not_all_of_them(self, directory: Path) -> None:
        said = refusal(directory, question="query")
        assert said[0] == "task 'judge': item 0: expected a text in field 'query', found None"
        assert said[3] == "task 'judge': and 3 items more"

    def test_a_prompt_without_the_answer_or_with_a_mistake_is_refused(self, directory: Path) -> None:
        assert "prompt does not use the answer" in refusal(directory, prompt="{{ question }}")[0]
        with pytest.raises(TaskError, match=r"^\[0\]\.prompt: task 'judge': unexpected end of template"):
            scorer_of(directory, "http://127.0.0.1:9/v1", prompt="{{ question")

    def test_a_template_reaches_nothing_but_the_item(self, directory: Path) -> None:
        said = refusal(directory, prompt="{{ answer.__class__.__mro__ }}")
        assert "unsafe" in said[0]

    def test_what_a_candidate_writes_is_no_template(self, directory: Path) -> None:
        from evolve.scoring.scorers.judge.prompt import JudgePrompt

        prompt = JudgePrompt("{{ answer }}", "question")
        assert prompt.render("Why?", "{{ 7 * 7 }}") == "{{ 7 * 7 }}"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"parse": {"regex": "Score"}}, "expected one group"),
            ({"parse": {"regex": "("}}, "regex: "),
            ({"parse": {}}, "exactly one of regex and json_key is needed, found neither"),
            ({"range": {"low": 3, "high": 3}}, "low must be below high"),
            ({"judge": {"base_url": "localhost:8000"}}, "expected a URL such as"),
            ({"judge": {"base_url": "http://host:port/v1"}}, "Port could not be cast"),
            ({"judge": {"options": {"messages": []}}}, "messages is set by the task"),
            ({"judge": {"api_key": KEY}}, "api_key"),
            ({"judge": {"api_key_env": "sk-not a name"}}, "expected the name of an environment variable"),
            ({"judge": {"options": {"api_key": "of the user"}}}, "api_key: a key goes into the environment"),
            ({"judge": {"options": {"top_p": math.nan}}}, "options\n.*cannot be sent as JSON"),
            ({"judge": {"options": {"since": date(2020, 1, 1)}}}, "cannot be sent as JSON"),
            ({"judge": {"timeout_seconds": math.inf}}, "timeout_seconds\n.*less than or equal to"),
            ({"signal": "margin"}, "signal: margin needs a continuous signal, and a judge gives none"),
            ({"items": 5}, "expected the questions"),
            ({"system_instruction": "Be brief."}, "needs apply_chat_template"),
        ],
    )
    def test_that_makes_no_sense_is_refused(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(ValidationError, match=said):
            parse_task(settings_of("http://127.0.0.1:9/v1", **changes))

    def test_everything_wrong_is_said_at_once(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("JUDGE_KEY", raising=False)
        said = refusal(directory, items="absent.jsonl", judge={"api_key_env": "JUDGE_KEY"})
        assert len(said) == 2


def test_the_cache_holds_answers_and_hashes_only(directory: Path, endpoint: StandIn, backend: HFBackend) -> None:
    scorer_of(directory, endpoint.url).score(backend, [0])
    connection = sqlite3.connect(directory / "cache.sqlite")
    rows = connection.execute("SELECT * FROM answers").fetchall()
    connection.close()
    assert rows == [(request_key(f"{endpoint.url}/chat/completions", endpoint.bodies[0]), "Score: 5")]
