"""A simulated spike camera whose pixels differ, and its recordings in the dark and of a lamp."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.simulate import calibration, simulate
from spikedeblur.pipeline.simulate.bench import Bench
from spikedeblur.pipeline.simulate.calibration import simulate_calibration, stand_of
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.simulate.record import DAT, inputs_digest
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import read_side_file, read_spikes

FLAWS = Flaws(gain_spread=0.1, dark_rate=0.004, hot=15, dead=12)
SMALL = Rig(exposure=5, stride=3, spikes_per_frame=4, flaws=FLAWS)
SHAPE = (24, 32)


def clips(number: int = 2):
    return scene_clips("test", number, (48, 64), 11)


def spikes_of(dat: Path) -> np.ndarray:
    return read_spikes(dat, read_side_file(dat).spike_geometry())


def test_pixels_are_as_asked_for_and_follow_from_the_seed():
    sensor = FLAWS.sensor(SHAPE, 0)
    good = ~sensor.filled
    assert (int(sensor.hot.sum()), int(sensor.dead.sum())) == (15, 12)
    assert not (sensor.hot & sensor.dead).any()
    assert sensor.gain[good].mean() == pytest.approx(1, abs=1e-6)
    assert sensor.gain[good].std() == pytest.approx(0.1, rel=0.1)
    assert sensor.dark[good].mean() == pytest.approx(0.004, rel=0.1)
    assert sensor.dark[sensor.hot].min() >= 0.04
    assert (sensor.gain[sensor.dead] == 0).all()
    np.testing.assert_array_equal(FLAWS.sensor(SHAPE, 0).gain, sensor.gain)
    assert (FLAWS.sensor(SHAPE, 1).gain != sensor.gain).any()


def test_one_camera_records_all_scenes_the_dark_and_the_lamp(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLES", 600)
    simulate(tmp_path, clips(), SMALL, workers=1)
    folder = simulate_calibration(tmp_path, stand_of(tmp_path, clips(), SMALL))
    sensor = SMALL.sensor(SHAPE)
    dark, flat = (spikes_of(folder / name / DAT) for name in ("dark", "flat"))
    good = ~sensor.filled
    rates = flat.mean(0) - dark.mean(0)
    assert np.corrcoef(rates[good], sensor.gain[good])[0, 1] > 0.7  # the lamp is uneven
    np.testing.assert_allclose(dark.mean(0)[good], sensor.dark[good], atol=1 / 600)
    scenes = [spikes_of(path) for path in sorted(tmp_path.glob("test_spike_2xds/*/*/spike.dat"))]
    assert len(scenes) == 2
    for stream in (*scenes, dark, flat):
        assert not stream[:, sensor.dead].any()
        assert stream[:, sensor.hot].mean() > sensor.dark[sensor.hot].mean() / 2
    side = read_side_file(folder / "dark" / DAT)
    assert {side.made_by[name] for name in ("hot", "dead")} == {15, 12}
    before = (folder / "dark" / DAT).stat().st_mtime_ns
    simulate_calibration(tmp_path, stand_of(tmp_path, clips(), SMALL))
    assert (folder / "dark" / DAT).stat().st_mtime_ns == before
    other = replace(SMALL, flaws=replace(FLAWS, hot=3))
    with pytest.raises(SpikeDeblurError, match="made from other frames or settings"):
        simulate_calibration(tmp_path, stand_of(tmp_path, clips(), other))


def test_without_flaws_all_is_as_it_was():
    plain = replace(SMALL, flaws=None)
    assert "hot" not in plain.recorded()
    assert SMALL.recorded() == plain.recorded() | {
        "gain_spread": 0.1,
        "dark_rate": 0.004,
        "hot": 15,
        "dead": 12,
    }
    (clip,) = clips(1)
    assert inputs_digest(clip, plain) != inputs_digest(clip, SMALL)
    assert stand_of(Path("out"), clips(), plain) is None
    assert Bench(flaws=None).stand() is None
    assert "flaws" not in Bench().recorded()
    assert Bench(flaws=FLAWS).stand().sensor.shape == (250, 400)
    usual = Bench().stand().sensor
    assert (usual.hot.sum(), usual.dead.sum()) == (50, 0)
    assert usual.gain[~usual.hot].std() == pytest.approx(0.08, abs=0.001)


def test_what_no_camera_has_is_refused():
    for wrong in ({"gain_spread": 0.5}, {"gain_spread": -0.1}, {"dark_rate": 0.5}):
        with pytest.raises(SpikeDeblurError, match="expected --"):
            Flaws(**wrong)
    with pytest.raises(SpikeDeblurError, match="at most half of 4x4 pixels"):
        Flaws(hot=5, dead=4).sensor((4, 4), 0)
    mixed = [*clips(1), *scene_clips("val", 1, (64, 64), 11)]
    with pytest.raises(SpikeDeblurError, match=r"clips of one size.*48x64 and 64x64"):
        stand_of(Path("out"), mixed, SMALL)
