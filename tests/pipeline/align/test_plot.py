from __future__ import annotations

import re
from pathlib import Path

import pytest
from aligning import run_align

from spikedeblur.pipeline.host.overwrite import OverwriteError


def run(root: Path, **options):
    page = root / "o" / "page.html"
    return run_align(root, "x4k1000fps", root / "o" / "a.txt", plot=page, exposure=9, **options)


@pytest.fixture
def two(tmp_path, make_clip) -> Path:
    """A sequence that is right, and one that does not move."""
    make_clip(tmp_path, "val/Type1/a_moving", speed=1.5, lag=1)
    make_clip(tmp_path, "val/Type1/b_still", speed=0.0)
    return tmp_path


def test_page_needs_nothing_else_and_shows_what_is_wrong_first(two):
    run(two)
    text = (two / "o" / "page.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    order = re.findall(r"<h2>(.*?)</h2>", text)
    assert order == ["val/Type1/b_still", "val/Type1/a_moving"]
    pictures = re.findall(r"<img src=\"data:image/jpeg;base64,", text)
    assert len(pictures) == 2 * 4
    assert text.count("<svg") == 2
    assert "peak at +1." in text or "peak at +0.9" in text


def test_the_top_counts_what_is_wrong(two):
    run(two)
    text = (two / "o" / "page.html").read_text()
    assert re.search(r'1 proved</span>; <span class="bad">1 (still|rival|unsure)</span>', text)


def test_the_curve_lies_within_its_axes_and_its_peak_is_marked(two):
    run(two)
    for chart in re.findall(r"<svg.*?</svg>", (two / "o" / "page.html").read_text()):
        line = re.search(r'<polyline points="([^"]+)"', chart)[1]
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        assert all(34 <= x <= 330 and 16 <= y <= 160 for x, y in points)
        x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4"', chart).groups())
        assert 34 <= x <= 330
        assert y == pytest.approx(min(y for _, y in points), abs=3)
        assert 'text-anchor="middle">lag, samples' in chart
        assert re.search(r'x="182\.0" y="187\.0" text-anchor="middle">lag, samples', chart)


def test_after_correction_the_page_shows_what_is_left(two):
    run(two, estimate=True)
    text = (two / "o" / "page.html").read_text()
    assert "clock corrected" in text
    (left,) = (float(x) for x in re.findall(r"peak at ([+-]\d+\.\d)", text)[1:])
    assert abs(left) <= 0.5


def test_same_page_for_any_number_of_workers(two):
    run(two, workers=1)
    one = (two / "o" / "page.html").read_bytes()
    run(two, workers=3)
    assert (two / "o" / "page.html").read_bytes() == one


def test_a_file_that_is_no_such_page_is_kept(two):
    page = two / "o" / "page.html"
    page.parent.mkdir()
    page.write_text("mine")
    with pytest.raises(OverwriteError, match="overwrite"):
        run(two)
    assert page.read_text() == "mine"
    assert not (two / "o" / "a.json").exists()
    run(two, overwrite=True)
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_names_cannot_break_the_page(tmp_path, make_clip):
    make_clip(tmp_path, "val/Type1/<b>&", speed=1.5)
    run(tmp_path)
    assert "<h2>val/Type1/&lt;b&gt;&amp;</h2>" in (tmp_path / "o" / "page.html").read_text()
