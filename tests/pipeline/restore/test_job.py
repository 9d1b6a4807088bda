"""Recordings in, sharp frames out: each method, spikes of any form, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from short_recordings import BY_NUMBER, GEOMETRY, SEQ, by_log, restore

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.clocks.durations import parse_duration
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb, write_png
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions


def mean_psnr(out: Path, moving_scene) -> float:
    frames = [read_rgb(out / f"{c:04d}.png") for c in moving_scene.centres]
    return float(np.mean([psnr(f, s) for f, s in zip(frames, moving_scene.sharp, strict=True)]))


def test_sdm_restores_a_recording_without_any_weights(recording, moving_scene) -> None:
    summary = restore(recording)
    assert (summary.frames, summary.restored, summary.kept) == (3, 3, 0)
    blur = mean_psnr(recording / "test_blurry_33/Type1/clip", moving_scene)
    assert mean_psnr(recording / "out", moving_scene) > blur + 3


@pytest.mark.parametrize("method", ["tfp", "tfi"])
def test_spikes_alone_give_the_middle_of_the_exposure(method, recording, moving_scene) -> None:
    restore(recording, method=method)
    restored = [read_rgb(recording / "out" / f"{c:04d}.png") for c in moving_scene.centres]
    assert (restored[1][..., 0] == restored[1][..., 2]).all()
    # The scene moves a pixel each frame; a window off by two frames would fit another picture.
    texture = moving_scene.sharp[1] @ [0.299, 0.587, 0.114]

    def fit(shift: int) -> float:
        a, b = restored[1][:, 8:-8, 0], np.roll(texture, shift, axis=1)[:, 8:-8]
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    assert fit(0) > 0.94
    assert max(fit(-2), fit(2)) < fit(0)


def test_times_from_the_log_and_from_the_exposure_agree(recording) -> None:
    restore(recording, "a")
    assert by_log(recording, out="b").seq == SEQ
    for name in ("0016.png", "0031.png", "0046.png"):
        assert (recording / "a" / name).read_bytes() == (recording / "b" / name).read_bytes()


def test_a_shifted_clock_is_seen_in_the_result(recording, moving_scene) -> None:
    restore(recording, "right")
    # 16 frames late: the window of the middle frame only.
    for other in ("0016.png", "0046.png"):
        (recording / "test_blurry_33/Type1/clip" / other).unlink()
    restore(recording, "late", first=-0.008)
    right, late = (read_rgb(recording / out / "0031.png") for out in ("right", "late"))
    assert psnr(right, moving_scene.sharp[1]) > psnr(late, moving_scene.sharp[1]) + 3


def test_windows_outside_the_recording_are_named_before_any_work(recording) -> None:
    write_png(recording / "test_blurry_33/Type1/clip/0060.png", np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(SpikeDeblurError, match=r"0060\.png.*recording has 0 to 512"):
        restore(recording)
    assert not (recording / "out").exists()


def test_wrong_use_is_refused(recording) -> None:
    with pytest.raises(job.RestoreError, match="--run DIR"):
        restore(recording, method="model")
    with pytest.raises(job.RestoreError, match="takes no trained model"):
        restore(recording, run=recording, method="sdm")
    with pytest.raises(job.RestoreError, match="'sdn'"):
        restore(recording, method="sdn")
    with pytest.raises(job.RestoreError, match="1 to 1000 frames"):
        restore(recording, frames_per_exposure=0)


def test_unknown_gain_is_said(recording, moving_scene) -> None:
    side = SideFile(geometry=GEOMETRY, rate=moving_scene.rate)
    write_side_file(recording / "spike.dat", side)
    heard: list[str] = []
    reporter = Reporter()
    reporter.warn = heard.append
    summary = restore(recording, reporter=reporter)
    assert any("--gain" in warning for warning in summary.warnings)
    assert list(summary.warnings) == heard


@pytest.mark.parametrize("method", ["sdm", "tfp", "path"])
@pytest.mark.parametrize(("first", "expected"), [(-0.004, "early by 12"), (0.004, "late by 12")])
def test_any_method_warns_of_spikes_of_another_time(recording, method, first, expected) -> None:
    assert restore(recording, method=method).warnings == ()
    for other in ("0016.png", "0046.png"):
        (recording / "test_blurry_33/Type1/clip" / other).unlink()
    *_, warning = restore(recording, "moved", method=method, first=first).warnings
    assert expected in warning
    right = warning.partition("give --first ")[2].partition(",")[0]
    assert parse_duration(right) == pytest.approx(0, abs=2e-4)


def _bytes(spikes: np.ndarray, folder: Path) -> tuple[Path, str]:
    (folder / "bytes.bin").write_bytes((255 * spikes[:, ::-1]).astype(np.uint8).tobytes())
    return folder / "bytes.bin", GEOMETRY


def _msb_first(spikes: np.ndarray, folder: Path) -> tuple[Path, str]:
    np.packbits(spikes[:, ::-1], bitorder="big").tofile(folder / "msb.DAT")
    return folder / "msb.DAT", f"{GEOMETRY},msb-first"


def _parts(spikes: np.ndarray, folder: Path) -> tuple[Path, str]:
    for name, part in (
        ("rec_1", spikes[:100]),
        ("rec_2", spikes[100:250]),
        ("rec_10", spikes[250:]),
    ):
        write_spikes(folder / f"{name}.dat", part, parse_geometry(GEOMETRY))
    return folder / "rec_*.dat", GEOMETRY


def _padded_rows(spikes: np.ndarray, folder: Path) -> tuple[Path, str]:
    wide = np.random.default_rng(0).integers(0, 2, (len(spikes), 48, 64), dtype=np.uint8)
    wide[:, :, 8:56] = spikes
    write_spikes(folder / "wide.dat", wide, parse_geometry("48x64,bottom-up"))
    return folder / "wide.dat", "48x64,bottom-up,columns=8:56"


@pytest.mark.parametrize("form", [_bytes, _msb_first, _parts, _padded_rows])
def test_spikes_in_any_form_give_the_same_frames(recording, moving_scene, form) -> None:
    restore(recording)
    spikes, spec = form(moving_scene.spikes, recording)
    camera = SpikeOptions(geometry=spec, rate=moving_scene.rate, gain=moving_scene.gain)
    other = find_recording(recording / "test_blurry_33/Type1/clip", spikes, BY_NUMBER, camera)
    job.restore(other, recording / "other", job.Restoring(method="sdm"))
    for name in ("0016.png", "0031.png", "0046.png"):
        assert (recording / "other" / name).read_bytes() == (recording / "out" / name).read_bytes()


@pytest.mark.parametrize("times", [BY_NUMBER, None])
def test_one_image_is_restored_as_it_is_among_others(recording, times) -> None:
    restore(recording)
    image = recording / "test_blurry_33/Type1/clip/0031.png"
    times = times or ExposureTimes(log=recording / "align.txt")
    alone = find_recording(image, recording / "spike.dat", times)
    assert [exposure.path for exposure in alone.exposures] == [image]
    job.restore(alone, recording / "alone", job.Restoring(method="sdm"))
    assert (recording / "alone/0031.png").read_bytes() == (recording / "out/0031.png").read_bytes()


@pytest.mark.parametrize(("fires", "expected"), [(0, "no pixel fires"), (1, "every pixel fires")])
@pytest.mark.parametrize("method", ["sdm", "tfp"])
def test_spikes_that_show_nothing_are_named(recording, moving_scene, fires, expected, method):
    spikes = np.full_like(moving_scene.spikes, fires)
    write_spikes(recording / "spike.dat", spikes, parse_geometry(GEOMETRY))
    summary = restore(recording, method=method)
    assert any(f"0016.png: {expected}" in warning for warning in summary.warnings)
    if method == "sdm":
        blurred = recording / "test_blurry_33/Type1/clip/0031.png"
        np.testing.assert_array_equal(read_rgb(recording / "out/0031.png"), read_rgb(blurred))
