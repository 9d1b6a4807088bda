import numpy as np
import pytest

from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.spikes import (
    SideFile,
    SpikeGeometryError,
    load_spike_dat,
    parse_geometry,
    read_spikes,
    write_side_file,
    write_spikes,
)
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.infer import infer_geometry, likelier_order, rank_geometries

# 180x320 is a quarter of 360x640, so every whole number of its 4 frames fits both.
GEOMETRY = parse_geometry("s-sdm-gopro")


def write_scene(path, light, samples=56):
    camera = SpikeCamera(threshold=2.0)
    spikes = np.stack(list(camera.record([light] * samples, np.random.default_rng(0))))
    write_spikes(path, spikes, GEOMETRY)


def textured():
    y, x = np.mgrid[0:180, 0:320].astype(np.float32)
    return 0.5 + 0.4 * np.sin(x / 7 + y / 11) * np.cos(y / 13)


def test_a_textured_scene_shows_its_geometry(tmp_path):
    write_scene(tmp_path / "s.dat", textured())
    assert len(rank_geometries(tmp_path / "s.dat")) > 1
    assert "s-sdm-gopro" in infer_geometry(tmp_path / "s.dat").presets


def test_a_scene_that_proves_nothing_is_a_tie_and_refused(tmp_path):
    write_scene(tmp_path / "s.dat", np.full((180, 320), 0.5, np.float32))
    with pytest.raises(SpikeGeometryError, match=r"not certain.*s-sdm-gopro"):
        infer_geometry(tmp_path / "s.dat")


def test_a_file_alone_is_read_as_its_picture_shows_and_the_order_of_rows_is_said(tmp_path):
    path = tmp_path / "s.dat"
    write_scene(path, textured())
    with pytest.warns(UserWarning, match=r"read as 180x320,bottom-up.*order of rows"):
        found = load_spike_dat(path)
    np.testing.assert_array_equal(found, read_spikes(path, GEOMETRY))


def test_a_file_with_a_side_file_is_read_by_it_without_a_warning(tmp_path, recwarn):
    path = tmp_path / "s.dat"
    write_scene(path, textured())
    write_side_file(path, SideFile(geometry="180x320,top-down"))
    found = load_spike_dat(path)
    np.testing.assert_array_equal(found, read_spikes(path, GEOMETRY)[:, ::-1])
    assert not recwarn.list


def test_a_file_alone_that_proves_nothing_is_refused(tmp_path):
    write_scene(tmp_path / "s.dat", np.full((180, 320), 0.5, np.float32))
    with pytest.raises(SpikeGeometryError, match="not certain"):
        load_spike_dat(tmp_path / "s.dat")


def test_the_likelier_bit_order_is_named(tmp_path):
    path = tmp_path / "s.dat"
    write_scene(path, textured())
    assert likelier_order(path, GEOMETRY) is None
    turned = np.unpackbits(np.fromfile(path, np.uint8), bitorder="little")
    np.packbits(turned, bitorder="big").tofile(tmp_path / "m.dat")
    found = likelier_order(tmp_path / "m.dat", GEOMETRY)
    assert found.geometry.describe() == "180x320,bottom-up,msb-first"
    assert likelier_order(tmp_path / "m.dat", found.geometry) is None
    facts = inspect(tmp_path / "m.dat", "180x320,bottom-up").facts
    assert "give --geometry 180x320,bottom-up,msb-first" in facts["bit order"]


def test_a_file_of_one_frame_is_ranked_too(tmp_path):
    write_scene(tmp_path / "one.dat", textured(), samples=1)
    assert [guess.n_frames for guess in rank_geometries(tmp_path / "one.dat")] == [1]
