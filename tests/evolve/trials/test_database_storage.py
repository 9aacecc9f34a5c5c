"""Trials in the databases of EVOLVE_TEST_DATABASES, URLs with a space between: each test makes one and drops it.

EVOLVE_TEST_DATABASES="mysql://root@127.0.0.1 postgresql://postgres@127.0.0.1/postgres"
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from optuna.distributions import FloatDistribution
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, Kind, Trial

SERVERS = os.environ.get("EVOLVE_TEST_DATABASES", "").split()


@pytest.fixture(params=SERVERS or [pytest.param("", marks=pytest.mark.skip("EVOLVE_TEST_DATABASES names no server"))])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = make_url(request.param)
    driver = "mysql+pymysql" if server.drivername == "mysql" else server.drivername
    name = f"evolve_test_{secrets.token_hex(4)}"
    engine = create_engine(server.set(drivername=driver), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"drop database {name}"))
    engine.dispose()


def trial(number: int) -> Trial:
    recipe = {"merge_method": "linear", "models": [{"model": "a"}]}
    return Trial(number, Kind.CANDIDATE, f"candidate {number}", number, recipe, (1 / 7,), {"weight": 1 / 7})


def scored(number: int, items: int) -> Trial:
    scores = {"task": {item: item / 7 for item in range(items)}}
    evaluation = Evaluation(number, scores=scores, skipped={"task": {7: "kein Wort für 🙂"}}, total_seconds=0.5)
    return replace(trial(number), evaluation=evaluation, task_scores={"task": 0.1}, objective=0.1 + 0.2, fitness=1 / 3)


def test_trials_of_any_number_of_items_are_read_as_they_were_written(url: str):
    journal = Journal.open(url, create=True)
    expected = [scored(number, items) for number, items in enumerate((3, 10_000))]
    for one in expected:
        journal.begin([replace(one, evaluation=None, task_scores={}, objective=None, fitness=None)], AXES)
        journal.finish(one)
    journal.begin([trial(2)], AXES)
    again = Journal.open(url)
    assert again.trials() == [*expected, trial(2)]
    for opened in (journal, again):
        opened._storage._backend.engine.dispose()  # Optuna keeps its connections until the process ends


AXES = {"weight": FloatDistribution(0.0, 1.0)}
