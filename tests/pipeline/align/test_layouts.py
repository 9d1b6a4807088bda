from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.align import AlignmentError
from spikedeblur.pipeline.align.layouts import LAYOUTS, detect
from spikedeblur.pipeline.align.layouts.contract import walk_folders


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        else:
            path.write_bytes(b"\x01")


X4K = (
    "val_blurry_33/Type1/c/0016.png",
    "val_blurry_33/Type1/c/0031.png",
    "val_spike_2xds/Type1/c/spike.dat",
    "val_fullRGB/Type1/c/0031.png",
)
UNIFIED = ("test/deep/s/blur/0016.png", "test/deep/s/spike/0016.dat", "test/deep/s/sharp/0016.png")
GOPRO = (
    "GOPRO_Large/test/GOPR0384_11_00/blur_gamma/000001.png",
    "GOPRO_Large/test/GOPR0384_11_00/sharp/000001.png",
    "GOPRO_Large_spike_seq/test/GOPR0384_11_00/spike/000001.dat",
)
TREES = {"x4k1000fps": X4K, "unified": UNIFIED, "spk-gopro": GOPRO}


@pytest.mark.parametrize("name", TREES)
def test_every_layout_keeps_the_contract(tmp_path, name):
    assert set(TREES) == set(LAYOUTS)
    _touch(tmp_path, *TREES[name])
    layout, reason = detect(tmp_path)
    assert name == layout.NAME
    assert reason.split("/")[0] in {path.split("/")[0] for path in TREES[name]}
    found = layout.find(tmp_path, None)
    assert [sequence.seq for sequence in found] == sorted(sequence.seq for sequence in found)
    for sequence in found:
        assert sequence.exposure % 2 == 1
        assert not sequence.warnings
        indices = [window.frame_index for window in sequence.windows]
        assert indices == sorted(set(indices))
        for window in sequence.windows:
            assert window.blur.is_file()
            assert window.spikes.is_file()
            assert window.sharp is None or window.sharp.stem == window.blur.stem


@pytest.mark.parametrize("name", TREES)
def test_blur_without_spikes_is_named(tmp_path, name):
    _touch(tmp_path, *TREES[name])
    for path in tmp_path.rglob("*.dat"):
        path.unlink()
    stem = "0016" if name != "spk-gopro" else "000001"
    with pytest.raises(AlignmentError, match=f"no spikes for {stem}"):
        LAYOUTS[name].find(tmp_path, None)


@pytest.mark.parametrize("name", TREES)
def test_empty_root_is_refused_with_what_it_needs(tmp_path, name):
    with pytest.raises(AlignmentError, match="expected"):
        LAYOUTS[name].find(tmp_path, None)


def test_auto_names_what_every_layout_needs_or_all_that_fit(tmp_path):
    with pytest.raises(AlignmentError, match="unified needs"):
        detect(tmp_path)
    _touch(tmp_path, *X4K, *UNIFIED)
    with pytest.raises(AlignmentError, match="more than one layout"):
        detect(tmp_path)


def test_pairs_go_by_number_not_by_position(tmp_path):
    _touch(tmp_path, *X4K)
    (sequence,) = LAYOUTS["x4k1000fps"].find(tmp_path, 33)
    assert sequence.seq == "val/Type1/c"
    assert [window.frame_index for window in sequence.windows] == [16, 31]
    assert sequence.windows[0].sharp is None
    assert sequence.windows[1].sharp == tmp_path / "val_fullRGB/Type1/c/0031.png"
    assert sequence.fps == 1000


def test_interpolated_names_in_sharp_frames_tell_for_the_blur(tmp_path):
    _touch(tmp_path, *X4K, "val_fullRGB/Type1/c/0031_002.png")
    (sequence,) = LAYOUTS["x4k1000fps"].find(tmp_path, 33)
    assert [window.frame_index for window in sequence.windows] == [64, 124]
    assert sequence.fps == 4000
    assert sequence.preset == "spk-x4k-val"


def test_per_window_spikes_are_paired_by_interpolated_name(tmp_path):
    _touch(
        tmp_path,
        "train_blurry_65/002/occ/0008.png",
        "train_blurry_65/002/occ/0011_002.png",
        "train_spike_2xds_65/002/occ/0008.dat",
        "train_spike_2xds_65/002/occ/0011_002.dat",
        "train_spike_2xds_65/002/occ/0015_001.dat",
    )
    (sequence,) = LAYOUTS["x4k1000fps"].find(tmp_path, 65)
    assert [window.frame_index for window in sequence.windows] == [32, 47]
    assert sequence.own_files
    assert sequence.windows[1].spikes.name == "0011_002.dat"
    assert any("0015_001.dat" in warning for warning in sequence.warnings)


def test_other_exposure_names_those_that_are_there(tmp_path):
    _touch(tmp_path, *X4K, "val_blurry_65/Type1/c/0032.png")
    with pytest.raises(AlignmentError, match="val_blurry_33, val_blurry_65"):
        LAYOUTS["x4k1000fps"].find(tmp_path, 17)


def test_two_spike_sizes_are_not_chosen_from(tmp_path):
    _touch(tmp_path, *X4K, "val_spike_4xds/Type1/c/spike.dat")
    with pytest.raises(AlignmentError, match="val_spike_2xds, val_spike_4xds"):
        LAYOUTS["x4k1000fps"].find(tmp_path, 33)


def test_leftovers_are_named(tmp_path):
    _touch(
        tmp_path,
        *X4K,
        "val_blurry_33/Type1/c/cover.png",
        "val_spike_2xds/Type1/lonely/spike.dat",
    )
    (sequence,) = LAYOUTS["x4k1000fps"].find(tmp_path, 33)
    assert any("cover.png" in warning for warning in sequence.warnings)
    assert any("lonely" in warning for warning in sequence.warnings)


def test_two_files_of_one_number_are_refused(tmp_path):
    _touch(tmp_path, *X4K, "val_blurry_33/Type1/c/31.png")
    with pytest.raises(AlignmentError, match="both frame 31"):
        LAYOUTS["x4k1000fps"].find(tmp_path, 33)


def test_unified_takes_one_stream_but_not_both_kinds(tmp_path):
    _touch(tmp_path, "test/s/blur/0016.png", "test/s/spike.dat")
    (sequence,) = LAYOUTS["unified"].find(tmp_path, 33)
    assert not sequence.own_files
    assert sequence.windows[0].spikes == tmp_path / "test/s/spike.dat"
    _touch(tmp_path, "test/s/spike/0016.dat")
    with pytest.raises(AlignmentError, match="keep one kind"):
        LAYOUTS["unified"].find(tmp_path, 33)


def test_gopro_exposure_comes_from_the_name(tmp_path):
    _touch(tmp_path, *GOPRO)
    (sequence,) = LAYOUTS["spk-gopro"].find(tmp_path, None)
    assert sequence.exposure == 11
    assert sequence.windows[0].centre == 11 + 5
    with pytest.raises(AlignmentError, match="exposure of 11"):
        LAYOUTS["spk-gopro"].find(tmp_path, 33)


def test_gopro_takes_one_kind_of_blur_for_all(tmp_path):
    _touch(tmp_path, *GOPRO, "GOPRO_Large/test/GOPR0384_11_00/blur/000001.png")
    (sequence,) = LAYOUTS["spk-gopro"].find(tmp_path, None)
    assert sequence.windows[0].blur.parent.name == "blur_gamma"
    _touch(
        tmp_path,
        "GOPRO_Large/test/GOPR0385_11_01/blur/000001.png",
        "GOPRO_Large_spike_seq/test/GOPR0385_11_01/spike/000001.dat",
    )
    first, second = LAYOUTS["spk-gopro"].find(tmp_path, None)
    assert first.windows[0].blur.parent.name == second.windows[0].blur.parent.name == "blur"


def test_loop_of_links_ends(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(list(walk_folders(tmp_path))) == 2
