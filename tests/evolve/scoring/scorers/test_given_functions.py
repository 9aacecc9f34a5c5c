"""Functions that are objects: what they depend on, and their way to another process."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import threading

import cloudpickle
import pytest

from evolve.scoring import TaskError
from evolve.scoring.scorers.given_functions import GivenFunctions, find_given, given, given_code_keys


def typed(source, name="scorer", **values):
    """A function as a notebook has it: of `__main__`, in no file."""
    namespace = {"__name__": "__main__", **values}
    exec(source, namespace)
    return namespace[name]


SCORER = "def scorer(model, items):\n    return [helper(item) for item in items]\n"
HELPER = "def helper(item):\n    return item + {added}\n"


def scorer_with(added, **values):
    return typed(HELPER.format(added=added) + SCORER, **values)


def test_it_is_there_while_it_is_given_and_no_longer():
    with given({"scorer": len}):
        assert find_given("given:scorer") is len
        assert find_given("some.module:scorer") is None
    with pytest.raises(TaskError, match=r"scorer was given to evolve in Python and is in no file.*directory="):
        find_given("given:scorer")


def test_the_key_is_of_what_a_function_does_and_not_of_who_made_it():
    assert given_code_keys(scorer_with(1)) == given_code_keys(scorer_with(1))


def test_another_helper_default_or_global_is_another_key():
    uses_word = "def scorer(model, items, bonus={bonus}):\n    return [WORD + bonus for item in items]\n"
    keys = [
        given_code_keys(scorer_with(1)),
        given_code_keys(scorer_with(2)),
        given_code_keys(typed(uses_word.format(bonus=1), WORD=1)),
        given_code_keys(typed(uses_word.format(bonus=1), WORD=2)),
        given_code_keys(typed(uses_word.format(bonus=2), WORD=1)),
    ]
    assert len({str(key) for key in keys}) == len(keys)


def test_a_partial_function_has_the_keys_of_all_its_functions():
    keys = [given_code_keys(functools.partial(map, scorer_with(added))) for added in (1, 2)]
    assert keys[0] != keys[1]


def test_a_function_of_a_module_has_the_key_of_its_file(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text("def scorer(model, items):\n    return [1.0] * len(items)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import beside_me

    before = given_code_keys(beside_me.scorer)
    assert list(before) == ["code", "beside_me.py"]
    (tmp_path / "beside_me.py").write_text("def scorer(model, items):\n    return [2.0] * len(items)\n")
    assert given_code_keys(beside_me.scorer) != before


IN_ANOTHER_PROCESS = """
import pickle, sys
from evolve.scoring.scorers.given_functions import find_given
pickle.loads(sys.stdin.buffer.read()).provide()
print(find_given("given:scorer")(None, [1, 2]))
"""


def elsewhere(functions):
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], input=pickle.dumps(functions), capture_output=True, check=False
    )
    return done.stdout.decode().strip(), done.stderr.decode()


def test_a_typed_function_and_what_it_calls_work_in_another_process_and_from_there_in_the_next():
    with given({"scorer": scorer_with(10)}):
        once = pickle.loads(pickle.dumps(GivenFunctions()))
    assert elsewhere(once) == ("[11, 12]", "")


def test_so_does_one_of_a_module_that_the_other_process_cannot_import(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def plus_five(item):\n    return item + 5\n")
    (tmp_path / "uses_it.py").write_text(
        "from only_here import plus_five\n\ndef scorer(model, items):\n    return [plus_five(item) for item in items]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import uses_it

    with given({"scorer": uses_it.scorer}):
        functions = GivenFunctions()
    assert elsewhere(functions) == ("[6, 7]", "")
    assert not {"only_here", "uses_it"} & set(cloudpickle.list_registry_pickle_by_value())


def test_one_that_cannot_travel_is_named_with_the_reason_and_the_way_out():
    lock = threading.Lock()
    with given({"scorer": lambda model, items: [lock.locked() for item in items]}):
        functions = GivenFunctions()
    with pytest.raises(TaskError, match=r"scorer cannot be sent to workers.*lock.*workers=1"):
        pickle.dumps(functions)


def test_one_that_lacks_something_there_says_so(monkeypatch):
    functions = GivenFunctions((("scorer", b"no pickle"),))
    with pytest.raises(TaskError, match="scorer cannot be loaded in a worker: "):
        functions.provide()
