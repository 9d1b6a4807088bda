"""Scenes for the eye: what they show moves apart, and no other scene changes by them."""

import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from spikedeblur.cli import main
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.simulate import display
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.record import inputs_digest
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.simulate.scenes import render_scene

SIZE = (192, 240)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    (clip,) = scene_clips("show", 1, SIZE, 65)
    return list(clip.render(0))


def moved(frames: list[np.ndarray], y: int, x: int) -> tuple[int, int]:
    """Return how far the square around a place of the middle frame moves in 8 frames, in pixels."""
    middle, later = (np.asarray(Image.fromarray(frames[i]).convert("L"), float) for i in (32, 40))

    def square(frame: np.ndarray, y: int, x: int) -> np.ndarray:
        return frame[y - 9 : y + 9, x - 9 : x + 9]

    part = square(middle, y, x)
    errors = {
        (dy, dx): np.abs(square(later, y + dy, x + dx) - part).mean()
        for dy in range(-5, 6)
        for dx in range(-10, 11)
    }
    return min(errors, key=errors.__getitem__)


def test_poster_wall_and_trunk_move_apart(frames):
    wall, poster, trunk = (
        moved(frames, *place)[1] for place in ((100, 212), (127, 110), (170, 20))
    )
    assert -4 <= wall <= -1  # 0.05 of 192 pixels in 32 frames
    assert 4 <= poster <= 6  # 0.11
    assert 3 <= trunk <= 5  # 0.08


def test_its_lettering_is_that_of_its_words(frames, monkeypatch):
    """Drawn without the street's name, only the sign looks otherwise."""
    written = []
    real = ImageDraw.ImageDraw.text

    def text(self, at, words, *rest, **more):
        written.append(words)
        real(self, at, words, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    monkeypatch.setattr(display, "_STREETS", ("",) * len(display._STREETS))
    bare = next(display.render_display(_random(), SIZE, 1))
    assert written[0] == ""
    assert tuple(written[1:]) in display._POSTERS
    changed = np.abs(bare.astype(int) - frames[0]).max(axis=2) > 30
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 300
    assert rows.max() < 80
    assert columns.max() < 200


def _random() -> np.random.Generator:
    return np.random.default_rng([0, zlib.crc32(b"show/scenes/00000"), zlib.crc32(b"scene")])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_other_splits_are_drawn_as_ever(split):
    (clip,) = scene_clips(split, 1, (48, 64), 3)
    seeds = [7, zlib.crc32(clip.seq.encode()), zlib.crc32(b"scene")]
    expected = list(render_scene(np.random.default_rng(seeds), (48, 64), 3))
    np.testing.assert_array_equal(list(clip.render(7)), expected)
    assert inputs_digest(clip, Rig()) != inputs_digest(
        scene_clips("show", 1, (48, 64), 3)[0], Rig()
    )


def test_simulate_writes_them_as_a_split_of_their_own(tmp_path, frames, capsys):
    out = tmp_path / "data"
    command = ["simulate", str(out), "--scenes", "1", "--split", "show", "--size", "192x240"]
    assert main([*command, "--workers", "1"]) == 0
    np.testing.assert_array_equal(read_rgb(out / "show_fullRGB/scenes/00000/0031.png"), frames[31])
    assert main(["simulate", str(out), "--frames", str(out), "--split", "show"]) == 2
    assert "--scenes" in capsys.readouterr().err
