"""How long an item is: counted with the model's tokenizer, and assumed where only a run would tell."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from evolve.preflight.token_count import ASSUMED, tokens_of_items
from evolve.scoring import LmEvalTask, TaskError, load_scorers
from evolve.scoring.language_model import GenerationSettings
from merge_core import Checkpoint

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "configs" / "demo_zoo" / "base"


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return Checkpoint.open(ZOO)


def test_an_item_is_its_prompt_and_the_longest_answer_of_its_task(model: Checkpoint):
    """Counted with the Rust library that reads the same file, without transformers."""
    tokenizer = Tokenizer.from_file(str(ZOO / "tokenizer.json"))
    (scorer,) = load_scorers([LmEvalTask(name="demo_sorting")], [], seed=0)
    task = scorer.members[0].task
    prompts = [task.doc_to_text(task.eval_docs[item]) for item in range(8)]
    longest = task.get_config("generation_kwargs")["max_gen_toks"]
    expected = (sum(len(tokenizer.encode(prompt).ids) for prompt in prompts) / len(prompts), longest)
    assert tokens_of_items([scorer], {"demo_sorting": range(8)}, model) == {"demo_sorting": expected}


class Scorer:
    """Asks for an answer, and says whose code it is."""

    name = "mine"

    def __init__(self, runs_user_code: bool, error: Exception | None = None) -> None:
        self.runs_user_code, self._error, self.asked = runs_user_code, error, 0

    def score(self, model, item_ids):
        self.asked += 1
        if self._error is not None:
            raise self._error
        model.generate([model.prepare_generation("abc", GenerationSettings(max_new_tokens=5)) for _ in item_ids])
        pytest.fail("it was given answers that nobody wrote")


def test_what_is_the_user_s_own_is_not_run_for_it(model: Checkpoint):
    theirs, ours = Scorer(runs_user_code=True), Scorer(runs_user_code=False)
    assert tokens_of_items([theirs], {"mine": [1, 2]}, model) == {"mine": ASSUMED}
    assert tokens_of_items([ours], {"mine": [1, 2]}, model) == {"mine": (3, 5)}
    assert (theirs.asked, ours.asked) == (0, 1)


@pytest.mark.parametrize("error", [TaskError("an item has no prompt"), None], ids=["the task", "the tokenizer"])
def test_what_cannot_be_counted_is_assumed(error: Exception | None, model: Checkpoint, tmp_path: Path):
    without = model if error is not None else SimpleNamespace(directory=tmp_path, config={})
    assert tokens_of_items([Scorer(False, error)], {"mine": [1]}, without) == {"mine": ASSUMED}
