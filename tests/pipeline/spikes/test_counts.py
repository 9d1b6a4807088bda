import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_streams import plain_counts, spans, streams

from spikedeblur.pipeline.spikes import (
    SpikeGeometry,
    SpikeGeometryError,
    SpikeWindowError,
    count_spikes,
    samples_per_bin,
    spike_to_voxel,
    voxelize,
)
from spikedeblur.pipeline.spikes.counts import count_windows
from spikedeblur.pipeline.spikes.dat import pack_spikes


@settings(max_examples=500)
@given(stream=streams(max_frames=70), data=st.data())
def test_counts_are_those_of_the_plain_definition_for_any_geometry_window_and_crop(stream, data):
    geometry, spikes = stream
    start, stop = data.draw(spans(len(spikes)))
    bins = data.draw(st.integers(1, stop - start))
    rows, columns = data.draw(spans(geometry.shape[0])), data.draw(spans(geometry.shape[1]))
    counts = count_spikes(pack_spikes(spikes, geometry), geometry, bins, start, stop, rows, columns)
    plain = plain_counts(spikes[start:stop], bins)[:, slice(*rows), slice(*columns)]
    assert counts.dtype == np.uint8
    np.testing.assert_array_equal(counts, plain)


@settings(max_examples=200)
@given(
    stream=streams(max_frames=70),
    data=st.data(),
    limit=st.sampled_from([8, 64, 300]),
    deep=st.sampled_from([2, 5, 255]),
)
def test_counts_do_not_depend_on_how_much_is_unpacked_at_once(stream, data, limit, deep):
    geometry, spikes = stream
    bins = data.draw(st.integers(1, len(spikes)))
    columns = data.draw(spans(geometry.shape[1]))
    packed = pack_spikes(spikes, geometry)
    plain = plain_counts(spikes, bins)[..., slice(*columns)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikedeblur.pipeline.spikes.counts._BLOCK_BYTES", (limit, 2 * limit))
        patch.setattr("spikedeblur.pipeline.spikes.counts._DEEP", deep)
        found = count_spikes(packed, geometry, bins, columns=columns)
    np.testing.assert_array_equal(found, plain)


@settings(max_examples=200)
@given(stream=streams(max_frames=70), data=st.data())
def test_several_windows_at_once_are_counted_as_each_by_itself(stream, data):
    geometry, spikes = stream
    windows = data.draw(st.lists(spans(len(spikes)), min_size=1, max_size=5))
    bins = data.draw(st.integers(1, min(stop - start for start, stop in windows)))
    columns = data.draw(spans(geometry.shape[1]))
    packed = pack_spikes(spikes, geometry)
    found = count_windows(packed, geometry, bins, windows, columns=columns)
    each = [count_spikes(packed, geometry, bins, *window, columns=columns) for window in windows]
    np.testing.assert_array_equal(found, np.stack(each))


@settings(max_examples=100)
@given(stream=streams(max_frames=70), data=st.data())
def test_rows_that_begin_later_are_counted_in_windows_of_their_own(stream, data):
    geometry, spikes = stream
    (height, width), n = geometry.shape, len(spikes)
    windows = data.draw(st.lists(spans(n), min_size=1, max_size=3))
    bins = data.draw(st.integers(1, min(stop - start for start, stop in windows)))
    (top, bottom), columns = data.draw(spans(height)), data.draw(spans(width))
    # Rows outside of the crop may leave the stream.
    least, most = -min(start for start, _ in windows), n - max(stop for _, stop in windows)
    delays = np.full(height, 10**6)
    inside = data.draw(st.lists(st.integers(least, most), min_size=height, max_size=height))
    delays[top:bottom] = inside[top:bottom]
    found = count_windows(
        pack_spikes(spikes, geometry),
        geometry,
        bins,
        windows,
        (top, bottom),
        columns,
        delays=delays,
    )
    for (start, stop), counts in zip(windows, found, strict=True):
        for row, upright in enumerate(range(top, bottom)):
            of_row = spikes[start + delays[upright] : stop + delays[upright], upright, None]
            plain = plain_counts(of_row, bins)[:, 0, slice(*columns)]
            np.testing.assert_array_equal(counts[:, row], plain)


def test_a_rolling_shutter_that_goes_slowly_down_the_image_is_counted_row_by_row():
    geometry = SpikeGeometry(height=40, width=24, flip_rows=True)
    spikes = (np.random.default_rng(0).random((400, 40, 24)) < 0.3).astype(np.uint8)
    delays = np.arange(40) // 3
    windows = [(0, 300), (80, 387)]
    found = count_windows(pack_spikes(spikes, geometry), geometry, 1, windows, delays=delays)
    assert found.dtype == np.uint16
    for (start, stop), counts in zip(windows, found, strict=True):
        plain = [spikes[start + d : stop + d, row].sum(0) for row, d in enumerate(delays)]
        np.testing.assert_array_equal(counts[0], np.stack(plain))


@pytest.mark.parametrize("delay", [-1, 2])
def test_a_row_whose_window_leaves_the_stream_is_refused(delay):
    geometry = SpikeGeometry(height=2, width=8, flip_rows=True)
    packed = pack_spikes(np.zeros((9, 2, 8), np.uint8), geometry)
    delays = np.array([0, delay])
    with pytest.raises(SpikeWindowError, match="expected samples inside 0:9, got"):
        count_windows(packed, geometry, 3, [(0, 8)], delays=delays)


@pytest.mark.parametrize("delays", [np.zeros(3, int), np.zeros((2, 1), int), np.zeros(2)])
def test_delays_are_whole_samples_one_a_row_of_the_image(delays):
    geometry = SpikeGeometry(height=2, width=8, flip_rows=True)
    packed = pack_spikes(np.zeros((9, 2, 8), np.uint8), geometry)
    with pytest.raises(SpikeWindowError, match="one whole delay for each of 2 rows"):
        count_windows(packed, geometry, 3, [(0, 8)], (0, 1), delays=delays)


@pytest.mark.parametrize("window", [(3, 3), (4, 3), (-1, 3), (5, 10)])
def test_empty_windows_and_windows_outside_the_stream_are_refused(window):
    geometry = SpikeGeometry(height=2, width=8, flip_rows=True)
    packed = pack_spikes(np.zeros((9, 2, 8), np.uint8), geometry)
    with pytest.raises(SpikeWindowError, match="expected samples inside 0:9, got"):
        count_windows(packed, geometry, 1, [(0, 9), window])


@pytest.mark.parametrize("empty", [{"rows": (3, 3)}, {"columns": (8, 8)}])
def test_empty_ranges_of_pixels_are_refused(empty):
    geometry = SpikeGeometry(height=5, width=16, flip_rows=True)
    packed = pack_spikes(np.zeros((9, 5, 16), np.uint8), geometry)
    with pytest.raises(SpikeGeometryError, match="check the crop"):
        count_spikes(packed, geometry, 1, **empty)


def test_windows_fill_the_array_that_is_given_whatever_its_strides():
    geometry = SpikeGeometry(height=5, width=16, flip_rows=False)
    spikes = (np.random.default_rng(0).random((9, 5, 16)) < 0.5).astype(np.uint8)
    room = np.full((16, 2, 4, 5), 77, np.uint8)
    given_out = room.transpose(1, 2, 3, 0)[:, :3]
    packed = pack_spikes(spikes, geometry)
    assert count_windows(packed, geometry, 3, [(0, 4), (4, 9)], out=given_out) is given_out
    for (start, stop), counts in zip([(0, 4), (4, 9)], given_out, strict=True):
        np.testing.assert_array_equal(counts, plain_counts(spikes[start:stop], 3))
    assert (room[:, :, 3] == 77).all()


def test_counts_fill_the_array_that_is_given_whatever_its_strides():
    geometry = SpikeGeometry(height=5, width=16, flip_rows=True)
    spikes = (np.random.default_rng(0).random((9, 5, 16)) < 0.5).astype(np.uint8)
    packed = pack_spikes(spikes, geometry)
    room = np.full((4, 2, 5, 16), 77, np.uint8)
    given_out = room[:, 1]
    assert count_spikes(packed, geometry, 4, out=given_out) is given_out
    np.testing.assert_array_equal(room[:, 1], plain_counts(spikes, 4))
    assert (room[:, 0] == 77).all()
    with pytest.raises(SpikeWindowError, match="expected an output"):
        count_spikes(packed, geometry, 4, out=room[:3, 1])


@pytest.mark.parametrize("frames", [255, 256, 300, 1023])
@pytest.mark.parametrize("density", [0.5, 1.0])
@pytest.mark.parametrize("flip_rows", [True, False])
@pytest.mark.parametrize("width", [13, 16])
def test_bins_of_more_than_255_samples_are_counted_in_uint16(frames, density, flip_rows, width):
    geometry = SpikeGeometry(height=5, width=width, flip_rows=flip_rows)
    spikes = (np.random.default_rng(0).random((frames, 5, width)) < density).astype(np.uint8)
    counts = count_spikes(pack_spikes(spikes, geometry), geometry, 1)
    assert counts.dtype == (np.uint8 if frames <= 255 else np.uint16)
    np.testing.assert_array_equal(counts, plain_counts(spikes, 1))


@pytest.mark.parametrize("flip_rows", [True, False])
def test_a_short_and_a_long_window_are_counted_together_in_uint16(flip_rows):
    geometry = SpikeGeometry(height=5, width=16, flip_rows=flip_rows)
    spikes = (np.random.default_rng(0).random((1500, 5, 16)) < 0.9).astype(np.uint8)
    windows = [(0, 1500), (700, 704), (3, 104)]
    found = count_windows(pack_spikes(spikes, geometry), geometry, 4, windows)
    assert found.dtype == np.uint16
    for (start, stop), counts in zip(windows, found, strict=True):
        np.testing.assert_array_equal(counts, plain_counts(spikes[start:stop], 4))


@pytest.mark.parametrize("size", [(88, 360, 640), (301, 250, 400), (257, 128, 128)])
def test_counting_takes_a_fifth_of_the_output_beside_it(size):
    frames, height, width = size
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    packed = np.random.default_rng(0).integers(0, 256, frames * height * width // 8, np.uint8)
    windows = [(0, frames)] * (3 if width == 128 else 1)
    count_windows(packed, geometry, 32, windows)
    tracemalloc.start()
    counts = count_windows(packed, geometry, 32, windows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.2 * counts.nbytes


@pytest.mark.parametrize(("samples", "bins"), [(56, 32), (88, 32), (257, 32), (33, 33), (7, 2)])
def test_samples_per_bin_follow_the_definition(samples, bins):
    plain = np.bincount([j * bins // samples for j in range(samples)], minlength=bins)
    np.testing.assert_array_equal(samples_per_bin(samples, bins), plain)


def test_fewer_samples_than_bins_names_both():
    geometry = SpikeGeometry(height=8, width=8, flip_rows=True)
    packed = np.zeros(31 * 8, np.uint8)
    with pytest.raises(SpikeWindowError, match="31 samples for 32 bins"):
        count_spikes(packed, geometry, 32)


@pytest.mark.parametrize("samples", [33, 49, 56, 88, 257])
@pytest.mark.parametrize("t0", [0.0, 0.0151, 7.123])
def test_voxelize_of_a_streams_events_equals_count_spikes(samples, t0):
    rate, bins = 8000.0, 32
    geometry = SpikeGeometry(height=6, width=10, flip_rows=False)
    spikes = (np.random.default_rng(samples).random((samples, 6, 10)) < 0.4).astype(np.uint8)
    j, y, x = np.nonzero(spikes)
    events = np.stack([t0 + j / rate, y, x, np.ones_like(y)], axis=1)
    t1 = t0 + (samples - 1) / rate
    grid = voxelize(events, t0, t1 + 1 / rate, 6, 10, bins, apply_log1p=False)
    np.testing.assert_array_equal(grid, count_spikes(pack_spikes(spikes, geometry), geometry, bins))
    np.testing.assert_array_equal(grid, spike_to_voxel(spikes, bins))


def test_events_outside_the_window_are_dropped_and_one_at_its_end_is_in_the_last_bin():
    events = np.array([[-0.01, 0, 0], [0.0, 0, 0], [0.99, 0, 0], [1.0, 0, 0], [1.01, 0, 0]])
    grid = voxelize(events, 0.0, 1.0, 1, 1, bins=4, apply_log1p=False)
    np.testing.assert_array_equal(grid[:, 0, 0], [1, 0, 0, 2])


def test_events_outside_the_picture_are_dropped():
    events = np.array([[0.5, -1, 0], [0.5, 0, 3], [0.5, 2, 0], [0.5, 1, 2]])
    grid = voxelize(events, 0.0, 1.0, 2, 3, bins=1, apply_log1p=False)
    assert grid.sum() == 1
    assert grid[0, 1, 2] == 1


def test_log1p_and_standardisation_are_as_the_reference_states():
    events = np.array([[0.1, 0, 0], [0.2, 0, 0], [0.9, 0, 0]])
    grid = voxelize(events, 0.0, 1.0, 1, 1, bins=2, mean=0.5, std=2.0)
    np.testing.assert_allclose(grid[:, 0, 0], (np.log1p([2, 1]) - 0.5) / 2.0, rtol=1e-6)
    constant = voxelize(events, 0.0, 1.0, 1, 1, bins=2, mean=0.0, std=0.0)
    assert np.isfinite(constant).all()
