from __future__ import annotations

import numpy as np
import pytest
from alignment_cases import same_view, to_frame
from spike_streams import packed

from spikedeblur.pipeline.spikes import SpikeFile, parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.registration import (
    RegisteredSpikes,
    Registration,
    RegistrationError,
)

TURNED = (1.9, -0.2, 3.0, 0.2, 2.1, -4.0, 1e-3, -5e-4, 1.0)


@pytest.fixture
def file(tmp_path):
    spikes = (np.random.default_rng(0).random((50, 20, 27)) < 0.4).astype(np.uint8)
    geometry = parse_geometry("20x27,bottom-up")
    write_spikes(tmp_path / "a.dat", spikes, geometry)
    return SpikeFile.open(tmp_path / "a.dat", geometry)


def test_points_go_to_the_frame_and_back():
    where = Registration(TURNED, (20, 27), (40, 54))
    points = np.random.default_rng(1).uniform(0, 27, (9, 2))
    np.testing.assert_allclose(where.to_spikes(to_frame(where, points)), points, atol=1e-9)
    x, y = to_frame(where, np.array([10.0, 5.0]))
    depth = 1e-3 * 10 - 5e-4 * 5 + 1
    assert x == pytest.approx((1.9 * 10 - 0.2 * 5 + 3) / depth)
    assert y == pytest.approx((0.2 * 10 + 2.1 * 5 - 4) / depth)


def test_equal_fields_change_no_spike(file):
    same = same_view((20, 27), (40, 54))
    assert (same.sources() >= 0).all()
    seen = RegisteredSpikes(file, same)
    np.testing.assert_array_equal(seen.read(), file.read())
    np.testing.assert_array_equal(packed(seen, 3, 9), packed(file, 3, 9))


def test_a_shift_by_whole_pixels_moves_spikes_and_leaves_zeros(file):
    # The frame's point is 3 spike pixels right of and 2 below the spikes' own.
    moved = Registration((2.0, 0, 6.0, 0, 2.0, 4.0, 0, 0, 1), (20, 27), (40, 54))
    seen = RegisteredSpikes(file, moved).read()
    np.testing.assert_array_equal(seen[:, 2:, 3:], file.read()[:, :-2, :-3])
    assert not seen[:, :2].any()
    assert not seen[:, :, :3].any()


def test_each_pixel_takes_the_nearest_ones_bits(file):
    where = Registration(TURNED, (20, 27), (40, 54))
    seen, spikes = RegisteredSpikes(file, where).read(), file.read()
    for i in range(20):
        for j in range(27):
            x, y = where.to_spikes(np.array([(j + 0.5) * 2, (i + 0.5) * 2]))
            inside = 0 <= x < 27 and 0 <= y < 20
            expected = spikes[:, int(y), int(x)] if inside else np.zeros(50)
            np.testing.assert_array_equal(seen[:, i, j], expected)


def test_counts_crops_and_packed_bits_are_those_of_the_registered_spikes(file):
    seen = RegisteredSpikes(file, Registration(TURNED, (20, 27), (40, 54)))
    spikes = seen.read(5, 45)
    counts = seen.counts(8, 5, 45)
    np.testing.assert_array_equal(counts, spikes.reshape(8, 5, 20, 27).sum(1))
    crop = seen.counts(8, 5, 45, rows=(3, 11), columns=(10, 27))
    np.testing.assert_array_equal(crop, counts[:, 3:11, 10:27])
    far = seen.counts(8, 5, 45, rows=(19, 20), columns=(0, 1))
    np.testing.assert_array_equal(far, counts[:, 19:, :1])
    bits = np.unpackbits(packed(seen, 5, 45), axis=-1, count=27, bitorder="little")
    np.testing.assert_array_equal(bits, spikes)


@pytest.mark.parametrize(
    "matrix", [(0.0,) * 9, (1.0, 0, 0, 0, 1.0, 0, -0.1, 0, 1.0), (float("nan"),) * 9]
)
def test_a_matrix_that_maps_to_no_picture_is_refused(matrix):
    with pytest.raises(RegistrationError, match="matrix"):
        Registration(matrix, (20, 27), (40, 54))


def test_spikes_of_another_size_are_refused(file):
    with pytest.raises(RegistrationError, match="20x27"):
        RegisteredSpikes(file, same_view((20, 20), (40, 40)))


def test_each_row_of_spikes_looks_at_its_row_of_the_frame():
    # Row i of spikes spans the frame's rows 2 i and 2 i + 1, whose middle is 2 i + 0.5.
    rows = same_view((20, 27), (40, 54)).frame_rows()
    np.testing.assert_allclose(rows, 2 * np.arange(20) + 0.5)
