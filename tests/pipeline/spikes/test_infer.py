import numpy as np
import pytest

from spikedeblur.pipeline.spikes import SpikeGeometryError, parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.infer import infer_geometry, rank_geometries

# 180x320 is a quarter of 360x640, so every whole number of its 4 frames fits both.
GEOMETRY = parse_geometry("s-sdm-gopro")


def write_scene(path, light, samples=56):
    camera = SpikeCamera(threshold=2.0)
    spikes = np.stack(list(camera.record([light] * samples, np.random.default_rng(0))))
    write_spikes(path, spikes, GEOMETRY)


def test_a_textured_scene_shows_its_geometry(tmp_path):
    y, x = np.mgrid[0:180, 0:320].astype(np.float32)
    light = 0.5 + 0.4 * np.sin(x / 7 + y / 11) * np.cos(y / 13)
    write_scene(tmp_path / "s.dat", light)
    assert len(rank_geometries(tmp_path / "s.dat")) > 1
    assert "s-sdm-gopro" in infer_geometry(tmp_path / "s.dat").presets


def test_a_scene_that_proves_nothing_is_a_tie_and_refused(tmp_path):
    write_scene(tmp_path / "s.dat", np.full((180, 320), 0.5, np.float32))
    with pytest.raises(SpikeGeometryError, match=r"not certain.*s-sdm-gopro"):
        infer_geometry(tmp_path / "s.dat")
