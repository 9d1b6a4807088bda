from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aligning import run_align

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.align import (
    AlignmentError,
    AlignOptions,
    align,
    read_alignment_log,
    read_manifest,
)
from spikedeblur.pipeline.align.check import check_manifest
from spikedeblur.pipeline.align.readout import delays_of
from spikedeblur.pipeline.host.files import sha256_file
from spikedeblur.pipeline.host.locks import HeldError, only_writer_of
from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.spikes import SpikeFile, parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeSettingsError
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_folder_side_file, write_side_file

GEOMETRY = "32x40,bottom-up"
SEQ = "val/Type1/TEST01_003_f0433"
DAT = "val_spike_2xds/Type1/TEST01_003_f0433/spike.dat"


def run(root: Path, layout: str = "x4k1000fps", **options):
    options.setdefault("exposure", 9)
    return run_align(root, layout, root / "o" / "a.txt", **options)


def products(root: Path) -> tuple[bytes, bytes]:
    return (root / "o" / "a.txt").read_bytes(), (root / "o" / "a.json").read_bytes()


def test_log_and_manifest_hold_true_counts_and_times(tmp_path, make_clip):
    spikes = make_clip(tmp_path)
    manifest, warnings = run(tmp_path)
    assert not warnings
    assert read_manifest(tmp_path / "o" / "a.json") == manifest
    rows = read_alignment_log(tmp_path / "o" / "a.txt")
    assert set(rows) == {(SEQ, 8), (SEQ, 16), (SEQ, 24)}
    for (_, centre), row in rows.items():
        # Exposure 9 at 4 samples a frame: frames centre-4..centre+4, both ends: 33 samples.
        expected = spikes[4 * (centre - 4) : 4 * (centre + 4) + 1]
        assert len(expected) == 33
        assert row.event_count == expected.sum()
        assert (row.t0, row.t1) == ((centre - 4) / 1000, (centre + 4) / 1000)
    (sequence,) = manifest.sequences
    assert sequence.files[DAT].sha256 == sha256_file(tmp_path / DAT)
    assert sequence.verification.confident
    assert abs(sequence.verification.lag_frames) < 1


def test_bytes_are_the_same_for_any_number_of_workers(tmp_path, make_clip):
    for seed in range(5):
        make_clip(tmp_path, f"val/T/c{seed}", seed=seed)
    run(tmp_path, workers=1)
    first = products(tmp_path)
    run(tmp_path, workers=4, overwrite=True)
    assert products(tmp_path) == first
    for path in (tmp_path / "o").iterdir():
        path.unlink()
    run(tmp_path, workers=3)
    assert products(tmp_path) == first


def test_second_run_reads_no_spikes_and_writes_the_same(tmp_path, make_clip, monkeypatch):
    make_clip(tmp_path)
    run(tmp_path)
    first = products(tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("spikes were read again")

    monkeypatch.setattr(SpikeFile, "open", refuse)
    run(tmp_path)
    assert products(tmp_path) == first
    run(tmp_path, verify=False)
    assert read_manifest(tmp_path / "o" / "a.json").sequences[0].verification is None


@pytest.mark.parametrize("change", ["spikes", "sharp", "rate", "gain"])
def test_what_changed_is_read_again(tmp_path, make_clip, change):
    make_clip(tmp_path)
    before, _ = run(tmp_path)
    options = {}
    if change == "spikes":
        data = bytearray((tmp_path / DAT).read_bytes())
        data[:] = bytes(len(data))
        (tmp_path / DAT).write_bytes(data)
    elif change == "sharp":
        path = tmp_path / "val_fullRGB/Type1/TEST01_003_f0433/0016.png"
        os.utime(path, ns=(1, 1))
    elif change == "rate":
        options["rate"] = 3900.0
    else:
        options["gain"] = 0.25
    after, _ = run(tmp_path, **options)
    assert after != before
    fresh, _ = run(tmp_path, overwrite=True, **options)
    assert after == fresh
    if change == "spikes":
        assert all(window.spike_count == 0 for window in after.sequences[0].windows)


def test_verification_added_later_equals_one_made_at_once(tmp_path, make_clip):
    make_clip(tmp_path)
    run(tmp_path, verify=False)
    run(tmp_path)
    later = products(tmp_path)
    for path in (tmp_path / "o").iterdir():
        path.unlink()
    run(tmp_path)
    assert products(tmp_path) == later


def test_files_of_others_are_not_replaced(tmp_path, make_clip):
    make_clip(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "a.txt").write_text("frame_idx,t0,t1,event_count,seq\n1,0,1,5,mine\n")
    with pytest.raises(OverwriteError, match=r"a\.txt.*--overwrite"):
        run(tmp_path)
    (tmp_path / "o" / "a.txt").unlink()
    (tmp_path / "o" / "a.json").write_text("{}")
    with pytest.raises(OverwriteError, match=r"a\.json.*--overwrite"):
        run(tmp_path)
    assert (tmp_path / "o" / "a.json").read_text() == "{}"
    run(tmp_path, overwrite=True)
    run(tmp_path)


def test_strict_writes_nothing_and_lists_every_warning(tmp_path, make_clip):
    make_clip(tmp_path, "val/T/flat", flat=True)
    make_clip(tmp_path, "val/T/late", lag=22, speed=1.5)
    with pytest.raises(AlignmentError, match=r"val/T/flat.*val/T/late") as error:
        run(tmp_path, strict=True)
    assert "2 warnings" in str(error.value)
    assert not (tmp_path / "o").exists()
    _, warnings = run(tmp_path)
    assert len(warnings) == 2


def test_nothing_is_guessed_without_side_file(tmp_path, make_clip):
    make_clip(tmp_path, side=False)
    with pytest.raises(SpikeSettingsError, match="--geometry"):
        run(tmp_path)
    with pytest.raises(SpikeSettingsError, match="--rate"):
        run(tmp_path, geometry=GEOMETRY)
    manifest, warnings = run(tmp_path, geometry=GEOMETRY, rate=4000.0)
    assert manifest.sequences[0].gain is None
    assert any("--gain" in warning for warning in warnings)
    manifest, warnings = run(tmp_path, geometry=GEOMETRY, rate=4000.0, gain=0.5)
    assert manifest.sequences[0].gain == 0.5
    assert not warnings


def test_option_wins_over_side_file_with_a_warning(tmp_path, make_clip):
    make_clip(tmp_path)
    manifest, warnings = run(tmp_path, gain=0.7, geometry="32x40,top-down")
    assert manifest.sequences[0].gain == 0.7
    assert manifest.sequences[0].geometry == "32x40,top-down"
    assert any("--gain 0.7 taken over the side file's 0.5" in warning for warning in warnings)
    assert any("--geometry 32x40,top-down" in warning for warning in warnings)


def test_forgotten_fps_is_noticed_in_the_side_file(tmp_path, make_clip):
    make_clip(tmp_path)
    made_by = {"fps": 240.0, "linear_light": True}
    side = SideFile(geometry=GEOMETRY, rate=4000.0, gain=0.5, made_by=made_by)
    write_side_file(tmp_path / DAT, side)
    manifest, warnings = run(tmp_path)
    assert any("give --fps 240" in warning for warning in warnings)
    assert manifest.linear_light is True


def test_exposure_that_leaves_the_recording_names_both(tmp_path, make_clip):
    make_clip(tmp_path, centres=(8, 30), frames=33)
    with pytest.raises(SpikeDeblurError, match=r"spike\.dat, frame 30.*104 to 136.*0 to 128"):
        run(tmp_path)
    assert not (tmp_path / "o").exists()


def test_extended_names_keep_their_time(tmp_path, make_clip):
    make_clip(tmp_path, "test/Type1/TEST01", centres=(8, 16))
    for top in ("test_blurry_9", "test_fullRGB"):
        folder = tmp_path / top / "Type1/TEST01"
        (folder / "0016.png").rename(folder / "1016.png")
    # Frame 1016 is a second after frame 16: not in a recording of 32 ms.
    with pytest.raises(SpikeDeblurError, match=r"frame 1016: exposure \[1\.012000, 1\.020000\]"):
        run(tmp_path)


def test_wrong_spike_size_is_a_warning(tmp_path, make_clip):
    make_clip(tmp_path)
    _, warnings = run(tmp_path, geometry="16x80,bottom-up")
    assert any("expected spikes of 32x40" in warning for warning in warnings)


def _cut_windows(root: Path, spikes: np.ndarray, folder: Path, samples: int = 33) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for centre in (8, 16, 24):
        start = 4 * (centre - 4)
        write_spikes(
            folder / f"{centre:04d}.dat",
            spikes[start : start + samples],
            parse_geometry(GEOMETRY),
        )
    write_folder_side_file(folder, SideFile(geometry=GEOMETRY, rate=4000.0, gain=0.5))


def test_spikes_of_no_stated_geometry_must_have_the_size_that_folder_names_say(tmp_path, make_clip):
    make_clip(tmp_path, centres=(16,), side=False)
    sharp = tmp_path / "val_fullRGB/Type1/TEST01_003_f0433/0016.png"
    shutil.copy(sharp, sharp.with_name("0016_002.png"))  # names of Spk-X4K1000FPS, of 256x256
    with pytest.raises(AlignmentError, match=r"expected spikes of 32x40.*give --geometry"):
        run(tmp_path)
    _, warnings = run(tmp_path, geometry="64x20,bottom-up", verify=False)
    assert any("expected spikes of 32x40" in warning for warning in warnings)


def test_what_few_cameras_have_is_not_written_for_the_others(tmp_path, make_clip):
    make_clip(tmp_path, speed=1.5)
    run(tmp_path)
    (sequence,) = json.loads((tmp_path / "o" / "a.json").read_text())["sequences"]
    assert not {"readout", "links"} & sequence.keys()
    assert "readout" not in sequence["verification"]


def test_window_files_give_the_same_log_as_the_stream(tmp_path, make_clip):
    spikes = make_clip(tmp_path)
    run(tmp_path)
    from_stream = (tmp_path / "o" / "a.txt").read_bytes()
    (tmp_path / DAT).unlink()
    (tmp_path / f"{DAT}.json").unlink()
    _cut_windows(tmp_path, spikes, tmp_path / "val_spike_2xds_9/Type1/TEST01_003_f0433")
    manifest, _ = run(tmp_path)
    assert (tmp_path / "o" / "a.txt").read_bytes() == from_stream
    (sequence,) = manifest.sequences
    assert [window.first for window in sequence.windows] == [0.004, 0.012, 0.020]
    assert all(sequence.files[window.spikes].sha256 for window in sequence.windows)


def test_window_file_of_another_length_is_refused(tmp_path, make_clip):
    spikes = make_clip(tmp_path)
    (tmp_path / DAT).unlink()
    (tmp_path / f"{DAT}.json").unlink()
    folder = tmp_path / "val_spike_2xds_9/Type1/TEST01_003_f0433"
    _cut_windows(tmp_path, spikes, folder, samples=32)
    with pytest.raises(AlignmentError, match=r"0008\.dat: expected 33 spike samples.*found 32"):
        run(tmp_path)


def test_unified_needs_fps_and_gives_the_same_times(tmp_path, make_clip):
    spikes = make_clip(tmp_path / "x4k")
    folder = tmp_path / "u" / "val" / "deep" / "s"
    folder.mkdir(parents=True)
    clip = "Type1/TEST01_003_f0433"
    (tmp_path / "x4k" / "val_blurry_9" / clip).rename(folder / "blur")
    (tmp_path / "x4k" / "val_fullRGB" / clip).rename(folder / "sharp")
    _cut_windows(tmp_path, spikes, folder / "spike")
    with pytest.raises(AlignmentError, match="--fps"):
        run(tmp_path / "u", "unified")
    manifest, warnings = run(tmp_path / "u", "unified", fps=1000.0)
    assert not [warning for warning in warnings if "lag" not in warning and "end of" not in warning]
    rows = read_alignment_log(tmp_path / "u" / "o" / "a.txt")
    assert rows["val/deep/s", 16].event_count == spikes[48:81].sum()
    assert manifest.sequences[0].windows[1].t0 == 0.012


@pytest.mark.parametrize("last", [56, 49])
def test_gopro_window_ends_with_the_exposure_not_with_the_file(tmp_path, last):
    rng = np.random.default_rng(0)
    name = "GOPR0384_07_00"
    blur = tmp_path / "GOPRO_Large" / "train" / name / "blur_gamma"
    dats = tmp_path / "GOPRO_Large_spike_seq" / "train" / name / "spike"
    blur.mkdir(parents=True)
    dats.mkdir(parents=True)
    counts = {}
    for i, n in ((1, 56), (2, last)):
        (blur / f"{i:06d}.png").write_bytes(b"not read")
        spikes = rng.integers(0, 2, (n, 360, 640), dtype=np.uint8)
        write_spikes(dats / f"{i:06d}.dat", spikes, parse_geometry("spk-gopro"))
        counts[i] = int(spikes[: 8 * 6 + 1].sum())
    manifest, warnings = run(tmp_path, "spk-gopro", exposure=None, verify=False)
    assert not warnings
    (sequence,) = manifest.sequences
    assert (sequence.rate, sequence.gain, manifest.exposure_frames) == (1920.0, 0.5, 7)
    assert {w.frame_index: w.spike_count for w in sequence.windows} == counts
    for window in sequence.windows:
        assert window.t1 - window.t0 == pytest.approx(6 / 240)
        assert sequence.clock(window).samples(window.t0, window.t1) == (0, 49)


def test_gopro_file_of_another_length_is_refused(tmp_path):
    name = "GOPR0384_07_00"
    blur = tmp_path / "GOPRO_Large" / "train" / name / "blur"
    dats = tmp_path / "GOPRO_Large_spike_seq" / "train" / name / "spike"
    blur.mkdir(parents=True)
    dats.mkdir(parents=True)
    (blur / "000001.png").write_bytes(b"not read")
    spikes = np.zeros((50, 360, 640), np.uint8)
    write_spikes(dats / "000001.dat", spikes, parse_geometry("spk-gopro"))
    with pytest.raises(AlignmentError, match=r"expected 56 or 49 spike samples.*found 50"):
        run(tmp_path, "spk-gopro", exposure=None)


def test_links_out_of_the_root_are_followed_and_recorded(tmp_path, make_clip):
    root, disk = tmp_path / "root", tmp_path / "disk"
    make_clip(root)
    plain, _ = run(root)
    assert '"links"' not in (root / "o" / "a.json").read_text()
    disk.mkdir()
    (root / "val_blurry_9").rename(disk / "blurred")
    (root / "val_blurry_9").symlink_to(disk / "blurred")
    (root / DAT).rename(disk / "elsewhere.dat")
    (root / DAT).symlink_to(disk / "elsewhere.dat")
    linked, _ = run(root, overwrite=True)
    (sequence,) = linked.sequences
    assert sequence.links == {
        "val_blurry_9": str(disk / "blurred"),
        DAT: str(disk / "elsewhere.dat"),
    }
    assert linked.log_rows() == plain.log_rows()
    manifest = root / "o" / "a.json"
    assert check_manifest(manifest).wrong == 0
    assert len(recordings_of(manifest)[0].exposures) == 3
    # The same link to another place is not what the user aligned.
    (root / "val_blurry_9").unlink()
    (disk / "blurred").rename(disk / "other")
    (root / "val_blurry_9").symlink_to(disk / "other")
    with pytest.raises(SpikeDeblurError, match=r"'val_blurry_9' led to .*blurred when it was ali"):
        recordings_of(manifest)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layout": "other"}, "not known"),
        ({"variant": "blur"}, "no variants"),
        ({"rate": 0.0}, "--rate"),
        ({"fps": float("nan")}, "--fps"),
        ({"gain": -1.0}, "--gain"),
        ({"workers": 0}, "workers"),
    ],
)
def test_impossible_options_are_refused_before_reading(tmp_path, options, expected):
    with pytest.raises(AlignmentError, match=expected):
        run(tmp_path, **options)


def test_missing_root_is_named(tmp_path):
    with pytest.raises(AlignmentError, match="nowhere"):
        run(tmp_path / "nowhere")


def test_manifest_and_data_move_together(tmp_path, make_clip):
    make_clip(tmp_path / "a" / "data")
    align(
        tmp_path / "a" / "data",
        "auto",
        log=tmp_path / "a" / "logs" / "l.txt",
        manifest=tmp_path / "a" / "logs" / "l.json",
        options=AlignOptions(exposure=9),
    )
    (tmp_path / "a").rename(tmp_path / "b")
    path = tmp_path / "b" / "logs" / "l.json"
    manifest = read_manifest(path)
    assert manifest.root == "../data"
    assert (manifest.root_folder(path) / manifest.sequences[0].windows[0].spikes).is_file()


AGAIN = """
import sys
from pathlib import Path
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.host.locks import HeldError
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
options = AlignOptions(exposure=9, verify=False)
refused = 0
for _ in range(rounds):
    try:
        align(root, "x4k1000fps", log=root / "o/a.txt", manifest=root / "o/a.json",
              options=options, workers=1)
    except HeldError:
        refused += 1
print(refused)
"""


def test_several_that_align_to_one_log_take_turns_and_lose_nothing(tmp_path, make_clip):
    make_clip(tmp_path)
    run(tmp_path, verify=False)
    expected = products(tmp_path)
    command = [sys.executable, "-c", AGAIN, str(tmp_path), "60"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    refused = [int(process.communicate(timeout=120)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum(refused) > 0, "they never met"
    assert products(tmp_path) == expected
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.json", "a.txt"]


@pytest.mark.parametrize("held", ["a.txt", "a.json"])
def test_a_log_or_manifest_that_is_being_written_is_refused(tmp_path, make_clip, held):
    make_clip(tmp_path)
    run(tmp_path)
    before = products(tmp_path)
    with (
        only_writer_of(tmp_path / "o" / held),
        pytest.raises(HeldError, match=f"{held}: another `spikedeblur` is writing it"),
    ):
        run(tmp_path)
    assert products(tmp_path) == before


def test_side_files_of_one_sequence_must_agree(tmp_path, make_clip):
    spikes = make_clip(tmp_path)
    (tmp_path / DAT).unlink()
    (tmp_path / f"{DAT}.json").unlink()
    folder = tmp_path / "val_spike_2xds_9" / "Type1" / "TEST01_003_f0433"
    _cut_windows(tmp_path, spikes, folder)
    write_side_file(folder / "0016.dat", SideFile(geometry=GEOMETRY, rate=8000.0, gain=0.5))
    with pytest.raises(AlignmentError, match=r"0016\.dat: its side file disagrees with .*0008"):
        run(tmp_path, verify=False)


def test_each_row_has_the_delay_of_the_frame_s_row_that_it_looks_at(tmp_path, make_clip):
    make_clip(tmp_path)
    manifest, _ = run(tmp_path, verify=False, readout=0.004)
    delays = delays_of(manifest.sequences[0], tmp_path)
    # Row i of 32 looks at the middle of rows 2 i and 2 i + 1 of 64, which take 16 samples.
    np.testing.assert_array_equal(delays, np.floor((2 * np.arange(32) + 0.5) * 16 / 63 + 0.5))
