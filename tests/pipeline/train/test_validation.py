"""The picture of a validation: which windows it shows, and what it says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_sets import MemorySequence, TinyNetwork, tiny_config

from spikedeblur.pipeline.frames import panels
from spikedeblur.pipeline.frames.panels import Row, draw_panels
from spikedeblur.pipeline.train import validation
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.train.validation import _spread


def pictures(run: Path, monkeypatch, *lengths: int, side: int = 12) -> list[list[Row]]:
    """Return the rows of each validation's picture of a short run."""
    drawn: list[list[Row]] = []

    def draw(rows: list[Row], zoom: int) -> np.ndarray:
        drawn.append(rows)
        return draw_panels(rows, zoom)

    monkeypatch.setattr(validation, "draw_panels", draw)
    config = tiny_config(MAX_STEPS=4, VAL_INTERVAL=2)
    splits = (
        [MemorySequence("train/a", 6)],
        [MemorySequence(f"val/{i}", n, (side, 16)) for i, n in enumerate(lengths)],
    )
    objective = Objective(config.LOSS)
    cpu = torch.device("cpu")
    fit(Session(config, Group(0, 1, cpu), objective, TinyNetwork(), splits, run=run))
    return drawn


def test_four_windows_spread_over_the_split_are_shown_and_always_the_same(tmp_path, monkeypatch):
    first, *later = pictures(tmp_path, monkeypatch, 10, 6)
    # Windows 2, 6, 10 and 14 of 16; a sequence's frames are 16, 31, 46, ...
    titles = ["val/0, frame 46", "val/0, frame 106", "val/1, frame 16", "val/1, frame 76"]
    assert [row.title for row in first] == titles
    assert len(later) == 2
    for rows in later:
        assert [row.title for row in rows] == titles
        for row, before in zip(rows, first, strict=True):
            for i in (0, 2):
                np.testing.assert_array_equal(row.panels[i][1], before.panels[i][1])


def test_captions_are_the_psnr_of_what_is_shown(tmp_path, monkeypatch):
    rows = pictures(tmp_path, monkeypatch, 2)[-1]
    (line,) = [x for x in read_metrics(tmp_path) if x["kind"] == "val" and x["step"] == 4]
    means = {"blur": [], "output": []}
    for row in rows:
        (_, blur), (_, output), (caption, sharp) = row.panels
        assert caption == "sharp"
        for (said, _), image in zip(row.panels, (blur, output), strict=False):
            error = ((image / 255 - sharp / 255) ** 2).mean()
            word, value, unit = said.split()
            assert (float(value), unit) == (pytest.approx(-10 * np.log10(error), abs=0.006), "dB")
            means[word].append(float(value))
    assert np.mean(means["output"]) == pytest.approx(line["psnr"], abs=0.006)
    assert np.mean(means["blur"]) == pytest.approx(line["psnr_blur"], abs=0.006)


def test_fewer_windows_are_all_shown_and_large_frames_by_their_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "SHOWN_SIDE", 20)
    rows = pictures(tmp_path, monkeypatch, 1, 2)[0]
    assert sorted(row.title for row in rows) == [
        "val/0, frame 16",
        "val/1, frame 16",
        "val/1, frame 31",
    ]
    whole = MemorySequence("val/0", 1, (12, 16)).blur(0, 1)[0]
    (shown,) = [row.panels[0][1] for row in rows if row.title.startswith("val/0")]
    np.testing.assert_array_equal(shown, whole[2:22, 6:26])


@pytest.mark.parametrize("lengths", [(1,), (3, 1), (50, 2, 9), (4,)])
def test_each_shown_window_has_its_own_place(lengths):
    index = ClipIndex.each_window_once(lengths, 3)
    places = [(clip, t) for clip, windows in _spread(index).items() for _, t in windows]
    assert len(set(places)) == min(4, sum(lengths))
    assert all(0 <= t < index[clip].length for clip, t in places)


def test_rows_are_drawn_below_each_other_with_their_captions():
    red = np.full((4, 6, 3), (200, 0, 0), np.uint8)
    blue = np.full((5, 90, 3), (0, 0, 200), np.uint8)
    line, gap = panels._CAPTION_ROWS, panels._GAP
    drawn = draw_panels([Row("a title", [("r", red), ("s", red)]), Row("", [("b", blue)])], 2)
    assert drawn.shape == (2 * line + 8 + gap + line + 10, 180, 3)
    top = drawn[2 * line : 2 * line + 8]
    np.testing.assert_array_equal(top[:, :12], red.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(top[:, 12 + gap : 24 + gap], red.repeat(2, 0).repeat(2, 1))
    assert (top[:, 12 : 12 + gap] == 255).all()
    np.testing.assert_array_equal(drawn[-10:], blue.repeat(2, 0).repeat(2, 1))
    for text in (drawn[:line], drawn[line : 2 * line], drawn[-10 - line : -10]):
        assert (text < 128).any()
