"""Pictures as files."""

from __future__ import annotations

import sys

import pytest
from run_records import full_record, record_for

from evolve.problems import ConfigError
from evolve.report.pictures.drawn import ORDER, all_pictures
from evolve.report.pictures.still import write_png


@pytest.mark.parametrize("name", [name for name in ORDER if name != "parallel"])
def test_every_picture_but_parallel_coordinates_is_drawn(tmp_path, name):
    pytest.importorskip("matplotlib")
    picture = all_pictures()[name]
    assert write_png(picture.draw(record_for(name)), tmp_path / "a.png", picture.title)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_left_out(tmp_path):
    pytest.importorskip("matplotlib")
    assert not write_png(all_pictures()["parallel"].draw(full_record()), tmp_path / "a.png", "")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'evolve-merge\[png\]'"):
        write_png(all_pictures()["history"].draw(full_record()), tmp_path / "a.png", "")
