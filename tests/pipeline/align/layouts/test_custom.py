"""Layout files: every key is checked, and errors name the file and the key."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_clips
import yaml
from aligning import run_align
from layout_files import CONTENT, changed, run, write
from layout_trees import GEOMETRY, custom_camera, custom_frames, x4k_recorded
from PIL import Image
from small_clips import record, texture, write_gray

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.align import AlignmentError, align
from spikedeblur.pipeline.align.check import check_manifest
from spikedeblur.pipeline.align.layouts import find_layout
from spikedeblur.pipeline.align.layouts.custom import read_layout
from spikedeblur.pipeline.spikes import parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"blur": None}, "blur: Field required"),
        ({"colour": 3}, "colour: no such key"),
        ({"name": "My Camera"}, "name: "),
        ({"name": "unified"}, "name: unified is a built-in"),
        ({"split": None}, "split: expected either this key or {split}"),
        ({"blur": "../{clip}/{frame}.png"}, "blur: expected a path below the root"),
        ({"blur": "/data/{clip}/{frame}.png"}, "blur: expected a path below the root"),
        ({"blur": "{clip}/{Frame}.png"}, "blur: expected words of lower-case"),
        ({"blur": "{clip}/0.png"}, "blur: expected {frame}"),
        ({"blur": "{clip}/{frame}.gif"}, "blur: expected an ending of .png"),
        ({"blur": "blur/{frame}.png", "spikes__files": "a.dat"}, "expected a word for the seq"),
        ({"sharp": "{other}/{frame}.png"}, "sharp: expected the same {words}"),
        ({"spikes__files": "{clip}/{run}.dat"}, "spikes.files: {run} is not in blur"),
        ({"spikes__files": "{clip}/{run}.dat"}, "spikedeblur convert 'rec_*.dat' spike.dat"),
        ({"spikes__files": "{clip}/rec_*.dat"}, "spikedeblur convert 'rec_*.dat' spike.dat"),
        ({"spikes__files": "{frame}.dat"}, "spikes.files: with {frame}, expected the same"),
        ({"spikes__files": "{clip}.raw"}, "files: expected a pattern that ends with .dat"),
        ({"spikes__geometry": "32x40"}, "spikes.geometry: "),
        ({"spikes__geometry": None}, "geometry: expected it beside rate"),
        ({"spikes__rate": -1}, "spikes.rate: "),
        ({"spikes__rate": "fast"}, "spikes.rate: "),
        ({"spikes__before": 3}, "before and after: expected with {frame}"),
        (
            {"spikes__files": "{clip}/{frame}.dat", "spikes__first": 0.5},
            "first: expected with one stream only",
        ),
        ({"frames__exposure": 2.5}, "frames.exposure: "),
        ({"spikes__geometri": "32x40"}, "spikes.geometri: no such key, did you mean geometry?"),
        ({"shrp": "a"}, "shrp: no such key, did you mean sharp?"),
        ({"frames": None}, "expected either frames or camera"),
        ({"frames": None, "camera": {"period": 0.01, "exposure": 0.02}}, "no more than period"),
        ({"frames": None, "camera": {"period": 0.01}}, "both period and exposure, or frame_rate"),
        ({"frames": None, "camera": {"period": 1, "shutter": 1}}, "either period and exposure, or"),
        ({"frames": None, "camera": {"first": 0.1}}, "first: expected with period only"),
        ({"frames": None, "camera": {}}, "expected frame_rate and shutter, times, or period"),
        ({"frames": None, "camera": {"frame_rate": 30}}, "camera: frame_rate 30 alone"),
        ({"frames": None, "camera": {"frame_rate": 30, "shutter": "1"}}, "at most 33.3333 ms"),
        ({"frames": None, "camera": {"frame_rate": 30, "shutter": "1 mm"}}, "s, ms, us or ns"),
        ({"frames": None, "camera": {"times": "{run}/t.csv"}}, "camera.times: {run} is no word"),
        ({"frames": None, "camera": {"times": "{frame}.csv"}}, "camera.times: {frame} is no word"),
        ({"frames": None, "camera": {"times": "../t.csv"}}, "expected a path below the root"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, keys, expected):
    with pytest.raises(AlignmentError) as error:
        find_layout(write(tmp_path, changed(**keys)))
    assert "mine.yaml: " in str(error.value)
    assert expected in str(error.value)


def test_the_examples_of_the_documentation_are_layout_files(repository, tmp_path):
    text = (repository / "docs/datasets.md").read_text()
    examples = re.findall(r"```yaml\n(name: .*?)```", text, re.DOTALL)
    assert [find_layout(write(tmp_path, example)).NAME for example in examples] == [
        "my-camera",
        "my-averages",
        "my-numbers",
    ]


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", ""])
def test_what_is_no_layout_file_is_refused(tmp_path, content):
    with pytest.raises(AlignmentError, match=r"mine\.yaml: expected a layout file"):
        find_layout(write(tmp_path, content))


def test_a_missing_layout_file_is_named():
    with pytest.raises(AlignmentError, match=r"nowhere\.yaml: can't read"):
        find_layout("nowhere.yaml")


def test_two_files_of_one_number_are_refused(tmp_path):
    for name in ("01.png", "1.png"):
        path = tmp_path / "data" / "c" / "blur" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(AlignmentError, match="both frame 1"):
        find_layout(write(tmp_path, CONTENT)).find(tmp_path / "data", None)


def test_files_that_belong_to_no_blurred_frame_are_named(tmp_path):
    tree = custom_frames(tmp_path / "data")
    extra = tmp_path / "data/spikes/train/park/lonely_7.dat"
    extra.touch()
    found = find_layout(tree.layout).find(tmp_path / "data", None)
    assert any(str(extra) in warning for sequence in found for warning in sequence.warnings)
    assert [sequence.scene for sequence in found] == ["park", "street"]


def test_a_layout_file_of_a_built_in_layout_gives_the_same_log(tmp_path):
    built_in = x4k_recorded(tmp_path / "data")
    content = {
        "name": "as-x4k",
        "blur": "{split}_blurry_9/{scene}/{clip}/{frame}.png",
        "sharp": "{split}_fullRGB/{scene}/{clip}/{frame}.png",
        "spikes": {"files": "{split}_spike_2xds/{scene}/{clip}/spike.dat"},
        "frames": {"fps": 1000, "exposure": 9},
    }
    run(tmp_path / "data", write(tmp_path, content))
    by_file = (tmp_path / "a.txt").read_bytes()
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.json").unlink()
    run(tmp_path / "data", built_in.layout, **built_in.options)
    assert (tmp_path / "a.txt").read_bytes() == by_file


def test_a_cameras_times_take_neither_fps_nor_exposure(tmp_path):
    tree = custom_camera(tmp_path / "data")
    with pytest.raises(AlignmentError, match="leave --fps out"):
        run(tmp_path / "data", tree.layout, fps=1000.0)
    with pytest.raises(AlignmentError, match="leave --exposure out"):
        run(tmp_path / "data", tree.layout, exposure=9)
    manifest, warnings = run(tmp_path / "data", tree.layout)
    assert not warnings
    assert (manifest.fps, manifest.exposure_frames) == (100.0, None)


def test_options_go_before_the_layout_file_and_side_files_too(tmp_path):
    tree = custom_camera(tmp_path / "data")
    manifest, _ = run(tmp_path / "data", tree.layout, gain=0.7)
    assert {(s.gain, s.rate) for s in manifest.sequences} == {(0.7, 4000.0)}
    side = SideFile(geometry=GEOMETRY, rate=4000, gain=0.6, first=0.002)
    for seq in ("train/walk", "val/run"):
        write_side_file(tmp_path / "data" / f"{seq}.dat", side)
    manifest, warnings = run(tmp_path / "data", tree.layout)
    assert {s.gain for s in manifest.sequences} == {0.6}
    assert all("side file contradicts" in warning for warning in warnings)
    assert len(warnings) == 2


def test_recordings_of_others_are_aligned_by_a_layout_file(realdata, tmp_path):
    root = tmp_path / "reds"
    root.mkdir()
    for part in (1, 2):
        dat = realdata / f"reds_spike/203_part{part}_key_id151.dat"
        shutil.copy(dat, root / f"part{part}.dat")
        packed = np.fromfile(dat, np.uint8)
        spikes = np.unpackbits(packed, bitorder="little").reshape(301, 250, 400)[:, ::-1]
        blurred = np.clip(255 / 0.6 * spikes.mean(axis=0), 0, 255).round().astype(np.uint8)
        for folder, picture in (
            ("blur", Image.fromarray(blurred)),
            ("sharp", Image.open(dat.with_suffix(".png"))),
        ):
            (root / f"part{part}" / folder).mkdir(parents=True)
            picture.save(root / f"part{part}" / folder / "0.png")
    content = {
        "name": "reds",
        "split": "test",
        "blur": "{part}/blur/{frame}.png",
        "sharp": "{part}/sharp/{frame}.png",
        "spikes": {"files": "{part}.dat", "geometry": "reds-spike", "rate": 20000, "gain": 0.6},
        "camera": {"period": 1, "exposure": 0.015},
    }
    manifest = align(
        root, write(tmp_path, content), log=tmp_path / "a.txt", manifest=tmp_path / "a.json"
    )
    for sequence in manifest.sequences:
        # The picture is of sample 150, the middle of 0 to 300.
        assert sequence.verification.confident
        assert abs(sequence.verification.lag_frames) < 1
    found = check_manifest(tmp_path / "a.json")
    assert found.wrong == 0
    assert all(s.gain_measured == pytest.approx(0.6, rel=0.01) for s in found.sequences)


CLOCKS = {
    "period": {"period": "10ms", "exposure": "8 ms", "first": 0.004},
    "rate": {"frame_rate": 100, "shutter": "8.25ms", "start": "4ms"},
    "table": {"times": "times_{split}.csv", "shutter": "8250us"},
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_cameras_clock_gives_the_same_log_however_it_is_stated(clock, tmp_path):
    tree = custom_camera(tmp_path / "data")
    run(tmp_path / "data", tree.layout)
    stated = (tmp_path / "a.txt").read_bytes()
    for name in ("a.txt", "a.json"):
        (tmp_path / name).unlink()
    content = yaml.safe_load(Path(tree.layout).read_text())
    content["camera"] = CLOCKS[clock]
    for split in ("train", "val"):
        (tmp_path / "data" / f"times_{split}.csv").write_text("start_ms\n4\n14\n24\n")
    run(tmp_path / "data", write(tmp_path, content))
    assert (tmp_path / "a.txt").read_bytes() == stated


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({"period": 0.01, "exposure": 1e-5}, "found 1 at 4000 Hz, by camera.exposure"),
        ({"frame_rate": 100, "shutter": "1us"}, "found 0 at 4000 Hz"),
        ({"times": "{split}.csv"}, r"(train|val)\.csv: can't read the table"),
        ({"frame_rate": 100, "shutter": "8ms", "start": "1s"}, "but the recording has"),
    ],
)
def test_a_clock_that_does_not_fit_the_recording_is_refused(camera, expected, tmp_path):
    tree = custom_camera(tmp_path / "data")
    content = yaml.safe_load(Path(tree.layout).read_text())
    content["camera"] = camera
    with pytest.raises(SpikeDeblurError, match=expected):
        run(tmp_path / "data", write(tmp_path, content))


def test_sharp_frames_on_another_axis_are_found_by_step_and_offset(tmp_path):
    tree = custom_frames(tmp_path / "data")
    folder = tmp_path / "data/train/park"
    for n in range(3):
        sharp = folder / f"a_{n}_sharp.png"
        sharp.rename(folder / f"a_{6 + 12 * n}_sharp.png")
        other = tmp_path / "data/val/street"
        (other / f"b_{n}_sharp.png").rename(other / f"b_{6 + 12 * n}_sharp.png")
    content = yaml.safe_load(Path(tree.layout).read_text())
    pattern = content["sharp"]
    content["sharp"] = {"files": pattern, "step": 12, "offset": 6}
    found = find_layout(write(tmp_path, content)).find(tmp_path / "data", None)
    assert [w.sharp.name for w in found[0].windows] == [
        f"a_{6 + 12 * n}_sharp.png" for n in range(3)
    ]
    content["sharp"]["offset"] = 5
    with pytest.raises(AlignmentError, match=r"correct sharp\.step and sharp\.offset in .*mine"):
        find_layout(write(tmp_path, content)).find(tmp_path / "data", None)


@pytest.mark.parametrize(("offset", "apart"), [(8, None), (12, 16), (6, -8)])
def test_sharp_frames_of_another_instant_are_named_on_an_axis_of_their_own(tmp_path, offset, apart):
    """Blurred frame n averages frames 8 n + 4 to 8 n + 12, so its sharp one is frame 8 n + 8."""
    folder = tmp_path / "data" / "c"
    (folder / "blur").mkdir(parents=True)
    spikes = record(partial(texture, speed=1.5), 4 * 56 + 1, 4, 0)
    write_spikes(folder / "spikes.dat", spikes, parse_geometry(small_clips.GEOMETRY))
    for n in range(6):
        during = [texture(i, speed=1.5) for i in range(8 * n + 4, 8 * n + 13)]
        write_gray(folder / "blur" / f"{n}.png", np.mean(during, axis=0))
    for i in range(56):
        write_gray(folder / "sharp" / f"{i}.png", texture(i, speed=1.5))
    layout = write(
        tmp_path,
        changed(
            spikes__geometry=small_clips.GEOMETRY,
            spikes__gain=0.5,
            sharp={"files": "{clip}/sharp/{frame}.png", "step": 8, "offset": offset},
            frames={"fps": 1000, "exposure": 9, "step": 8, "offset": 8},
        ),
    )
    manifest, warnings = run_align(tmp_path / "data", layout, tmp_path / "a.txt")
    found = manifest.sequences[0].verification
    if apart is None:
        assert (found.problem, warnings) == (None, [])
        return
    assert found.problem == "sharp apart"
    measured = re.search(r"sharp frames lie ([+-][\d.]+) samples", "".join(warnings))
    assert float(measured[1]) == pytest.approx(apart, abs=1.5)


def test_samples_too_many_say_which_key_takes_them(tmp_path):
    tree = custom_frames(tmp_path / "data")
    content = yaml.safe_load(Path(tree.layout).read_text())
    content["spikes"]["after"] = [0]
    layout = write(tmp_path, content)
    with pytest.raises(AlignmentError, match=r"found 41 = 36 \+ 5: set `spikes\.after: \[5\]` in"):
        run(tmp_path / "data", layout)


@pytest.mark.parametrize(
    "keys",
    [
        {"spikes__rate": 1e308},
        {"spikes__gain": 1e308},
        {"spikes__gain": 1e-308},
        {"spikes__before": 10**23},
        {"spikes__scale": 10**4000},
        {"spikes__first": 1e300},
        {"frames__exposure": 10**23},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_numbers_that_no_camera_has_are_refused(tmp_path, keys):
    path = write(tmp_path, changed(**keys))
    with pytest.raises(AlignmentError, match=r"mine\.yaml") as caught:
        read_layout(path, taken=frozenset())
    assert len(str(caught.value)) < 1000
