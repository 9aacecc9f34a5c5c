"""Scores by the user's own function, and everything that can be wrong with it."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from evolve.scoring import ScoringError, TaskError, load_scorers, parse_task
from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.scorers.text_model import TextModel

MODULE = """
import math

HERE = "not a function"


def items():
    return ["a", "b", "c", "d"]


def numbered(model, items):
    return [float(item) for item in items]


def as_mapping(model, items):
    return {place: {"score": item, "signal": 0.5} for place, item in enumerate(items)}


def with_bonus(model, items, bonus=0.0):
    return [item + bonus for item in items]


def trips_over_two(model, items):
    return [1 / (item - 2) for item in items]


def trips_over_many(model, items):
    if len(items) > 1:
        raise RuntimeError("too many")
    return [1.0]


def says_nan(model, items):
    return [math.nan if item == 1 else 1.0 for item in items]


def says_too_much(model, items):
    return [[10**400, 1e200, -1e200, 1.0, 1.0][item] for item in items]


def says_none(model, items):
    return {place: item for place, item in enumerate(items) if item != 3}


def says_text(model, items):
    return ["0.5" for _ in items]


def says_too_little(model, items):
    return [1.0]


def says_one_number(model, items):
    return 0.5


def says_a_strange_place(model, items):
    return {"a": 1.0}


def uses_up(model, items):
    return [float(item["words"].pop()) for item in items]


def wants_more(model, items, threshold):
    return [0.0 for _ in items]


def wants_less(model):
    return []


def answers(model, items):
    texts = model.generate([model.chat(text) for text in items], max_new_tokens=6, stop="e")
    return [len(text) for text in texts]


def asks_wrongly(model, items):
    model.generate("one prompt")
    return [0.0 for _ in items]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "scoring_functions.py").write_text(MODULE)
    # The module's name is the same in every test, and Python keeps modules.
    import sys

    sys.modules.pop("scoring_functions", None)
    return tmp_path


def scorer_of(directory: Path, function: str, **settings: Any) -> Any:
    entry = {"python": f"scoring_functions:{function}", "items": 5, **settings}
    (scorer,) = load_scorers([parse_task(entry)], [], 0, directory)
    return scorer


def refusal(directory: Path, function: str, **settings: Any) -> str:
    with pytest.raises(TaskError) as caught:
        scorer_of(directory, function, **settings)
    (problem,) = caught.value.problems
    return problem.message


def test_what_a_function_does_to_its_items_reaches_no_other_model(directory: Path, backend: HFBackend) -> None:
    (directory / "words.jsonl").write_text('{"words": [1]}\n')
    scorer = scorer_of(directory, "uses_up", items="words.jsonl")
    assert [scorer.score(backend, [0]).values for _ in range(2)] == [{0: 1.0}] * 2


def test_the_score_is_the_mean_of_what_the_function_returns(directory: Path, backend: HFBackend) -> None:
    scorer = scorer_of(directory, "numbered")
    scored = scorer.score(backend, [4, 0, 1])
    assert scored.values == {0: 0.0, 1: 1.0, 4: 4.0}
    assert scorer.aggregate(scored.values).value == pytest.approx(5 / 3)
    assert (scorer.name, scorer.direction) == ("numbered", "maximize")


def test_a_mapping_goes_by_place_and_may_carry_signals(directory: Path, backend: HFBackend) -> None:
    scored = scorer_of(directory, "as_mapping").score(backend, [1, 3])
    assert scored.values == {1: 1.0, 3: 3.0}
    assert scored.signals == {1: 0.5, 3: 0.5}


def test_arguments_are_given_by_name(directory: Path, backend: HFBackend) -> None:
    assert scorer_of(directory, "with_bonus", arguments={"bonus": 2}).score(backend, [1]).values == {1: 3.0}


def test_the_model_answers_as_it_does_when_asked_by_hand(directory: Path, backend: HFBackend) -> None:
    import torch

    scorer = scorer_of(directory, "answers", items={"python": "scoring_functions:items"})
    values = scorer.score(backend, scorer.item_ids()).values
    for item, text in enumerate("abcd"):
        prompt = backend.tokenizer.encode(f"[user]{text}\n[assistant]", add_special_tokens=False)
        tokens = list(prompt)
        answer = ""
        for _ in range(6):  # greedy decoding, one token at a time, without a cache
            with torch.no_grad():
                best = int(backend.model(torch.tensor([tokens])).logits[0, -1].argmax())
            tokens.append(best)
            letter = backend.tokenizer.decode([best])
            if letter in ("e", "</s>"):
                break
            answer += letter
        assert values[item] == len(answer)


def test_log_likelihoods_are_those_of_the_model(backend: HFBackend) -> None:
    import torch

    context, continuation = "one two ", "three"
    (found,) = TextModel(backend).loglikelihood([(context, continuation)])
    tokens = backend.tokenizer.encode(context + continuation, add_special_tokens=False)
    with torch.no_grad():
        logits = backend.model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    start = len(backend.tokenizer.encode(context.rstrip(), add_special_tokens=False))
    expected = sum(float(logits[place - 1, tokens[place]]) for place in range(start, len(tokens)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_item_on_which_it_raises_fails_the_candidate_by_its_name(directory: Path, backend: HFBackend) -> None:
    reason = r"task 'trips_over_two': item 2: ZeroDivisionError: division by zero \((\w+\.py), line (\d+)\)"
    with pytest.raises(ScoringError, match=reason) as caught:
        scorer_of(directory, "trips_over_two").score(backend, range(5))
    place = re.search(reason, str(caught.value))
    assert place is not None
    assert "1 / (item - 2)" in (directory / place[1]).read_text().splitlines()[int(place[2]) - 1]


def test_an_item_without_a_number_fails_the_candidate_by_its_name(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(ScoringError, match=r"item 1: the score is nan, not a finite number"):
        scorer_of(directory, "says_nan").score(backend, range(5))
    with pytest.raises(ScoringError, match="item 3: no score: the function returned None"):
        scorer_of(directory, "says_none").score(backend, range(5))
    with pytest.raises(ScoringError, match=r"item 0: the score is '0.5', not a finite number \(4 more items failed\)"):
        scorer_of(directory, "says_text").score(backend, range(5))


@pytest.mark.parametrize(("item", "said"), [(0, "the score is larger"), (1, "1e.200, larger"), (2, "-1e.200, larger")])
def test_a_number_of_which_no_mean_can_be_taken_fails_the_candidate(
    directory: Path, backend: HFBackend, item: int, said: str
) -> None:
    with pytest.raises(ScoringError, match=f"item {item}: .*{said} than 1e.100"):
        scorer_of(directory, "says_too_much").score(backend, [item, 3, 4])


def test_items_may_be_skipped_and_are_then_named(
    directory: Path, backend: HFBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        scored = scorer_of(directory, "trips_over_two", on_item_error="skip").score(backend, range(5))
    assert sorted(scored.values) == [0, 1, 3, 4]
    assert list(scored.skipped) == [2]
    assert re.fullmatch(r"ZeroDivisionError: division by zero \(\w+\.py, line \d+\)", scored.skipped[2])
    assert "1 items left out" in caplog.text


def test_nothing_is_left_to_score_when_every_item_is_skipped(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(ScoringError, match="item 2"):
        scorer_of(directory, "trips_over_two", on_item_error="skip").score(backend, [2])


def test_raising_on_all_items_and_on_none_alone_is_said(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(
        ScoringError, match="raised on all items together, though on none alone: RuntimeError: too many"
    ):
        scorer_of(directory, "trips_over_many").score(backend, range(5))


def test_answers_that_could_only_be_empty_are_refused(backend: HFBackend) -> None:
    with pytest.raises(TaskError, match="max_new_tokens must be at least 1, got 0"):
        TextModel(backend).generate(["Why?"], max_new_tokens=0)


def test_one_text_in_the_place_of_prompts_is_refused(directory: Path, backend: HFBackend) -> None:
    with pytest.raises(ScoringError, match="expected a list of prompts, got one text"):
        scorer_of(directory, "asks_wrongly").score(backend, [0])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("says_too_little", "returned 1 result for 5 items"),
        ("says_one_number", "returned float; return a list"),
        ("says_a_strange_place", "a result for 'a'; keys are places in the list of items, here 0 to 4"),
    ],
)
def test_results_that_belong_to_no_item_are_refused(
    function: str, said: str, directory: Path, backend: HFBackend
) -> None:
    with pytest.raises(TaskError, match=said):
        scorer_of(directory, function).score(backend, range(5))


def test_a_function_that_cannot_be_called_is_refused_before_the_search(directory: Path) -> None:
    assert "has no function 'numberd'. Did you mean 'numbered'?" in refusal(directory, "numberd")
    assert "HERE is str, not a function" in refusal(directory, "HERE")
    assert "missing a required argument: 'threshold'" in refusal(directory, "wants_more")
    assert "cannot be called as score(model, items, **arguments)" in refusal(directory, "wants_less")
    assert "unexpected keyword argument 'bonsu'" in refusal(directory, "with_bonus", arguments={"bonsu": 1})


def test_the_whole_module_and_the_items_are_content(directory: Path) -> None:
    keys = scorer_of(directory, "numbered").content_keys([0])
    assert scorer_of(directory, "numbered").content_keys([0]) == keys
    assert set(keys) == {"items", "scoring_functions.py"}
    assert scorer_of(directory, "numbered", items=6).content_keys([0])["items"] != keys["items"]


def test_a_module_that_cannot_be_imported_is_one_line(directory: Path) -> None:
    assert "no module 'absent_module'. Looked in" in refusal(directory, "x", python="absent_module:f")
    assert "no module 'scoring_functions.inner'" in refusal(directory, "x", python="scoring_functions.inner:f")
    (directory / "needs_another.py").write_text("import a_module_that_nobody_has\n")
    assert "needs_another' cannot be imported: No module named 'a_module" in refusal(
        directory, "x", python="needs_another:f"
    )
    (directory / "has_a_mistake.py").write_text("def f(:\n")
    assert "cannot be imported: SyntaxError" in refusal(directory, "x", python="has_a_mistake:f")
    (directory / "json.py").write_text("def f(model, items): return []\n")
    assert "'json' in" in refusal(directory, "x", python="json:f")
    assert "has the name of a module that is loaded already. Rename it" in refusal(directory, "x", python="json:f")


def test_importing_a_module_moves_nothing_but_what_it_sets_up_for_itself(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "unruly.py").write_text(
        "import os, torch\n"
        "os.chdir('/')\n"
        "torch.set_default_dtype(torch.float64)\n"
        "torch.set_grad_enabled(False)\n"
        "os.environ['SET_UP_BY_UNRULY'] = 'x'\n"
        "def f(model, items): return items\n"
    )
    monkeypatch.setenv("SET_UP_BY_UNRULY", "")  # so that it is as before afterwards
    before = os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled()
    scorer_of(directory, "f", python="unruly:f", items=2)
    assert (os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled()) == before
    assert os.environ["SET_UP_BY_UNRULY"] == "x"


def test_functions_are_found_in_packages_and_on_the_search_path(directory: Path, backend: HFBackend) -> None:
    package = directory / "elsewhere" / "scoring_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from .other import f\n")
    (package / "other.py").write_text("def f(model, items): return [7 for _ in items]\n")
    (directory / "elsewhere" / "without_init").mkdir()
    (directory / "elsewhere" / "without_init" / "part.py").write_text(
        "def f(model, items): return [8 for _ in items]\n"
    )
    entry = parse_task({"python": "without_init.part:f", "items": 2})
    (scorer,) = load_scorers([entry], [directory / "elsewhere"], 0, directory)
    assert scorer.score(backend, [1]).values == {1: 8.0}
    entry = parse_task({"python": "scoring_package.inner:f", "items": 2})
    (scorer,) = load_scorers([entry], [directory / "elsewhere"], 0, directory)
    assert scorer.score(backend, [1]).values == {1: 7.0}


def test_a_name_that_is_no_function_name_is_refused() -> None:
    with pytest.raises(ValueError, match="python"):
        parse_task({"python": "module.function", "items": 3})


class TestItems:
    def items(self, directory: Path, name: str, content: str) -> Any:
        (directory / name).write_text(content, encoding="utf-8")
        from evolve.scoring.scorers.item_source import load_items
        from evolve.scoring.scorers.user_files import SearchPaths

        return load_items(name, SearchPaths(directory))

    def test_of_json_lines_are_one_value_a_line(self, tmp_path: Path) -> None:
        line = json.dumps({"a": "x\u2028y"}, ensure_ascii=False)
        assert self.items(tmp_path, "a.jsonl", f'{line}\n\n[1, "b"]\n') == [{"a": "x\u2028y"}, [1, "b"]]

    def test_of_json_are_a_list(self, tmp_path: Path) -> None:
        assert self.items(tmp_path, "a.json", '[1, "b"]') == [1, "b"]
        with pytest.raises(TaskError, match="expected a list, found dict"):
            self.items(tmp_path, "a.json", "{}")

    def test_of_a_table_are_its_rows_by_column(self, tmp_path: Path) -> None:
        rows = self.items(tmp_path, "a.csv", '\ufeffq,a\n"one, two",3\n"a\nb",4\n')
        assert rows == [{"q": "one, two", "a": "3"}, {"q": "a\nb", "a": "4"}]
        with pytest.raises(TaskError, match="is no table of comma-separated values: field larger than"):
            self.items(tmp_path, "a.csv", "q,a\n1," + "x" * 200_000)
        with pytest.raises(TaskError, match="row 1 has not as many cells as the header"):
            self.items(tmp_path, "a.csv", "q,a\n1\n")

    def test_may_begin_with_a_byte_order_mark(self, tmp_path: Path) -> None:
        assert self.items(tmp_path, "a.jsonl", "\ufeff1\n2\n") == [1, 2]

    def test_of_text_are_its_lines(self, tmp_path: Path) -> None:
        assert self.items(tmp_path, "a.txt", "one\r\n\n two\n") == ["one", " two"]

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.jsonl", "{}\n{]\n", "a.jsonl:2 is not JSON"),
            ("a.json", "[]", "holds no item"),
            ("a.txt", "\n", "a.txt is empty"),
            ("a.parquet", "x", r"expected a file \.jsonl, \.json, \.csv, \.txt"),
        ],
    )
    def test_that_cannot_be_read_are_refused(self, tmp_path: Path, name: str, content: str, said: str) -> None:
        with pytest.raises(TaskError, match=said):
            self.items(tmp_path, name, content)

    def test_of_a_function_are_what_it_returns(self, directory: Path) -> None:
        assert len(scorer_of(directory, "numbered", items={"python": "scoring_functions:items"}).item_ids()) == 4
        assert "has no function 'itms'. Did you mean 'items'?" in refusal(
            directory, "numbered", items={"python": "scoring_functions:itms"}
        )
        (directory / "more_items.py").write_text(
            "def f(): return 3\ndef g(): raise OSError('no disk')\ndef h(): exit()\n"
        )
        assert "returned int; return a list" in refusal(directory, "numbered", items={"python": "more_items:f"})
        assert "raised OSError: no disk" in refusal(directory, "numbered", items={"python": "more_items:g"})
        assert "raised SystemExit" in refusal(directory, "numbered", items={"python": "more_items:h"})

    def test_that_are_absent_are_looked_for_where_it_says(self, directory: Path) -> None:
        said = refusal(directory, "numbered", items="absent.jsonl")
        assert "no file 'absent.jsonl'. Looked in" in said
        assert str(directory) in said
