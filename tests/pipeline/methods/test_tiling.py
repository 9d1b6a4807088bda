"""Tiles cover a frame, cut spikes alike, and blend without a trace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikedeblur.pipeline.methods.tiling import Blender, TilingError, batches, plan_axis, plan_tiles


@given(
    side=st.integers(1, 900),
    scale=st.sampled_from([(1, 1), (2, 1), (3, 2), (72, 25)]),
    tile=st.integers(1, 400),
    multiple=st.sampled_from([1, 8, 16]),
)
def test_tiles_cover_the_axis_overlap_and_keep_to_both_grids(
    side: int, scale: tuple[int, int], tile: int, multiple: int
) -> None:
    step, voxel_step = scale
    side = max(1, side // step) * step
    tiles = plan_axis(side, side // step * voxel_step, tile, multiple)
    assert tiles[0].span[0] == 0
    assert tiles[-1].span[1] == side
    for t in tiles:
        assert t.span[0] % multiple == 0 or len(tiles) == 1
        # The same place on both grids, exactly.
        assert [x * voxel_step for x in t.span] == [v * step for v in t.voxel_span]
        assert t.weights().min() > 0
    for a, b in itertools.pairwise(tiles):
        assert a.span[0] < b.span[0]
        assert a.span[1] - b.span[0] >= (a.span[1] - a.span[0]) / 4
        assert a.ramps[1] == b.ramps[0] == a.span[1] - b.span[0]


def test_no_tile_size_or_a_large_one_is_one_whole_tile() -> None:
    for tile in (None, 90, 1000):
        (one,) = plan_tiles((90, 60), (45, 30), tile)
        assert (one.vertical.span, one.horizontal.span) == ((0, 90), (0, 60))
        assert (one.vertical.voxel_span, one.horizontal.voxel_span) == ((0, 45), (0, 30))
        assert (one.weights() == 1).all()


def test_blending_parts_of_one_image_gives_the_image() -> None:
    image = np.random.default_rng(0).random((2, 100, 130, 3), np.float32)
    tiles = plan_tiles((100, 130), (50, 65), 40, multiple=8)
    assert len(tiles) > 4
    blender = Blender(2, (100, 130))
    for tile in tiles:
        rows, columns = slice(*tile.vertical.span), slice(*tile.horizontal.span)
        blender.add(tile, image[:, rows, columns])
    np.testing.assert_allclose(blender.result(), image, atol=1e-6)


def test_a_step_between_neighbouring_tiles_becomes_a_smooth_ramp() -> None:
    first, second, *_ = tiles = plan_tiles((32, 96), (32, 96), 64, multiple=8)
    assert len(tiles) == 2
    blender = Blender(1, (32, 96))
    blender.add(first, np.zeros((1, 32, 64, 3), np.float32))
    blender.add(second, np.ones((1, 32, 64, 3), np.float32))
    row = blender.result()[0, 7, :, 0]
    assert (row[:32] == 0).all()
    assert (row[64:] == 1).all()
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() < 2 / 32


def test_tiles_below_a_pixel_are_refused() -> None:
    with pytest.raises(TilingError, match="--tile"):
        plan_tiles((90, 60), (45, 30), 0)


def test_tiles_of_one_size_come_together_in_order():
    tiles = plan_tiles((100, 100), (50, 50), 48, multiple=16)
    found = list(batches(tiles, 2))
    assert [tile for batch in found for tile in batch] == tiles
    assert {len(batch) for batch in found} == {1, 2}
    for batch in found:
        assert len({tile.weights().shape for tile in batch}) == 1
