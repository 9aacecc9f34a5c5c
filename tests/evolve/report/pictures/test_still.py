"""Pictures as files."""

from __future__ import annotations

import io

import pytest
from run_records import full_record, record_for

from evolve.problems import ConfigError
from evolve.report.pictures import still
from evolve.report.pictures.drawn import ORDER, all_pictures
from evolve.report.pictures.still import png
from evolve.report.pictures.style import figure


@pytest.mark.parametrize("name", [name for name in ORDER if name != "parallel"])
def test_every_picture_but_parallel_coordinates_is_drawn(name):
    pytest.importorskip("matplotlib")
    picture = all_pictures()[name]
    assert png(picture.draw(record_for(name)), picture.title).startswith(b"\x89PNG")


def test_points_lie_on_the_lines_that_were_drawn_before_them():
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    drawn = figure(height=200)
    drawn.add_scatter(x=[0, 1], y=[0, 0], mode="lines", line={"color": "#ff0000", "width": 9})
    drawn.add_scatter(x=[0.5], y=[0], mode="markers", marker={"color": "#0000ff", "size": 12})
    with image.open(io.BytesIO(png(drawn, ""))) as found:
        colours = {colour[:3] for _, colour in found.getcolors(found.width * found.height)}
    assert (0, 0, 255) in colours


def test_what_cannot_be_drawn_is_left_out():
    pytest.importorskip("matplotlib")
    assert png(all_pictures()["parallel"].draw(full_record()), "") is None


def test_without_matplotlib_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr(still, "can_draw", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'evolve-merge\[png\]'"):
        png(all_pictures()["history"].draw(full_record()), "")
