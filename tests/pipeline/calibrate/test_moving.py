"""Pixels measured from recordings of a moving scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from spikedeblur.cli import main
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.calibrate import calibrate
from spikedeblur.pipeline.calibrate.sensor_file import read_sensor
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.spikes import SpikeGeometry, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.sensor import Sensor
from spikedeblur.pipeline.spikes.settings import SpikeOptions

SHAPE = (48, 56)
SPEC = "48x56,bottom-up"
HERE = SpikeOptions(geometry=SPEC)
GEOMETRY = SpikeGeometry(height=48, width=56, flip_rows=True)
FINE = 4
"""Side of a pixel in those of the scene, so that it moves by parts of a pixel."""
FLAWS = Flaws(gain_spread=0.08, dark_rate=0.002, hot=12, dead=6)


def surface(seed: int) -> np.ndarray:
    """Cloth with detail of two to eight pixels, larger than what is seen of it."""
    rng = np.random.default_rng(seed)
    sides = [(side + 24) * FINE for side in SHAPE]
    rows, columns = (np.fft.fftfreq(side) for side in sides)
    frequency = np.hypot(rows[:, None], columns[None]) * FINE
    spectrum = np.fft.fft2(rng.normal(size=sides)) * np.exp(-((frequency / 0.16) ** 2))
    cloth = np.fft.ifft2(spectrum).real
    return np.asarray(np.clip(0.45 + 0.13 * cloth / cloth.std(), 0.02, 0.95), np.float32)


def passing(seed: int, samples: int, travel: float) -> Iterator[np.ndarray]:
    """Yield the light on each pixel while a surface passes by so many pixels, aslant."""
    scene = surface(seed)
    for i in range(samples):
        way = travel * i / samples
        top, left = (round(FINE * (2 + share * way)) for share in (0.6, 0.8))
        seen = scene[top : top + FINE * SHAPE[0], left : left + FINE * SHAPE[1]]
        yield seen.reshape(SHAPE[0], FINE, SHAPE[1], FINE).mean(axis=(1, 3))


def record(
    path: Path, sensor: Sensor | None, *, seed: int = 0, samples: int = 700, travel: float = 16
) -> Path:
    frames = passing(seed, samples, travel)
    spikes = SpikeCamera(threshold=2.0).record(frames, np.random.default_rng(seed), sensor)
    write_spikes(path, np.stack(list(spikes)), GEOMETRY)
    return path


@pytest.fixture(scope="module")
def truth() -> Sensor:
    return FLAWS.sensor(SHAPE, 3)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, truth: Sensor) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [record(folder / f"scene{i}.dat", truth, seed=i) for i in (1, 2)]


def test_gains_and_dead_pixels_are_told_by_what_passes(
    scenes: list[Path], truth: Sensor, tmp_path: Path
):
    summary = calibrate(tmp_path / "s.zarr", recordings=scenes, options=HERE)
    found = read_sensor(tmp_path / "s.zarr")
    np.testing.assert_array_equal(found.sensor.dead, truth.dead)
    assert not (found.sensor.hot & ~truth.hot).any()
    assert found.sensor.filled[truth.dark > 0.3].all()
    both = ~(found.sensor.filled | truth.filled)
    errors = found.sensor.gain[both] - truth.gain[both]
    assert errors.std() < 0.4 * truth.gain[both].std()
    # How sure it is, it says itself: of all gains, and of each.
    assert summary.error is not None
    assert 0.6 * errors.std() < summary.error < 1.7 * errors.std()
    assert summary.told is not None
    assert summary.told > 0.9
    assert summary.spread_before == pytest.approx(truth.gain[both].std(), rel=0.25)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert np.median(group["error"][:]) == pytest.approx(summary.error, rel=0.5)
    assert set(found.record.sources) == {"scene", "scene 2"}
    with Image.open(summary.picture) as picture:
        assert picture.size[1] > 3 * SHAPE[0]


def test_a_scene_is_not_burnt_into_equal_pixels(tmp_path: Path):
    ideal = record(tmp_path / "ideal.dat", None, seed=3)
    summary = calibrate(tmp_path / "s", recordings=[ideal], options=HERE)
    found = read_sensor(tmp_path / "s").sensor
    assert (summary.hot, summary.dead, summary.filled) == (0, 0, 0)
    assert found.gain.std() < 0.01
    assert any("hardly agree" in warning for warning in summary.warnings)


def test_a_dark_recording_beside_it_tells_dark_rates_and_hot_pixels(
    scenes: list[Path], truth: Sensor, tmp_path: Path
):
    dark = tmp_path / "dark.dat"
    night = SpikeCamera(threshold=2.0).record(
        [np.zeros(SHAPE, np.float32)] * 1500, np.random.default_rng(9), truth
    )
    write_spikes(dark, np.stack(list(night)), GEOMETRY)
    summary = calibrate(tmp_path / "s", dark=dark, recordings=scenes, options=HERE)
    found = read_sensor(tmp_path / "s").sensor
    np.testing.assert_array_equal(found.hot, truth.hot)
    assert summary.dark_rate == pytest.approx(0.002, rel=0.2)
    both = ~(found.filled | truth.filled)
    assert (found.gain - truth.gain)[both].std() < 0.4 * truth.gain[both].std()


@pytest.mark.parametrize(
    ("samples", "travel", "message"),
    [
        (700, 0, r"a\.dat: expected a scene of which points move by 2 pixels or more"),
        (700, 1, r"a\.dat: expected a scene of which points move by 2 pixels or more"),
        (80, 16, r"a\.dat: expected at least 48 spikes of the median pixel .* record longer"),
    ],
)
def test_a_scene_that_tells_too_little_is_refused(
    truth: Sensor, tmp_path: Path, samples: int, travel: float, message: str
):
    path = record(tmp_path / "a.dat", truth, samples=samples, travel=travel)
    with pytest.raises(SpikeDeblurError, match=message) as refused:
        calibrate(tmp_path / "s.zarr", recordings=[path], options=HERE)
    assert str(refused.value).count("a.dat") == 1
    assert [left.name for left in tmp_path.iterdir()] == ["a.dat"]


def test_scenes_beside_a_flat_field_are_refused(
    scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    one, other = map(str, scenes)
    args = ["calibrate", "--out", str(tmp_path / "s"), "--geometry", SPEC]
    assert main([*args, "--recording", one, "--flat", other]) == 2
    assert "leave --recording out" in capsys.readouterr().err.replace("\n", " ")
