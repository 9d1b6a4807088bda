"""Scenes in which things move apart: what the benchmarks of methods rest on."""

from __future__ import annotations

import numpy as np
import pytest
from moving_apart import JUDGING, LENGTH, PARTS, REGIONS, SIZE, TUNING, scenes
from PIL import Image

CENTRE = LENGTH // 2


def test_the_sets_share_no_photograph() -> None:
    assert not set(TUNING) & set(JUDGING)


def test_the_sets_share_no_motion() -> None:
    places = [
        layer.motion.place
        for kind in ("tuning", "judging")
        for part in PARTS
        for layer in next(scenes(kind, part)).layers
        if layer.motion.place != (SIZE / 2, SIZE / 2)
    ]
    assert len(places) > 4
    assert len(places) == len(set(places))


def test_a_scene_is_the_same_each_time() -> None:
    for part in PARTS:
        one, other = (next(scenes("judging", part)) for _ in range(2))
        assert (one.frame(CENTRE) == other.frame(CENTRE)).all()
        assert (one.regions(CENTRE) == other.regions(CENTRE)).all()


@pytest.mark.parametrize("part", PARTS)
def test_frames_follow_the_true_motion(part: str) -> None:
    scene = next(scenes("judging", part))
    regions = scene.regions(CENTRE)
    assert set(np.unique(regions)) <= set(range(len(REGIONS)))
    surely = np.isin(regions, [REGIONS.index(name) for name in ("inside", "still", "background")])
    assert surely.mean() > 0.3
    for frame in (CENTRE - 16, CENTRE + 10):
        x, y = scene.shift(frame, CENTRE)
        assert np.hypot(x, y)[surely].max() > 2
        sharp, moved = scene.frame(CENTRE).astype(int), scene.frame(frame)
        columns = np.arange(SIZE) + x
        rows = np.arange(SIZE)[:, None] + y
        mapped = _sampled(moved, rows, columns)
        with_motion = np.abs(mapped - sharp)[surely].mean()
        without = np.abs(moved - sharp)[surely].mean()
        assert with_motion < 0.35 * without


def _sampled(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a picture at places between its pixels, bilinearly."""
    top = np.clip(np.floor(rows), 0, SIZE - 2).astype(int)
    left = np.clip(np.floor(columns), 0, SIZE - 2).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    above = picture[top, left] * (1 - right) + picture[top, left + 1] * right
    below = picture[top + 1, left] * (1 - right) + picture[top + 1, left + 1] * right
    return above * (1 - down) + below * down


def test_a_written_scene_is_read_back(tmp_path) -> None:
    from moving_apart import write_frames

    made = write_frames(tmp_path, "judging", "disc", count=1)
    path = tmp_path / "test" / "disc" / made[0].name / f"{CENTRE:04d}.png"
    assert (np.asarray(Image.open(path)) == made[0].frame(CENTRE)).all()
