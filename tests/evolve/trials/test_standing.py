"""How a run stands, as the file beside its journal says: what the whole journal says, or nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evolve.actions.status import best_recipe, best_scored, run_status
from evolve.trials.journal import Journal
from evolve.trials.journal_lines import sealed
from evolve.trials.stage import Stage
from evolve.trials.standing import FORMAT, StandingFile
from evolve.trials.step import Step
from evolve.trials.trial import Evaluation, Kind, Stopped, Trial

GENES = {"w": FloatDistribution(0.0, 1.0)}


def trial_of(number, kind=Kind.CANDIDATE):
    recipe = {"merge_method": "linear", "models": [{"model": f"m{number}"}]}
    genes = {"w": number / 100} if kind is Kind.CANDIDATE else {}
    return Trial(number, kind, f"{kind.value} {number}", 0, recipe, tuple(genes.values()) or None, genes)


def finished(trial, value=None, **measured):
    scores = {} if value is None else {"t": {0: value, 1: value}}
    evaluation = Evaluation(trial.number, scores=scores, **measured)
    done = replace(trial, evaluation=evaluation)
    if value is None or evaluation.violations or evaluation.stopped:
        return done
    return replace(done, task_scores={"t": value}, objective=value, fitness=value)


def stages(journal):
    """A run from its first line to its last: yields after everything that is written."""
    yield journal.write_header({"config": {"budget": {"evaluations": 9}}})
    yield journal.note("command", {"line": "evolve run x.yml", "directory": "/somewhere"})
    references = [trial_of(0, Kind.PARENT), trial_of(1, Kind.UNIFORM)]
    yield journal.begin(references, GENES)
    for number in range(3):
        yield journal.keep(Stage.LOOK, Evaluation(number, scores={"t": {0: 0.5}}))
        failure = "out of memory" if number == 1 else None
        yield journal.keep_step(Step(number, (0.1,), {"t": 0.5}, items=4, failure=failure))
    yield journal.keep(Stage.REFERENCES, finished(references[0], 0.4).measured)
    yield journal.finish(finished(references[0], 0.4))
    yield journal.finish(finished(references[1], failure="no such file"))
    batch = [trial_of(number) for number in range(2, 9)]
    yield journal.begin(batch, GENES)
    yield journal.start(2)
    yield journal.keep(Stage.RACE, finished(batch[0], 0.3).measured)
    yield journal.finish(finished(batch[0], 0.3))
    yield journal.finish(finished(batch[3], 0.8))
    yield journal.finish(finished(batch[1], 0.8))
    yield journal.finish(finished(batch[2], failure="the disk is full", lost_items=1))
    yield journal.finish(finished(batch[4], 0.9, violations={"length": 1.0}))
    yield journal.finish(finished(batch[5], 0.2, stopped=Stopped.BELOW))
    yield journal.finish(finished(batch[2], failure="the disk is still full"))
    yield journal.finish(finished(batch[2], 0.1))
    yield journal.finish(finished(references[1], 0.45))
    yield journal.finish(finished(batch[6], failure="nan"))
    yield journal.keep(Stage.VALIDATION, Evaluation(4, scores={"t": {5: 0.7}}))
    yield journal.note("search_seconds", 12.5)


@pytest.fixture
def location(tmp_path):
    (tmp_path / "search.yml").write_text("recipe: {}\n")
    return tmp_path / "journal.log"


@pytest.fixture
def written(location):
    for _ in stages(Journal.open(str(location), create=True)):
        pass
    return location


def counted(location):
    return Journal.open(str(location)).standing()


def test_it_says_what_the_whole_journal_says_at_every_moment_and_through_every_restart(location):
    for number, _ in enumerate(stages(Journal.open(str(location), create=True))):
        assert StandingFile(location).read() == counted(location), number
        copy = location.with_name(f"copy-{number}.log")
        shutil.copyfile(location, copy)
        Journal.open(str(copy), create=True).note("more", number)
        assert StandingFile(copy).read() == counted(copy)


def test_its_numbers_are_those_of_the_run(written):
    standing = StandingFile(written).read()
    assert (standing.candidates, standing.failed, standing.infeasible, standing.stopped) == (7, 1, 1, 1)
    assert standing.last_failure == "candidate 8: nan"
    assert standing.best_scored.label == "candidate 3"  # the earlier of equals
    assert standing.references == {"parent 0": 0.4, "uniform 1": 0.45}
    assert (standing.steps, standing.failed_steps, standing.step_failure) == (3, 1, "out of memory")
    assert sum(standing.spent.values()) == 3 * 1 + 3 * 3 * 4 + 2 * 2 + 6 * 2 + 1
    assert set(standing.scored) == {1, 3, 4}


def test_what_failed_and_stays_failed_is_told_with_its_reason_and_a_way_out(location):
    journal = Journal.open(str(location), create=True)
    reference, candidate = trial_of(0, Kind.PARENT), trial_of(1)
    journal.begin([reference], GENES)
    journal.finish(finished(reference, failure="no such file"))
    assert journal.standing().lasting_failures == []  # which is scored again
    journal.begin([candidate], GENES)
    journal.finish(finished(candidate, 0.5))
    for number in range(2):
        journal.keep_step(Step(number, items=4, failure="out of memory" if number else None))
    of_reference, of_steps = journal.standing().lasting_failures
    assert of_reference.startswith("parent 0 failed and is not scored again: no such file. ")
    assert of_steps.startswith("1 of 2 steps of the gradient failed and are not made again: out of memory. ")
    for line in (of_reference, of_steps):
        assert "another --output or with --from" in line
        assert line in run_status(location.parent).text


def test_best_and_its_recipe_come_of_it_without_the_journal_being_read(written, monkeypatch):
    (written.parent / "run.json").write_text(json.dumps({"best": 4, "candidates": 7}))
    monkeypatch.setattr(Journal, "open", None)
    best = best_scored(written.parent)
    assert best.label == "candidate 4"
    assert best_recipe(written.parent, best) == {"merge_method": "linear", "models": [{"model": "m4"}]}
    assert "7 of 9 candidates scored" in run_status(written.parent).text


def test_a_chosen_trial_that_it_does_not_tell_is_looked_up(written):
    (written.parent / "run.json").write_text(json.dumps({"best": 2, "candidates": 7}))
    best = best_scored(written.parent)
    assert (best.label, best.objective) == ("candidate 2", 0.3)
    assert best_recipe(written.parent, best)["models"] == [{"model": "m2"}]


def grown(location, file):
    location.write_bytes(location.read_bytes() + location.read_bytes().splitlines(keepends=True)[-1])


def cut(location, file):
    location.write_bytes(b"".join(location.read_bytes().splitlines(keepends=True)[:-1]))


def flipped(location, file):
    content = bytearray(location.read_bytes())
    content[len(content) // 2] ^= 1
    location.write_bytes(content)


def altered(location, file):
    file.path.write_bytes(file.path.read_bytes().replace(b'"candidates":7', b'"candidates":8'))


def torn(location, file):
    file.path.write_bytes(file.path.read_bytes()[:100])


def of_another_format(location, file):
    content = {**json.loads(file.path.read_bytes()), "standing": FORMAT + 1}
    file.path.write_bytes(sealed({key: content[key] for key in content if key not in ("line", "crc32")}, 0))


def lacking_a_field(location, file):
    content = json.loads(file.path.read_bytes())
    kept = {key: content[key] for key in content if key not in ("line", "crc32", "looks")}
    file.path.write_bytes(sealed(kept, 0))


def of_another_run(location, file):
    other = location.with_name("other.log")
    Journal.open(str(other), create=True).write_header({"config": {}})
    shutil.copyfile(StandingFile(other).path, file.path)


def something_else(location, file):
    file.path.write_text("[1, 2]\n")


def gone(location, file):
    file.path.unlink()


@pytest.mark.parametrize(
    "harm",
    [grown, cut, flipped, altered, torn, of_another_format, lacking_a_field, of_another_run, something_else, gone],
)
def test_one_that_is_outdated_damaged_or_foreign_is_not_believed(written, harm, capsys):
    harm(written, StandingFile(written))
    assert StandingFile(written).read() is None
    facts = run_status(written.parent).facts
    assert facts["candidates"] == len([one for one in Journal.open(str(written)) if one.number > 1 and one.evaluation])


@pytest.mark.parametrize("text", ["a note of mine\n", "{}\n"])
def test_a_file_of_that_name_that_no_run_wrote_is_left_alone(location, text):
    file = StandingFile(location)
    file.path.write_text(text)
    for _ in stages(Journal.open(str(location), create=True)):
        pass
    assert file.path.read_text() == text
    assert run_status(location.parent).facts["candidates"] == 7


def test_a_link_of_that_name_is_not_followed(location):
    mine = location.with_name("mine")
    mine.write_text("")
    StandingFile(location).path.symlink_to(mine)
    Journal.open(str(location), create=True).note("key", 1)
    assert mine.read_text() == ""


def test_a_write_that_fails_is_not_counted(location, monkeypatch):
    journal = Journal.open(str(location), create=True)
    journal.begin([trial_of(0)], GENES)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("evolve.trials.journal_file._write_all", full)
        with pytest.raises(OSError, match="No space"):
            journal.finish(finished(trial_of(0), 0.5))
    journal.note("search_seconds", 1.0)
    found = StandingFile(location).read()
    assert found is not None
    assert found.candidates == 0 == counted(location).candidates


def test_status_needs_neither_optuna_nor_scorers(written):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from evolve.actions.status import run_status;"
        f"print(run_status(Path({str(Path(written).parent)!r})).facts['candidates']);"
        "print([name for name in ('optuna', 'evolve.scoring', 'merge_core') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["7", "[]"]
