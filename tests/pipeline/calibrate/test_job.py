"""Pixels measured from recordings in dark and light, and the file of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from spikedeblur.cli import main
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.calibrate import calibrate
from spikedeblur.pipeline.calibrate.job import GUESSES
from spikedeblur.pipeline.calibrate.rates import watch
from spikedeblur.pipeline.calibrate.sensor_file import read_sensor
from spikedeblur.pipeline.host.reporter import SILENT, Parts
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.spikes import SpikeFile, SpikeGeometry, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.sensor import Sensor
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

SHAPE = (40, 48)
SPEC = "40x48,bottom-up"
HERE = SpikeOptions(geometry=SPEC)
GEOMETRY = SpikeGeometry(height=40, width=48, flip_rows=True)
SAMPLES = 1500
FLAWS = Flaws(gain_spread=0.08, dark_rate=0.002, hot=40, dead=9)
CAMERA = SpikeCamera(threshold=2.0)


def lamp(fall: float = 0.3) -> np.ndarray:
    """Light (H, W) that is less by a share in one corner."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in SHAPE), indexing="ij")
    return (0.5 * (1 - fall * (x + y) / 2)).astype(np.float32)


def record(path: Path, light: np.ndarray, sensor: Sensor, samples: int = SAMPLES) -> Path:
    frames = CAMERA.record([light] * samples, np.random.default_rng(len(path.name)), sensor)
    write_spikes(path, np.stack(list(frames)), GEOMETRY)
    return path


@pytest.fixture(scope="module")
def truth() -> Sensor:
    return FLAWS.sensor(SHAPE, 3)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, truth: Sensor) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    record(folder / "dark.dat", np.zeros(SHAPE, np.float32), truth)
    record(folder / "flat.dat", lamp(), truth)
    return folder


@pytest.fixture(scope="module")
def made(bench: Path, truth: Sensor) -> Path:
    calibrate(bench / "s.zarr", dark=bench / "dark.dat", flat=bench / "flat.dat", options=HERE)
    return bench / "s.zarr"


def test_gains_dark_rates_and_bad_pixels_are_those_of_the_camera(made: Path, truth: Sensor):
    found = read_sensor(made)
    np.testing.assert_array_equal(found.sensor.hot, truth.hot)
    np.testing.assert_array_equal(found.sensor.dead, truth.dead)
    certain = np.abs(truth.dark - 0.1) > 0.03  # elsewhere chance decides
    too_hot = truth.dead | (truth.hot & (truth.dark > 0.1))
    np.testing.assert_array_equal(found.sensor.filled[certain], too_hot[certain])
    good = ~truth.filled
    errors = (found.sensor.gain - truth.gain)[good]
    # What is left is smooth: six coefficients of noise of 8 % in 1,871 pixels are 0.5 %.
    assert errors.std() < 0.007
    assert np.abs(errors).max() < 0.03
    np.testing.assert_allclose(found.sensor.dark[good], truth.dark[good], atol=1 / SAMPLES)
    often = good & (truth.dark > 3 / SAMPLES)  # so that there is an interval
    np.testing.assert_allclose(found.sensor.dark[often], truth.dark[often], rtol=0.01)
    figures = found.record.found
    assert figures["spread_before"] == pytest.approx(truth.gain[good].std(), rel=0.03)
    assert figures["spread_after"] < 0.002
    assert figures["error"] < 0.001
    assert figures["uneven"] == pytest.approx(0.3 / 0.85, rel=0.1)
    assert (figures["hot"], figures["dead"]) == (40, 9)
    assert figures["filled"] == found.sensor.filled.sum()
    assert found.record.sources["flat"].samples == SAMPLES


def test_a_rate_is_known_far_better_than_to_a_spike(tmp_path: Path):
    """N spikes of a steady pixel are right to one in N; where they are tells more."""
    rates = np.linspace(0.003, 0.4, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    light = (rates / CAMERA.gain).astype(np.float32)
    equal = Flaws().sensor(SHAPE, 0)
    stream = SpikeFile.open(record(tmp_path / "a.dat", light, equal, 1000), GEOMETRY)
    work = Parts(SILENT, 1, GUESSES)
    fired = watch(stream, 0, 1000, work)
    counted = fired.number / 1000
    found = np.abs(fired.rate() - rates)
    assert np.sqrt((found**2).mean()) < 0.4 * np.sqrt(((counted - rates) ** 2).mean())
    assert found.max() < 1.1 / 1000
    halves = watch(stream, 0, 333, work).then(watch(stream, 333, 1000, work))
    for name in ("number", "first", "last"):
        np.testing.assert_array_equal(getattr(halves, name), getattr(fired, name))


def test_a_hot_pixel_is_corrected_unless_it_is_too_hot(tmp_path: Path, truth: Sensor):
    leaks = truth.hot & (truth.dark < 0.09)
    steady = replace(truth, hot=np.zeros(SHAPE, np.bool_))  # all dark charge adds to the light's
    record(tmp_path / "dark.dat", np.zeros(SHAPE, np.float32), steady)
    record(tmp_path / "flat.dat", lamp(), steady)
    calibrate(tmp_path / "s", dark=tmp_path / "dark.dat", flat=tmp_path / "flat.dat", options=HERE)
    found = read_sensor(tmp_path / "s").sensor
    np.testing.assert_array_equal(found.hot, truth.hot)
    assert leaks.sum() > 5
    assert not (found.filled & leaks).any()
    np.testing.assert_allclose(found.gain[leaks], truth.gain[leaks], atol=0.02)
    assert found.filled[truth.hot & (truth.dark > 0.11)].all()


def test_smooth_light_is_left_out_unless_it_is_known_to_be_even(bench: Path, tmp_path: Path, made):
    summary = calibrate(tmp_path / "even", flat=bench / "flat.dat", options=HERE, even=True)
    assert summary.uneven is None
    smooth = read_sensor(tmp_path / "even").sensor.gain / read_sensor(made).sensor.gain
    good = ~(read_sensor(made).sensor.hot | read_sensor(made).sensor.dead)
    expected = lamp() / lamp().mean()
    assert np.corrcoef(smooth[good], expected[good])[0, 1] > 0.99


def test_either_recording_alone_tells_its_part_and_says_what_is_missing(
    bench: Path, tmp_path: Path, truth: Sensor
):
    dark = calibrate(tmp_path / "d", dark=bench / "dark.dat", options=HERE)
    assert (dark.hot, dark.dead, dark.spread_before) == (40, 0, None)
    assert "no --flat" in dark.warnings[0]
    assert (read_sensor(tmp_path / "d").sensor.gain == 1).all()
    flat = calibrate(tmp_path / "f", flat=bench / "flat.dat", options=HERE)
    assert flat.dead == 9
    assert flat.dark_rate is None
    assert "no --dark" in flat.warnings[0]
    found = read_sensor(tmp_path / "f").sensor
    assert not (found.hot & ~truth.hot).any()
    stands_out = truth.gain + truth.dark * CAMERA.threshold / lamp() > 1.6  # gains end at 1.4
    assert found.hot[truth.hot & stands_out].all()
    assert flat.hot < 40


def test_other_readers_of_zarr_open_it_and_the_picture_is_one(made: Path):
    group = zarr.open_group(made, mode="r")
    sensor = read_sensor(made).sensor
    np.testing.assert_array_equal(group["gain"][:], sensor.gain)
    np.testing.assert_array_equal(group["dark"][:], sensor.dark)
    assert set(np.unique(group["flaws"][:])) == {0, 1, 1 + 4, 2 + 4}
    with Image.open(made.with_suffix(".png")) as picture:
        assert picture.size[0] > 2 * SHAPE[1]


def test_the_same_recordings_make_the_same_file(bench: Path, made: Path, tmp_path: Path):
    calibrate(tmp_path / "s.zarr", dark=bench / "dark.dat", flat=bench / "flat.dat", options=HERE)
    for path in made.rglob("*"):
        if path.is_file():
            assert (tmp_path / "s.zarr" / path.relative_to(made)).read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".*.partial"))


def test_a_sensors_file_is_replaced_only_if_asked_and_nothing_else_ever(
    bench: Path, tmp_path: Path
):
    out = tmp_path / "s.zarr"
    calibrate(out, dark=bench / "dark.dat", options=HERE)
    with pytest.raises(SpikeDeblurError, match=r"s\.zarr: .*there already.*--overwrite"):
        calibrate(out, flat=bench / "flat.dat", options=HERE)
    calibrate(out, flat=bench / "flat.dat", options=HERE, overwrite=True)
    assert set(read_sensor(out).record.sources) == {"flat"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    with pytest.raises(SpikeDeblurError, match=r"mine: .*something else.*--out"):
        calibrate(tmp_path / "mine", dark=bench / "dark.dat", options=HERE, overwrite=True)
    assert (tmp_path / "mine/file").read_text() == "mine"


def test_a_file_that_a_killed_overwrite_put_aside_comes_back(bench: Path, tmp_path: Path):
    out = tmp_path / "s.zarr"
    calibrate(out, dark=bench / "dark.dat", options=HERE)
    former = tmp_path / ".s.zarr.0123456789ab.former"
    out.rename(former)  # as a kill leaves it between both renamings
    assert set(read_sensor(out).record.sources) == {"dark"}
    assert not former.exists()
    out.rename(former)
    (tmp_path / "s.png").unlink()
    with pytest.raises(SpikeDeblurError, match="there already"):
        calibrate(out, flat=bench / "flat.dat", options=HERE)
    calibrate(out, flat=bench / "flat.dat", options=HERE, overwrite=True)
    assert set(read_sensor(out).record.sources) == {"flat"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.png", "s.zarr"]


def test_overwriting_keeps_the_former_file_while_the_new_one_has_no_name(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "s.zarr"
    calibrate(out, dark=bench / "dark.dat", options=HERE)
    rename, calls = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        calibrate(out, flat=bench / "flat.dat", options=HERE, overwrite=True)
    monkeypatch.undo()
    assert set(read_sensor(out).record.sources) == {"dark"}


def test_a_file_whose_attributes_are_damaged_can_be_replaced(bench: Path, tmp_path: Path):
    out = tmp_path / "s.zarr"
    calibrate(out, dark=bench / "dark.dat", options=HERE)
    (out / "zarr.json").write_text("{")
    (out / "mine").write_text("mine")
    with pytest.raises(SpikeDeblurError, match="something else"):
        calibrate(out, dark=bench / "dark.dat", options=HERE, overwrite=True)
    (out / "mine").unlink()
    with pytest.raises(SpikeDeblurError):
        calibrate(out, dark=bench / "dark.dat", options=HERE)
    calibrate(out, dark=bench / "dark.dat", options=HERE, overwrite=True)
    assert set(read_sensor(out).record.sources) == {"dark"}


def test_inspect_tells_what_was_found(made: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(made)]) == 0
    said = capsys.readouterr().out
    assert f"{made}: sensor" in said
    for words in ("hot: 40", "dead: 9", "40x48", f"flat.dat, {SAMPLES} samples"):
        assert words in said
    assert "None" not in said
    assert re.search(r"error: 0\.\d{1,7}\n", said)


def spoil_size(path: Path) -> None:
    file = path / "gain/c/0/0"
    file.write_bytes(file.read_bytes()[:-4])


def spoil_bytes(path: Path) -> None:
    file = path / "dark/c/0/0"
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)


def spoil_record(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["even"] = True
    (path / "zarr.json").write_text(json.dumps(content))


def spoil_version(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["schema_version"] = 9
    (path / "zarr.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, "gain/c/0/0 is not what was written; calibrate again"),
        (spoil_bytes, "dark/c/0/0 is not what was written; calibrate again"),
        (spoil_record, "zarr.json is not what was written; calibrate again"),
        (spoil_version, "expected spikedeblur.sensor schema 1, found 9"),
        (lambda path: (path / "flaws/c/0/0").unlink(), "flaws/c/0/0 is missing"),
        (lambda path: (path / "zarr.json").write_text("{"), "found something else"),
        (shutil.rmtree, "found nothing"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(made: Path, tmp_path: Path, spoil, message):
    shutil.copytree(made, tmp_path / "s.zarr")
    spoil(tmp_path / "s.zarr")
    with pytest.raises(SpikeDeblurError) as refused:
        read_sensor(tmp_path / "s.zarr")
    assert message in str(refused.value)
    assert "s.zarr" in str(refused.value)


def test_recordings_that_tell_nothing_are_refused(bench: Path, tmp_path: Path, truth: Sensor):
    def refused(message: str, **given: Path) -> None:
        with pytest.raises(SpikeDeblurError, match=message):
            calibrate(tmp_path / "s", options=HERE, **given)
        assert not list(tmp_path.glob("*s*.png"))

    dark, flat = bench / "dark.dat", bench / "flat.dat"
    refused("were --dark and --flat exchanged", dark=flat, flat=dark)
    bright = record(tmp_path / "bright.dat", np.full(SHAPE, 2.2, np.float32), truth, 100)
    refused(r"bright\.dat: .*less light", flat=bright)
    short = record(tmp_path / "short.dat", lamp(), truth, 40)
    refused(r"short\.dat: .*record longer", flat=short)
    with pytest.raises(SpikeDeblurError, match=r"dark\.dat.*no side file gives the geometry"):
        calibrate(tmp_path / "s", dark=dark)
    refused("found none of them")


def test_a_scene_in_place_of_an_even_surface_is_doubted(tmp_path: Path, truth: Sensor):
    discs = np.kron(np.random.default_rng(0).uniform(0.3, 0.7, (5, 6)), np.ones((8, 8)))
    flat = record(tmp_path / "scene.dat", discs.astype(np.float32), truth, 400)
    summary = calibrate(tmp_path / "s", flat=flat, options=HERE)
    assert any("even surface" in warning for warning in summary.warnings)


@pytest.mark.parametrize("name", ["x.png", "x.PNG", ".", "/"])
def test_a_name_without_room_for_the_picture_is_refused(bench, tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpikeDeblurError, match="expected a name for the sensor's file"):
        calibrate(name, dark=bench / "dark.dat", options=HERE)
    assert not list(tmp_path.iterdir())


def test_a_geometry_that_contradicts_the_side_file_is_told(bench, tmp_path) -> None:
    dat = tmp_path / "dark.dat"
    shutil.copy(bench / "dark.dat", dat)
    write_side_file(dat, SideFile(geometry=SPEC, rate=20000.0))
    as_recorded = calibrate(tmp_path / "a.zarr", dark=dat)
    assert not any("side file" in warning for warning in as_recorded.warnings)
    turned = SpikeOptions(geometry="40x48,top-down")
    warnings = calibrate(tmp_path / "b.zarr", dark=dat, options=turned).warnings
    assert f"{dat}: --geometry 40x48,top-down taken over the side file's {SPEC}" in warnings
