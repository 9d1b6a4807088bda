"""Recordings in, sharp frames out: times, spike settings, resuming, refusals."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageCms

from spikedeblur.configs.schema import Config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.align.log import AlignmentRow, write_alignment_log
from spikedeblur.pipeline.clocks.camera import CameraClock
from spikedeblur.pipeline.clocks.durations import parse_duration
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.colours import Colours, colours_of
from spikedeblur.pipeline.frames.images import (
    read_frame,
    read_rgb,
    to_uint8,
    write_png,
    write_png16,
)
from spikedeblur.pipeline.host.reporter import SILENT, Reporter
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.restore.record import RECORD, restored_files
from spikedeblur.pipeline.sequences.find_recording import (
    ExposureTimes,
    find_frames,
    find_recording,
    settle_spikes,
)
from spikedeblur.pipeline.sequences.find_seq import find_seq
from spikedeblur.pipeline.sequences.recording import Recording, RecordingError, RecordingSequence
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions, SpikeSettingsError
from spikedeblur.pipeline.spikes.sidefile import write_folder_side_file

GEOMETRY = "48x48,bottom-up"
SEQ = "test/Type1/clip"


@pytest.fixture
def recording(moving_scene, tmp_path: Path) -> Path:
    """`test_blurry_33/Type1/clip/0016.png...`, `spike.dat` with its side file, and a log."""
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        write_png(tmp_path / "test_blurry_33/Type1/clip" / f"{centre:04d}.png", frame)
    dat = tmp_path / "spike.dat"
    write_spikes(dat, moving_scene.spikes, parse_geometry(GEOMETRY))
    write_side_file(
        dat, SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain)
    )
    rows = [
        AlignmentRow(c, (c - 16) / 1000, (c + 16) / 1000, 1, seq)
        for c in moving_scene.centres
        for seq in (SEQ, "val/Type1/clip")
    ]
    write_alignment_log(tmp_path / "align.txt", rows)
    return tmp_path


BY_NUMBER = ExposureTimes(exposure=33, fps=1000.0)


def found(folder: Path, times: ExposureTimes = BY_NUMBER, **options) -> Recording:
    blur, dat = folder / "test_blurry_33/Type1/clip", folder / "spike.dat"
    return find_recording(blur, dat, times, SpikeOptions(**options))


def restore(
    folder: Path,
    out: str = "out",
    *,
    times: ExposureTimes = BY_NUMBER,
    first: float | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **how,
) -> job.RestoreSummary:
    restoring = job.Restoring(**({"method": "model" if "run" in how else "sdm"} | how))
    recording = found(folder, times, first=first)
    return job.restore(recording, folder / out, restoring, overwrite=overwrite, reporter=reporter)


def by_log(folder: Path, **keywords):
    return restore(folder, times=ExposureTimes(log=folder / "align.txt"), **keywords)


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


def test_several_frames_of_an_exposure_show_what_happened_in_between(recording) -> None:
    restore(recording)
    summary = restore(recording, "more", frames_per_exposure=3)
    assert (summary.frames, summary.restored) == (9, 9)
    more = [read_rgb(recording / "more" / f"0031_{m}.png").astype(float) for m in range(3)]
    middle = read_rgb(recording / "out" / "0031.png")
    np.testing.assert_array_equal(more[1], middle)  # the middle of the exposure is one of them

    def shift(frame: np.ndarray) -> int:
        """By how many pixels the scene has moved to the left since the middle."""

        def error(s: int) -> float:
            a = frame[:, max(0, -s) : 96 - max(0, s)]
            b = middle[:, max(0, s) : 96 - max(0, -s)]
            return float(((a - b) ** 2).mean())

        return min(range(-20, 21), key=error)

    # A third of 33 frames, at a pixel a frame.
    assert [shift(frame) for frame in more] == [pytest.approx(x, abs=1) for x in (-11, 0, 11)]
    assert restore(recording, "more", frames_per_exposure=3).kept == 9
    (recording / "more" / "0031_2.png").unlink()
    assert restore(recording, "more", frames_per_exposure=3).restored == 1
    with pytest.raises(job.RestoreError, match="frames_per_exposure"):
        restore(recording, "more", frames_per_exposure=5)


def test_frames_of_an_exposure_share_what_moves_in_it(recording, moving_scene, monkeypatch) -> None:
    looked: list[int] = []
    read = exposures.Exposures._read
    monkeypatch.setattr(
        exposures.Exposures,
        "_read",
        lambda self, window: looked.append(window) or read(self, window),
    )
    summary = restore(recording, method="path", frames_per_exposure=3)
    assert summary.restored == 9
    assert looked == [0, 1, 2]
    middle = moving_scene.sharp[1]
    for m, shift in enumerate((-11, 0, 11)):  # a pixel a frame, to the left
        found = read_rgb(recording / "out" / f"0031_{m}.png")[:, 16:-16]
        there = np.roll(middle, -shift, axis=1)[:, 16:-16]
        assert psnr(found, there) > 27, m
    last = recording / "out/0031_2.png"
    before = last.read_bytes()
    last.unlink()
    looked.clear()
    assert restore(recording, method="path", frames_per_exposure=3).restored == 1
    assert last.read_bytes() == before
    restore(recording, "one", method="path")
    one, more = (recording / out for out in ("one/0031.png", "out/0031_1.png"))
    assert one.read_bytes() == more.read_bytes()


def test_the_end_of_an_exposure_is_told_by_the_next_one_too(recording, moving_scene) -> None:
    exposed = exposures.Exposures(RecordingSequence(found(recording), None), kept=3)
    middles = {i: exposures.as_frames(exposed.sharp(i)[0])[0] for i in range(3)}
    time = 15 / 32.125  # when the next exposure is at its middle
    truth = moving_scene.sharp[2][:, :-16]  # what comes in is seen by the next one only
    frames = (exposed.moved(1, seen, time) for seen in ({1: middles[1]}, middles))
    alone, both = (psnr(to_uint8(frame)[:, :-16], truth) for frame in frames)
    assert both > alone + 0.5


def test_instants_near_a_recordings_end_get_shorter_windows(recording) -> None:
    # The first exposure begins with the recording: its first third has half as long a window.
    restore(recording, "more", frames_per_exposure=3)
    first = read_rgb(recording / "more" / "0016_0.png").astype(float)
    assert np.abs(first).mean() > 20
    with pytest.raises(SpikeDeblurError, match="fewer --frames-per-exposure"):
        RecordingSequence(found(recording), 32, at=-0.49)


class Ramp(torch.nn.Module):
    """A stand-in for the network: values between the steps of 16 bits, some out of range."""

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-0.1, 1.1, rgb.numel()).view(rgb.shape)


def read_png16(path: Path) -> np.ndarray:
    """(H, W, 3) uint16 by FFmpeg, which did not write it."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as picture:
        frame = next(picture.decode(video=0))
    assert frame.format.name == "rgb48be"
    return frame.to_ndarray(format="rgb48le")


def test_sixteen_bits_hold_what_the_network_gave_to_half_a_step(recording, monkeypatch) -> None:
    pytest.importorskip("cv2")
    config = Config.model_validate({"DATA": {"CLIP_LEN": 3}})
    monkeypatch.setattr(
        job.Restoring, "open", lambda how, run: ModelMethod(Ramp(), config, tile=0, device="cpu")
    )
    best = recording / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights")
    restore(recording, run=recording / "run", bits=16)
    files = restored_files(recording / "out")
    restored = np.stack([read_png16(path) for path in files]).astype(np.float64) / 65535
    given = Ramp()(torch.empty(1, 3, 3, 96, 96), None)[0].permute(0, 2, 3, 1).double().numpy()
    assert np.abs(restored - given.clip(0, 1)).max() <= 0.5 / 65535 + 1e-12
    assert len(np.unique(restored)) > 20_000


def test_frames_of_other_bits_are_other_frames(recording) -> None:
    pytest.importorskip("cv2")
    restore(recording)
    eight = json.loads((recording / "out" / RECORD).read_text())["inputs"]
    with pytest.raises(job.RestoreError, match=r"other inputs \(bits\)"):
        restore(recording, bits=16)
    assert restore(recording, bits=16, overwrite=True).restored == 3
    assert restore(recording, bits=16).kept == 3
    sixteen = json.loads((recording / "out" / RECORD).read_text())["inputs"]
    assert sixteen == eight | {"bits": 16}  # records of earlier releases stay valid
    with pytest.raises(job.RestoreError, match=r"other inputs \(bits\)"):
        restore(recording)
    (recording / "out" / "0031.png").unlink()
    assert restore(recording, bits=16).restored == 1
    whole = read_png16(recording / "out" / "0031.png")
    assert restore(recording, overwrite=True).restored == 3
    step = np.abs(whole / 257.0 - read_rgb(recording / "out" / "0031.png"))
    assert step.max() <= 0.5 + 1 / 257


def test_light_that_frames_clip_is_kept_in_sixteen_bits(recording, moving_scene) -> None:
    brighter = 1.5  # so that a tenth of the frame is beyond white
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        light = (frame * brighter).clip(0, 255).round().astype(np.uint8)
        write_png(recording / "test_blurry_33/Type1/clip" / f"{centre:04d}.png", light)
    side = SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain / brighter)
    write_side_file(recording / "spike.dat", side)
    restore(recording, bits=16, headroom=4, method="path")
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["inputs"]["white"] == 16384
    found = read_png16(recording / "out/0031.png") / 16384
    truth = moving_scene.sharp[1] / 255 * brighter
    inside = moving_scene.blur[1].max(-1) * brighter >= 255
    assert 0.02 < inside.mean() < 0.5
    error = np.square(found - truth)[inside].mean()
    clipped = np.square(found.clip(0, 1) - truth)[inside].mean()
    assert 10 * np.log10(clipped / error) > 3
    assert restore(recording, bits=16, headroom=4, method="path").kept == 3
    with pytest.raises(job.RestoreError, match=r"other inputs \(white\)"):
        restore(recording, bits=16, method="path")


def test_light_beyond_white_needs_sixteen_bits() -> None:
    with pytest.raises(job.RestoreError, match="--bits 16"):
        job.Restoring(method="path", headroom=4)


def test_sixteen_bits_without_opencv_are_refused_before_anything_is_written(
    recording, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SpikeDeblurError, match=r"spikedeblur\[png16\]"):
        restore(recording, bits=16)
    assert not (recording / "out").exists()


def test_record_says_what_the_frames_were_made_from(recording) -> None:
    restore(recording)
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["complete"] is True
    assert record["version"]
    inputs = record["inputs"]
    assert inputs["method"] == "sdm"
    assert (inputs["rate"], inputs["gain"], inputs["first"]) == (8000.0, 0.5, 0.0)
    assert inputs["geometry"] == GEOMETRY
    assert inputs["frames"]["0031"]["t0"] == pytest.approx(0.015)
    assert len(inputs["frames"]["0031"]["blur_sha256"]) == 64


def test_a_stopped_run_goes_on_and_a_finished_one_does_nothing(recording) -> None:
    class Stop(Reporter):
        def progress(self, done: int, total: int, note: str = "") -> None:
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(recording, reporter=Stop())
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["complete"] is False
    first = (recording / "out" / "0016.png").stat().st_mtime_ns
    summary = restore(recording)
    assert (summary.restored, summary.kept) == (1, 2)
    assert (recording / "out" / "0016.png").stat().st_mtime_ns == first
    again = restore(recording)
    assert (again.restored, again.kept) == (0, 3)


def test_frames_of_other_inputs_are_neither_kept_nor_replaced(recording) -> None:
    restore(recording)
    before = (recording / "out" / "0031.png").read_bytes()
    with pytest.raises(job.RestoreError, match=r"other inputs \(method"):
        restore(recording, method="tfp")
    blurred = recording / "test_blurry_33/Type1/clip/0031.png"
    write_png(blurred, 255 - read_rgb(blurred))
    with pytest.raises(job.RestoreError, match=r"other inputs \(frames\)"):
        restore(recording, force=True)
    assert (recording / "out" / "0031.png").read_bytes() == before
    restore(recording, overwrite=True, force=True)
    assert (recording / "out" / "0031.png").read_bytes() != before


def test_overwriting_leaves_no_frame_of_the_former_run(recording) -> None:
    restore(recording)
    (recording / "test_blurry_33/Type1/clip/0046.png").unlink()
    restore(recording, overwrite=True)
    assert sorted(p.name for p in (recording / "out").iterdir()) == [
        "0016.png",
        "0031.png",
        RECORD,
    ]


def test_foreign_files_are_not_replaced(recording) -> None:
    write_png(recording / "out" / "0031.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(job.RestoreError, match="found another file"):
        restore(recording)
    with pytest.raises(job.RestoreError, match="choose another --out"):
        restore(recording, "test_blurry_33/Type1/clip")


def test_a_record_can_not_name_files_elsewhere(recording) -> None:
    restore(recording)
    path = recording / "out" / RECORD
    record = json.loads(path.read_text())
    record["inputs"]["frames"]["../precious"] = {}
    path.write_text(json.dumps(record))
    write_png(recording / "precious.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SpikeDeblurError, match="inside"):
        restore(recording, overwrite=True)
    assert (recording / "precious.png").exists()


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


@pytest.mark.parametrize(
    "given",
    [{}, {"exposure": 33}, {"fps": 1000.0}, {"log": "x", "fps": 1000.0}],
)
def test_times_that_are_missing_or_given_twice_are_refused(given) -> None:
    with pytest.raises(
        RecordingError, match=r"--frame-rate 30 --shutter 16ms.*or --log; or.*--exposure and --fps"
    ):
        ExposureTimes(**given)


def test_videos_and_steps_go_together(recording) -> None:
    with pytest.raises(RecordingError, match="leave out --step"):
        found(recording, ExposureTimes(exposure=33, fps=1000.0, step=15))
    with pytest.raises(RecordingError, match="frames have no numbers"):
        find_recording(
            recording / "x.mp4",
            recording / "spike.dat",
            ExposureTimes(log=recording / "align.txt"),
            decode_to=recording / "out",
        )


@pytest.mark.parametrize(
    ("folder", "seq", "expected"),
    [
        ("d/test_blurry_33/T1/c", None, "test/T1/c"),
        ("d/val_blurry_65/T1/c", None, "val/T1/c"),
        ("d/test_blurry_33/T1/c", "val/T1/c", "val/T1/c"),
        ("anywhere/T2/c", None, "test/T2/c"),
        ("anywhere/only", None, "test/T1/only"),
        ("anywhere/test/only/blur", None, "test/T1/only"),
        ("anywhere/val/T1/c/blur_gamma", None, "val/T1/c"),
    ],
)
def test_sequence_is_found_by_the_folders_name(folder, seq, expected) -> None:
    seqs = ["test/T1/c", "val/T1/c", "test/T2/c", "test/T1/only"]
    assert find_seq(Path(folder), seqs, seq, "log.txt") == expected


def test_sequences_that_fit_equally_are_listed() -> None:
    seqs = ["test/T1/c", "val/T1/c", "test/T2/c"]
    with pytest.raises(RecordingError, match=r"several.*test/T1/c, val/T1/c;"):
        find_seq(Path("x/T1/c"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="no sequence fits"):
        find_seq(Path("x/T1/d"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="'train/T1/c'"):
        find_seq(Path("x/train_blurry_33/T1/c"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="--seq"):
        find_seq(Path("x/T1/c"), seqs, "nope", "log.txt")


def test_a_frame_without_a_row_is_named(recording) -> None:
    write_png(recording / "test_blurry_33/Type1/clip/0032.png", np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(RecordingError, match=r"0032\.png.*frame 32"):
        by_log(recording)


def settled(dat: Path, **keywords):
    return settle_spikes(dat, SpikeOptions(**keywords))


def test_what_is_not_known_of_the_spikes_must_be_said(tmp_path: Path) -> None:
    dat = tmp_path / "x.dat"
    with pytest.raises(SpikeSettingsError, match="--geometry"):
        settled(dat)
    with pytest.raises(SpikeSettingsError, match="--rate"):
        settled(dat, geometry=GEOMETRY)
    preset = settled(dat, geometry="spk-gopro")
    assert (preset.rate, preset.gain, preset.first) == (1920.0, 0.5, 0.0)
    assert settled(dat, geometry=GEOMETRY, rate=100.0).gain is None


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_gain_is_refused(tmp_path: Path, gain: float) -> None:
    with pytest.raises(SpikeSettingsError, match="--gain above 0"):
        settled(tmp_path / "x.dat", geometry=GEOMETRY, rate=100.0, gain=gain)


def test_an_option_wins_over_the_side_file_with_a_warning(tmp_path: Path) -> None:
    dat = tmp_path / "x.dat"
    write_side_file(dat, SideFile(geometry=GEOMETRY, rate=100.0, gain=0.5, first=2.0))
    assert settled(dat).first == 2.0
    assert settled(dat).warnings == ()
    chosen = settled(dat, rate=200.0, geometry="48x48,top-down")
    assert chosen.rate == 200.0
    assert not chosen.geometry.flip_rows
    assert len(chosen.warnings) == 2
    moved = settled(dat, first=1.5)
    assert moved.first == 1.5
    assert moved.warnings == ("--first 1.5 taken over the side file's 2",)


def test_a_folders_side_file_does_not_say_when_one_file_begins(tmp_path: Path) -> None:
    write_folder_side_file(tmp_path, SideFile(geometry=GEOMETRY, rate=100.0))
    with pytest.raises(RecordingError, match="--first"):
        settled(tmp_path / "0031.dat")
    chosen = settled(tmp_path / "0031.dat", first=0.5)
    assert (chosen.first, chosen.warnings) == (0.5, ())
    assert settled(tmp_path / "spike.dat").first == 0.0


def test_interpolated_names_count_in_fours(tmp_path: Path) -> None:
    for name in ("0004.png", "0007_002.png"):
        write_png(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert list(find_frames(tmp_path)) == [16, 31]
    (tmp_path / "cover.png").write_bytes(b"")
    with pytest.raises(RecordingError, match=r"cover\.png"):
        find_frames(tmp_path)


def test_unknown_gain_is_said(recording, moving_scene) -> None:
    side = SideFile(geometry=GEOMETRY, rate=moving_scene.rate)
    write_side_file(recording / "spike.dat", side)
    heard: list[str] = []
    reporter = Reporter()
    reporter.warn = heard.append
    summary = restore(recording, reporter=reporter)
    assert any("--gain" in warning for warning in summary.warnings)
    assert list(summary.warnings) == heard


class Passing(torch.nn.Module):
    """A stand-in for the network: the blurred frame."""

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        assert voxels.shape[2] == 32
        return rgb


def test_a_model_restores_clips_and_resumes(recording, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"DATA": {"CLIP_LEN": 2}})
    monkeypatch.setattr(
        job.Restoring,
        "open",
        lambda how, run: ModelMethod(Passing(), config, tile=how.tile, device="cpu"),
    )
    best = recording / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights")
    summary = restore(recording, run=recording / "run", tile=32)
    assert (summary.method, summary.restored, summary.tile) == ("model", 3, 32)
    blurred = read_rgb(recording / "test_blurry_33/Type1/clip/0031.png")
    np.testing.assert_array_equal(read_rgb(recording / "out" / "0031.png"), blurred)
    (recording / "out" / "0046.png").unlink()
    # Without being told, a restoration that goes on keeps the tile it began with.
    again = restore(recording, run=recording / "run")
    assert (again.restored, again.tile) == (1, 32)
    best.write_bytes(b"other weights")
    with pytest.raises(job.RestoreError, match="model_sha256"):
        restore(recording, run=recording / "run", tile=32)


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


def test_an_exposure_too_short_for_the_models_bins_is_refused(recording) -> None:
    slow = found(recording, rate=100.0)
    with pytest.raises(RecordingError, match="32 bins"):
        RecordingSequence(slow, 32)
    assert RecordingSequence(slow, None).bins == 4


@pytest.mark.parametrize("at", [-1 / 3, 0.0, 1 / 3])
def test_windows_around_another_instant_have_its_times(at, recording, moving_scene) -> None:
    sequence = RecordingSequence(found(recording), 16, at=at)
    lasts = (sequence.samples - 1) / moving_scene.rate
    np.testing.assert_allclose(sequence.t1 - sequence.t0, lasts)
    sample = 1 / moving_scene.rate
    middles = np.array(moving_scene.centres) / 1000 + at * (0.032 + sample)
    np.testing.assert_allclose((sequence.t0 + sequence.t1) / 2, middles, atol=sample)


def test_crops_of_a_recording_are_cut_exactly(recording) -> None:
    sequence = RecordingSequence(found(recording), 32)
    assert sequence.voxel_dtype == sequence.voxels(0, 1).dtype
    voxels = sequence.voxels(0, 2)
    np.testing.assert_array_equal(
        sequence.voxels(0, 2, (8, 24), (16, 40)), voxels[:, :, 8:24, 16:40]
    )
    np.testing.assert_array_equal(
        sequence.blur(1, 2, (16, 48), (32, 80)), sequence.blur(1, 2)[:, 16:48, 32:80]
    )
    assert sequence.spikes(0).sum() == voxels[0].sum()


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


def test_a_file_that_is_no_image_is_refused_as_blurred_frames(recording) -> None:
    with pytest.raises(RecordingError, match=r"spike\.dat: expected a folder of blurred frames or"):
        find_recording(recording / "spike.dat", recording / "spike.dat", BY_NUMBER)


@pytest.mark.parametrize("method", ["blur", "sdm"])
def test_16_bits_in_are_16_bits_out(recording, moving_scene, method) -> None:
    """Values between the levels of 8 bits survive, and a colour profile is carried."""
    clip = recording / "test_blurry_33/Type1/clip"
    colours = Colours(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    rng = np.random.default_rng(5)
    deep = {}
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        between = frame.astype(np.uint16) * 257 + rng.integers(1, 120, frame.shape, np.uint16)
        deep[centre] = np.minimum(between, 65534)
        write_png16(clip / f"{centre:04d}.png", deep[centre], colours.chunks())
    assert RecordingSequence(found(recording), 32).frame_dtype == "uint16"
    restore(recording, method=method, bits=16)
    for centre, frame in deep.items():
        restored = read_frame(recording / "out" / f"{centre:04d}.png")
        assert restored.dtype == np.uint16
        assert colours_of(recording / "out" / f"{centre:04d}.png") == colours
        if method == "blur":
            np.testing.assert_array_equal(restored, frame)
    if method == "sdm":
        fine = read_frame(recording / "out/0031.png").astype(float)
        for centre in moving_scene.centres:  # the same frames, cut to 8 bits
            write_png16(clip / f"{centre:04d}.png", deep[centre] // 257 * 257)
        restore(recording, "cut", method=method, bits=16)
        cut = read_frame(recording / "cut/0031.png").astype(float)
        assert 0 < np.abs(fine - cut).mean() < 257


def test_frames_of_8_and_16_bits_are_not_mixed_where_bits_would_be_lost(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    write_png16(clip / "0046.png", np.zeros((96, 96, 3), np.uint16))
    with pytest.raises(
        SpikeDeblurError, match=r"0046\.png: expected 8 bits a channel as in the se"
    ):
        restore(recording)


def test_what_a_folder_lacks_or_holds_besides_is_said(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    images = sorted(clip.glob("*.png"))
    assert not any("missing" in warning for warning in found(recording).settings.warnings)
    (clip / "0600.webp").write_bytes(images[0].read_bytes())
    images[0].rename(clip / "0000.png")  # outside the recording, if it were exposed so early
    images[1].unlink()
    by_clock = ExposureTimes(camera=CameraClock(frame_rate=100, shutter=5e-3))
    warnings = " ".join(found(recording, by_clock).settings.warnings)
    assert "0600.webp: not read by ending" in warnings
    (clip / "00.png").write_bytes((clip / "0000.png").read_bytes())
    with pytest.raises(RecordingError, match=r"00\.png and 0000\.png are both the frame"):
        found(recording, by_clock)
    (clip / "00.png").rename(clip / "other_1.png")
    warnings = " ".join(found(recording, by_clock).settings.warnings)
    assert "names are of several kinds, such as 0000.png and other_1.png" in warnings


def test_a_hole_in_the_numbers_is_named(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    frame = (clip / "0031.png").read_bytes()
    for number in (32, 33, 35):
        (clip / f"{number:04d}.png").write_bytes(frame)
    for number in (16, 46):
        (clip / f"{number:04d}.png").unlink()
    assert any(
        "after 0033.png comes 0035.png; the frames between them are missing" in warning
        for warning in found(recording).settings.warnings
    )


def test_frames_that_mean_different_colours_are_named_and_keep_theirs(recording) -> None:
    clip = recording / "test_blurry_33/Type1/clip"
    linear = Colours(gamma=100_000)
    write_png(clip / "0031.png", read_rgb(clip / "0031.png"), linear.chunks())
    summary = restore(recording)
    (warning,) = (warning for warning in summary.warnings if "colours differ" in warning)
    assert "0016.png has none" in warning
    assert "0031.png has a gamma of 1" in warning
    assert colours_of(recording / "out/0031.png") == linear
    assert colours_of(recording / "out/0016.png") == Colours()


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


@pytest.mark.parametrize("each", [10**9, 1001, 1000])
def test_more_sharp_frames_than_samples_are_refused_at_once(recording, each) -> None:
    with pytest.raises(job.RestoreError, match=r"expected at most 257 sharp|expected 1 to 1000"):
        restore(recording, frames_per_exposure=each)


@pytest.mark.parametrize("gain", [1e308, 1e-308, 5e-324, 1e7])
def test_a_gain_that_no_camera_has_is_refused(recording, gain) -> None:
    with pytest.raises(SpikeDeblurError, match="expected --gain of 1e-06 to 1e\\+06"):
        found(recording, gain=gain)
    side = recording / "spike.dat.json"
    side.write_text(re.sub(r'"gain": [0-9.]+', f'"gain": {gain}', side.read_text()))
    with pytest.raises(SpikeDeblurError, match=r"spike\.dat\.json.*gain"):
        found(recording)
