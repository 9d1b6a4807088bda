"""Spikes of rows that are each exposed later than the one before."""

from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.spikes import SpikeClock, SpikeWindowError, parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.packed import pack_bits
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.spikes.rolling import delays_at, open_spikes, row_delays

H, W, T = 10, 13, 60
DELAYS = np.array([0, 0, 1, 3, 3, 4, 7, 7, 8, 12])
FORMS = ["plain", "bytes", "parts", "registered", "mosaic"]


def opened(form, tmp_path, delays):
    """Return the stream in one of its forms, seen by a rolling and by a global shutter."""
    bits = (np.random.default_rng(3).random((T, H, W)) < 0.4).astype(np.uint8)
    geometry = parse_geometry(f"{H}x{W},bottom-up" + ",bayer=RGGB" * (form == "mosaic"))
    path, registration = tmp_path / "spike.dat", None
    if form == "bytes":
        path.write_bytes(bits[:, ::-1].tobytes())
    elif form == "parts":
        path = tmp_path / "parts"
        for i, part in enumerate((bits[:24], bits[24:])):
            write_spikes(path / f"rec_{i}.dat", part, parse_geometry(f"{H}x{W},bottom-up,padded"))
        geometry = parse_geometry(f"{H}x{W},bottom-up,padded")
    else:
        write_spikes(path, bits, geometry)
    if form == "registered":
        matrix = (2.0, 0.1, 3.0, -0.1, 2.0, -2.0, 0.0, 0.0, 1.0)
        registration = Registration(matrix, (H, W), (2 * H, 2 * W))
    return [open_spikes(path, geometry, registration, late) for late in (delays, None)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("form", FORMS)
def test_each_row_is_read_as_much_later_as_it_is_exposed(form, sign, tmp_path) -> None:
    delays = sign * DELAYS
    rolled, still = opened(form, tmp_path, delays)
    a, b = 14, 44
    whole = still.read()
    truth = np.stack([whole[a + d : b + d, r] for r, d in enumerate(delays)], axis=1)
    np.testing.assert_array_equal(rolled.read(a, b), truth)
    np.testing.assert_array_equal(rolled.read(a, b, (2, 7), (3, 11)), truth[:, 2:7, 3:11])
    counts = truth.reshape(5, 6, H, W).sum(axis=1)
    np.testing.assert_array_equal(rolled.counts(5, a, b), counts)
    room = np.empty((5, 5, 8), np.uint8)
    assert rolled.counts(5, a, b, (2, 7), (3, 11), out=room) is room
    np.testing.assert_array_equal(room, counts[:, 2:7, 3:11])
    packed = np.zeros((b - a, H, 2), np.uint8)
    rolled.packed(a, b, packed)
    np.testing.assert_array_equal(packed, pack_bits(truth))
    np.testing.assert_allclose(rolled.tfp(a, b), truth.mean(axis=0), rtol=1e-6)
    assert rolled.count_spikes(a, b) == truth.sum()
    first, stop = rolled.whole
    rolled.read(first, stop)
    assert (first, stop) == ((0, len(whole) - 12) if sign > 0 else (12, len(whole)))
    with pytest.raises(SpikeWindowError):
        rolled.read(first, stop + 1)


def test_rows_of_spikes_take_the_delay_of_the_frame_rows_that_they_lie_on() -> None:
    # 20 ms at 1000 Hz over 41 rows: half a sample a row.
    delays = row_delays(0.02, 1000.0, 41, 41)
    assert (delays[0], delays[20], delays[40]) == (0, 10, 20)
    # A row of spikes lies over four of the frame, from 4 i to 4 i + 3.
    delays = row_delays(0.4, 1000.0, 10, 40)
    np.testing.assert_array_equal(delays, np.rint(400 / 39 * (4 * np.arange(10) + 1.5)))
    upwards = row_delays(-0.4, 1000.0, 10, 40)
    np.testing.assert_array_equal(upwards, -delays)
    assert row_delays(None, 1000.0, 10, 40) is None
    assert row_delays(0.0, 1000.0, 10, 40) is None


@pytest.mark.parametrize(("readout", "t0", "inside"), [
    (0.02, 0.0, True), (0.02, 0.010, True), (0.02, 0.0101, False), (-0.02, 0.019, False),
    (-0.02, 0.02, True), (0.2, 0.0, False), (1e9, 0.0, False),
])  # fmt: skip
def test_an_exposure_of_all_rows_lies_in_the_recording(readout, t0, inside) -> None:
    clock = SpikeClock(rate=10_000.0, readout=readout)
    if inside:
        assert clock.require_inside(t0, t0 + 0.0099, 400, "a.dat")[0] == round(t0 * 1e4)
    else:
        with pytest.raises(SpikeWindowError, match="--readout"):
            clock.require_inside(t0, t0 + 0.0099, 400, "a.dat")


@pytest.mark.parametrize("readout", [float("nan"), float("inf"), 1e300])
def test_a_readout_that_no_camera_has_is_refused(readout) -> None:
    with pytest.raises(SpikeWindowError, match="--readout 20ms"):
        SpikeClock(rate=10_000.0, readout=readout)


def test_the_last_of_two_rows_is_a_whole_readout_later():
    delays = delays_at(np.array([0.0, 0.5, 1.0, 1.5]), 0.01, 1000.0, 2)
    assert delays is not None
    assert delays.tolist() == [0, 5, 10, 10]
    assert delays_at(np.array([0.0]), 0.01, 1000.0, 1) is None
