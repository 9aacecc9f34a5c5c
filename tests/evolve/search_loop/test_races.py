"""Races in a search, with a made-up evaluator: what is asked of it, what is recorded, and resuming."""

from __future__ import annotations

import csv
import itertools
import random
from threading import Event as Flag

import numpy as np
import pytest
from made_up_search import SPACE, TEMPLATE, Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.optimizers import SearchProblem, create_optimizer
from evolve.report.trials_csv import trials_csv
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.races import Races
from evolve.search_loop.references import reference_trials
from evolve.trials.journal import Journal
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, State, Stopped, best_of

ITEMS = {"one": tuple(range(90)), "two": tuple(range(5, 65))}
DIFFICULTY = {(name, item): random.Random(f"{name}{item}").random() for name, ids in ITEMS.items() for item in ids}


class Quiz:
    """An item is solved by recipes that are good enough for it; groups of `workers` end in shuffled order."""

    def __init__(
        self,
        workers=1,
        die_after=None,
        fail=lambda number: False,
        skip=lambda number, item: False,
        unforeseen=False,
    ):
        self.workers, self.die_after, self.fail, self.skip = workers, die_after, fail, skip
        self.unforeseen = unforeseen
        self.asked = []  # (trial, task, item)
        self.requests = 0

    def evaluate(self, requests):
        generator = random.Random(self.workers)
        requests = iter(requests)
        while group := list(itertools.islice(requests, self.workers)):
            generator.shuffle(group)
            for request in group:
                if self.requests == self.die_after:
                    raise Killed
                self.requests += 1
                yield self.evaluation(request)

    def evaluation(self, request):
        if self.fail(request.number):
            return Evaluation(request.number, failure="out of luck", unforeseen=self.unforeseen, total_seconds=1.0)
        weights = [entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]]
        quality = 1.0 - sum((weight - 0.7) ** 2 for weight in weights)
        scores, skipped = {}, {}
        for name, ids in request.items.items():
            assert ids
            self.asked += [(request.number, name, item) for item in ids]
            skipped[name] = {item: "no answer" for item in ids if self.skip(request.number, item)}
            scores[name] = {item: float(quality > DIFFICULTY[name, item]) for item in ids if item not in skipped[name]}
        return Evaluation(request.number, scores=scores, skipped=skipped, total_seconds=1.0)


def search(path, evaluator, evaluations=24, tolerance=None, stop=None, raced=True, optimizer=None):
    tasks = [{"name": "one"}, {"name": "two", "weight": 2.0}]
    function = ObjectiveFunction([MeanTask(name) for name in ITEMS], SearchConfig(recipe=TEMPLATE, tasks=tasks), None)
    made = open_search(path, evaluator, function, ITEMS, stop=stop, evaluations=evaluations)
    if raced:
        made.race_with(Races(made.journal, ITEMS, lambda: function.item_fitness(ITEMS), 0.9, tolerance, seed=1))
    made.score_references(reference_trials(SPACE, SPACE.template, mergeable=True))
    problem = SearchProblem((0.5, 0.5), (0.3, 0.3), (0, 0), seed=3, population_size=8)
    return made.run(optimizer or create_optimizer("cma", problem)), list(made.trials)


def table(trials):
    return [(trial.number, trial.vector, trial.objective, trial.fitness, trial.measured.scores) for trial in trials]


def test_a_race_saves_items_and_says_who_was_stopped_where(tmp_path):
    evaluator = Quiz()
    _, trials = search(tmp_path, evaluator)
    stopped = [trial for trial in trials if trial.state is State.STOPPED]
    assert {trial.measured.stopped for trial in stopped} == {Stopped.ABOVE, Stopped.BELOW}
    assert len(evaluator.asked) < 0.7 * len(trials) * len(DIFFICULTY)
    for trial in stopped:
        assert trial.objective is None
        assert not trial.task_scores
        assert 0 < sum(map(len, trial.measured.scores.values())) < len(DIFFICULTY)
        assert trial.fitness == trial.measured.estimate


def test_the_table_of_trials_says_what_a_stopped_candidate_saw_and_how_it_was_estimated(tmp_path):
    _, trials = search(tmp_path, Quiz(), evaluations=8)
    (tmp_path / "trials.csv").write_text(trials_csv(trials))
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines()))
    for row, trial in zip(rows, trials, strict=True):
        assert row["state"] == trial.state
        assert int(row["items"]) == sum(map(len, trial.measured.scores.values()))
        assert row["estimate"] == ("" if trial.state is State.COMPLETE else str(trial.fitness))


class Doubled:
    """Asks for every point twice in a batch."""

    label, exhausts = "doubled", False

    def __init__(self):
        self.random = random.Random(4)

    def ask(self):
        points = [(self.random.random(), self.random.random()) for _ in range(4)]
        return [*points, *points]

    def tell(self, vectors, results):
        assert results[:4] == results[4:]


@pytest.mark.parametrize("die_after", [None, 7, 12])
def test_a_recipe_that_is_twice_in_a_batch_is_raced_once(tmp_path, die_after):
    if die_after is not None:
        with pytest.raises(Killed):
            search(tmp_path, Quiz(die_after=die_after), optimizer=Doubled())
    evaluator = Quiz()
    _, trials = search(tmp_path, evaluator, optimizer=Doubled())
    firsts = {trial.number for trial in trials if trial.is_reference or (trial.number - 3) % 8 < 4}
    assert {number for number, _, _ in evaluator.asked} <= firsts
    for trial in trials[3:]:
        assert (trial.measured.new_items == 0) == (trial.number not in firsts)


class Doubtful(Doubled):
    """The same, of twins that may come to different ends."""

    def tell(self, vectors, results):
        pass


@pytest.mark.parametrize("unforeseen", [True, False])
def test_a_failure_is_that_of_its_twin_unless_it_may_be_the_machines(tmp_path, unforeseen):
    failing = Quiz(fail=lambda number: number == 4, unforeseen=unforeseen)
    _, trials = search(tmp_path, failing, evaluations=8, optimizer=Doubtful())
    assert trials[4].state is State.FAILED
    assert (trials[8].state is State.FAILED) == (not unforeseen)


def test_what_the_machine_failed_in_a_race_is_tried_again_when_the_search_goes_on(tmp_path):
    _, trials = search(tmp_path, Quiz(fail=lambda number: number == 5, unforeseen=True), evaluations=8)
    assert trials[5].state is State.FAILED
    _, trials = search(tmp_path, Quiz(), evaluations=8)
    assert trials[5].state is not State.FAILED


def test_nothing_is_asked_twice_and_the_rounds_of_a_candidate_are_at_most_four(tmp_path):
    evaluator = Quiz()
    _, trials = search(tmp_path, evaluator)
    assert len(evaluator.asked) == len(set(evaluator.asked))
    assert all(trial.measured.total_seconds <= 4 for trial in trials)  # a second a request


def test_estimates_are_near_what_all_items_would_have_said(tmp_path_factory):
    _, raced = search(tmp_path_factory.mktemp("raced"), Quiz(), evaluations=8)
    _, whole = search(tmp_path_factory.mktemp("whole"), Quiz(), evaluations=8, raced=False)
    assert [trial.vector for trial in raced] == [trial.vector for trial in whole]
    differences = [one.fitness - other.fitness for one, other in zip(raced, whole, strict=True)]
    assert np.abs(differences).max() < 0.2
    complete = [trial.state is State.COMPLETE for trial in raced]
    assert not np.array(differences)[complete].any()


def test_the_best_of_every_batch_that_may_be_the_best_so_far_has_seen_everything(tmp_path):
    _, trials = search(tmp_path, Quiz(), evaluations=40)
    for batch in range(5):
        best = best_of([trial for trial in trials if trial.kind is Kind.CANDIDATE and trial.batch <= batch])
        higher = [t for t in trials if t.batch <= batch and t.state is State.STOPPED and t.fitness > best.fitness]
        assert not higher


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_number_of_workers_changes_nothing(tmp_path_factory, workers):
    one = search(tmp_path_factory.mktemp("one"), Quiz(1))
    many = search(tmp_path_factory.mktemp("many"), Quiz(workers))
    assert table(one[1]) == table(many[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_anywhere_in_a_race_and_resumed_it_is_the_run_that_was_never_killed(tmp_path_factory, workers):
    uninterrupted = Quiz(workers)
    whole = search(tmp_path_factory.mktemp("whole"), uninterrupted)
    killed = tmp_path_factory.mktemp("killed")
    evaluators = [Quiz(workers, die_after=deaths) for deaths in (1, 5, 7, 11, 3, 6)]
    for evaluator in evaluators:
        with pytest.raises(Killed):
            search(killed, evaluator)
    evaluators.append(Quiz(workers))
    resumed = search(killed, evaluators[-1])
    assert table(resumed[1]) == table(whole[1])
    asked = [question for evaluator in evaluators for question in evaluator.asked]
    assert sorted(asked) == sorted(uninterrupted.asked)  # nothing that was answered was asked again
    assert Journal.open(str(killed / "journal.log")).trials() == resumed[1]


def test_a_kill_while_a_race_is_written_down_changes_nothing(tmp_path_factory, monkeypatch):
    whole = search(tmp_path_factory.mktemp("whole"), Quiz())
    killed = tmp_path_factory.mktemp("killed")
    finish = Journal.finish

    def dies_at_the_sixth_candidate(journal, trial):
        if trial.number == 8:
            raise Killed
        finish(journal, trial)

    monkeypatch.setattr(Journal, "finish", dies_at_the_sixth_candidate)
    with pytest.raises(Killed):
        search(killed, Quiz())
    monkeypatch.undo()
    assert table(search(killed, Quiz())[1]) == table(whole[1])


def test_a_soft_stop_in_a_race_keeps_its_rounds(tmp_path_factory):
    whole = search(tmp_path_factory.mktemp("whole"), Quiz())
    path, stop = tmp_path_factory.mktemp("stopped"), Flag()

    class StopsAtNine(Quiz):
        def evaluation(self, request):
            if self.requests == 9:
                stop.set()
            return super().evaluation(request)

    reason, trials = search(path, StopsAtNine(), stop=stop)
    assert reason == "interrupted"
    assert all(trial.state is State.RUNNING for trial in trials[3:])
    assert len(Journal.open(str(path / "journal.log")).kept(Stage.RACE)) == 6
    assert table(search(path, Quiz())[1]) == table(whole[1])


def test_a_candidate_that_fails_in_a_race_is_a_failure_and_the_others_go_on(tmp_path):
    _, trials = search(tmp_path, Quiz(fail=lambda number: number in (4, 12)))
    assert [trial.number for trial in trials if trial.state is State.FAILED] == [4, 12]
    assert all(trial.fitness is not None for trial in trials if trial.state is not State.FAILED)


def test_a_candidate_without_a_score_on_an_item_sees_all_of_them(tmp_path):
    _, trials = search(tmp_path, Quiz(skip=lambda number, item: number == 5 and item in (6, 7, 8)))
    assert trials[5].state is State.COMPLETE
    assert trials[5].measured.skipped["one"]


def test_part_of_a_batch_is_scored_whole(tmp_path):
    _, trials = search(tmp_path, Quiz(), evaluations=11)
    assert all(trial.state is State.COMPLETE for trial in trials if trial.batch == 1)


def test_without_tolerance_the_selected_half_is_that_of_all_items_but_for_the_stated_confidence(tmp_path_factory):
    whole = search(tmp_path_factory.mktemp("whole"), Quiz(), evaluations=8, raced=False)[1][3:]
    raced = search(tmp_path_factory.mktemp("raced"), Quiz(), evaluations=8, tolerance=0.0)[1][3:]
    cut = sorted(trial.fitness for trial in whole)[3:5]
    for true, trial in zip(whole, raced, strict=True):
        if trial.measured.stopped == Stopped.BELOW:
            assert true.fitness <= cut[1]
        if trial.measured.stopped == Stopped.ABOVE:
            assert true.fitness >= cut[0]


def test_scores_that_a_race_cannot_judge_by_are_found_in_the_references(tmp_path):
    _, trials = search(tmp_path, Quiz(skip=lambda number, item: number == 1 and item == 7), evaluations=8)
    function = ObjectiveFunction(
        [MeanTask(name) for name in ITEMS], SearchConfig(recipe=TEMPLATE, tasks=list(ITEMS)), None
    )
    races = Races(
        Journal.open(str(tmp_path / "journal.log")), ITEMS, lambda: function.item_fitness(ITEMS), 0.9, None, 1
    )
    assert races.obstacle(trials[:1]) is None
    assert races.obstacle(trials[:3]) == "item 7 of one has no score for b"


def test_a_batch_that_the_budget_cuts_short_says_that_it_is_not_raced(tmp_path_factory, capsys):
    search(tmp_path_factory.mktemp("cut"), Quiz(), evaluations=20)
    assert "no race for the last 4 candidates" in capsys.readouterr().err
    search(tmp_path_factory.mktemp("whole"), Quiz(), evaluations=24)
    assert "no race" not in capsys.readouterr().err
