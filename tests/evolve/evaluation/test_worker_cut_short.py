"""A file of a model that loses its end while a worker reads it ends the run, and is no candidate's failure."""

from __future__ import annotations

import os
import shutil

import pytest
from zoo_requests import ITEMS, ROOT, ZOO, recipe, settings

from evolve.evaluation.request import GradientRequest, Request
from evolve.evaluation.worker import Worker
from merge_core.errors import CutShortError

pytestmark = pytest.mark.slow


def test_no_candidate_is_blamed_for_a_model_that_is_cut_short(tmp_path):
    shutil.copytree(ROOT / ZOO, tmp_path / ZOO)
    worker = Worker(settings(relative_to=str(tmp_path)))
    assert worker.evaluate(Request(0, recipe(), ITEMS)).failure is None
    os.truncate(tmp_path / ZOO / "sorting" / "model.safetensors", 4096)
    with pytest.raises(CutShortError, match=r"sorting/model\.safetensors: was cut short"):
        worker.evaluate(Request(1, recipe(0.2), ITEMS))
    with pytest.raises(CutShortError):
        worker.differentiate(GradientRequest(0, recipe(0.2), {}, {}, 0.25))
    worker.close()
