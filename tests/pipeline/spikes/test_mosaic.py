"""Colour filters: rates become one, each sample is the same in any window, bits stay bits."""

from __future__ import annotations

import numpy as np
import pytest
from spike_streams import packed

from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.spikes import (
    SpikeFile,
    SpikeGeometryError,
    parse_geometry,
    write_spikes,
)
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.mosaic import likely_orders, place_rates, shares_of

PLAIN = parse_geometry("24x40,bottom-up")
FILTERS = {"R": 0.5, "G": 0.8, "B": 0.3}


def mosaic(order: str) -> np.ndarray:
    """(24, 40) light of a gray wall behind filters."""
    light = np.empty((24, 40), np.float32)
    for place, colour in enumerate(order):
        light[place // 2 :: 2, place % 2 :: 2] = FILTERS[colour]
    return light


def record(path, light: np.ndarray, samples: int = 300) -> np.ndarray:
    camera = SpikeCamera(threshold=2.0)
    rng = np.random.default_rng(0)
    spikes = np.stack(list(camera.record([light] * samples, rng))).astype(np.uint8)
    write_spikes(path, spikes, PLAIN)
    return spikes


@pytest.mark.parametrize("order", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_gray_wall_is_gray_behind_any_order_of_filters(tmp_path, order):
    spikes = record(tmp_path / "s.dat", mosaic(order))
    geometry = parse_geometry(f"24x40,bottom-up,bayer={order}")
    assert parse_geometry(geometry.describe()) == geometry
    file = SpikeFile.open(tmp_path / "s.dat", geometry)
    rates = place_rates(file.tfp())
    np.testing.assert_allclose(rates, 0.15, rtol=0.03)
    assert place_rates(spikes).max() > 2.5 * place_rates(spikes).min()
    # No spike is invented, and those of the darkest colour all stay.
    kept = file.read()
    assert (kept <= spikes).all()
    place = order.index("B")
    blue = (slice(None), slice(place // 2, None, 2), slice(place % 2, None, 2))
    np.testing.assert_array_equal(kept[blue], spikes[blue])
    # What is dropped is dropped evenly: far less noise than by chance.
    green = order.index("G")
    counts = kept[:, green // 2 :: 2, green % 2 :: 2].sum(axis=0)
    assert counts.var() < 0.25 * 120 * 0.375 * 0.625


def test_any_way_to_read_gives_the_same_samples(tmp_path):
    record(tmp_path / "s.dat", mosaic("RGGB"), 200)
    file = SpikeFile.open(tmp_path / "s.dat", parse_geometry("24x40,bottom-up,bayer=RGGB"))
    whole = file.read()
    crop = (slice(3, 17), slice(5, 30))
    np.testing.assert_array_equal(
        file.read(71, 140, rows=(3, 17), columns=(5, 30)), whole[71:140, *crop]
    )
    np.testing.assert_array_equal(
        file.counts(2, 10, 150, rows=(3, 17), columns=(5, 30)),
        whole[10:150].reshape(2, 70, 24, 40).sum(axis=1)[:, *crop],
    )
    np.testing.assert_array_equal(
        packed(file, 60, 130), np.packbits(whole[60:130], axis=-1, bitorder="little")
    )
    assert file.count_spikes(5, 133) == whole[5:133].sum()


def test_inspect_recognises_filters_and_nothing_else(tmp_path):
    record(tmp_path / "c.dat", mosaic("BGGR"))
    facts = inspect(tmp_path / "c.dat", "24x40,bottom-up").facts
    assert "24x40,bottom-up,bayer=RGGB, or BGGR" in facts["colour filters"]
    y, x = np.mgrid[:24, :40].astype(np.float32)
    record(tmp_path / "g.dat", 0.5 + 0.4 * np.sin(x / 5 + y / 7))
    assert "colour filters" not in inspect(tmp_path / "g.dat", "24x40,bottom-up").facts
    # Rows of two gains are no mosaic of colours.
    assert likely_orders(np.array([0.2, 0.2, 0.3, 0.3])) == ()


def test_impossible_orders_and_dark_colours_are_safe():
    with pytest.raises(SpikeGeometryError, match="expected bayer among RGGB"):
        parse_geometry("24x40,bottom-up,bayer=RGBG")
    assert shares_of(np.array([0.0, 0.1, 0.1, 0.2]), "RGGB") == (1.0, 1.0, 1.0, 1.0)


def test_greens_may_differ_by_little_of_what_separates_the_colours():
    dim, bright = 1.0, 2.0
    for apart, orders in ((0.04, ("RGGB", "BGGR")), (0.1, ())):
        rates = np.array([dim, 1.5 - apart / 2, 1.5 + apart / 2, bright])
        assert likely_orders(rates) == orders, apart


def test_equal_or_dark_rates_show_no_mosaic():
    assert likely_orders(np.array([1.0, 1.0, 1.0, 1.0])) == ()
    assert likely_orders(np.array([0.0, 1.0, 1.0, 2.0])) == ()


def test_each_place_of_two_by_two_pixels_has_its_own_mean_and_odd_edges_are_left_out():
    pixels = np.random.default_rng(0).random((3, 9, 7))
    whole = pixels[:, :8, :6]
    places = [whole[:, y::2, x::2].mean() for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))]
    np.testing.assert_allclose(place_rates(pixels), places)
