from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.align import AlignmentError
from spikedeblur.pipeline.align.layouts import LAYOUTS, detect
from spikedeblur.pipeline.align.plan import with_clock
from spikedeblur.pipeline.frames.listing import walk_folders
from spikedeblur.pipeline.spikes import PRESETS


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
    assert sequence.preset is PRESETS["spk-x4k-val"]


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
    assert sequence.windows[0].blur.parent.name == sequence.blur_kind == "blur_gamma"
    (sequence,) = LAYOUTS["spk-gopro"].find(tmp_path, None, "blur")
    assert sequence.windows[0].blur.parent.name == sequence.blur_kind == "blur"
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


RAW = ("train/002/occ008.320/0000.png", "train/002/occ008.320/0001.png")


@pytest.mark.parametrize("names", [RAW, ("encoded_train/002/occ008.320.mp4",)])
def test_raw_high_speed_frames_are_sent_to_simulate(tmp_path, names):
    _touch(tmp_path, *names)
    for find in (detect, lambda root: LAYOUTS["x4k1000fps"].find(root, None)):
        with pytest.raises(AlignmentError, match=r"simulate OUT --frames") as error:
            find(tmp_path)
        assert names[0].removesuffix("/0000.png") in str(error.value)


def test_s_sdm_leaves_out_only_the_ends_without_spikes(tmp_path):
    for n in (6, 19, 32, 45):
        _touch(tmp_path, f"train/blur_data/GOPR0372_07_00/{n:06d}.png")
    for n in (19, 45):
        _touch(tmp_path, f"train/spike_data/GOPR0372_07_00/{n:06d}.dat")
    with pytest.raises(AlignmentError, match=r"no spikes for 000032\.png"):
        LAYOUTS["s-sdm"].find(tmp_path, None)
    _touch(tmp_path, "train/spike_data/GOPR0372_07_00/000032.dat")
    (sequence,) = LAYOUTS["s-sdm"].find(tmp_path, None)
    assert [window.frame_index for window in sequence.windows] == [19, 32, 45]
    assert sequence.scene == "GOPR0372"
    assert sequence.preset is PRESETS["s-sdm-gopro"]
    with pytest.raises(AlignmentError, match="97"):
        LAYOUTS["s-sdm"].find(tmp_path, 33)


def test_s_sdm_full_size_spikes_are_a_variant(tmp_path):
    _touch(
        tmp_path,
        "test/blur_data/GOPR0384_11_00/000019.png",
        "test/spike_data/GOPR0384_11_00/000019.dat",
        "test/spike_full/GOPR0384_11_00/000019.dat",
    )
    (low,) = LAYOUTS["s-sdm"].find(tmp_path, None)
    (full,) = LAYOUTS["s-sdm"].find(tmp_path, None, "spike_full")
    assert (low.spike_scale, full.spike_scale) == (4, 1)
    assert full.windows[0].spikes.parent.parent.name == "spike_full"
    assert full.preset is PRESETS["s-sdm-gopro-full"]


SPIKECV = "spike_w: 40\nspike_h: 32\nlabeled_data_suffix: None\n"


def test_spikecv_recordings_without_frames_are_left_out_by_name(tmp_path):
    _touch(tmp_path, "a.dat", "b.dat")
    (tmp_path / "config.yaml").write_text(SPIKECV)
    with pytest.raises(AlignmentError, match=r"spikes only.*a\.dat"):
        LAYOUTS["spikecv"].find(tmp_path, 9)
    _touch(tmp_path, "a/blur/0004.png")
    with pytest.raises(AlignmentError, match=r"--frame-rate 30 and --shutter 16ms, or.*--exposure"):
        with_clock(tmp_path, LAYOUTS["spikecv"].find(tmp_path, None), None)
    (sequence,) = LAYOUTS["spikecv"].find(tmp_path, 9)
    assert (sequence.seq, sequence.spike_shape, sequence.fps) == ("test/a", (32, 40), None)
    assert any("b.dat" in warning for warning in sequence.warnings)


def test_spikecv_config_of_a_data_set_below_counts_for_it_alone(tmp_path):
    _touch(tmp_path, "one/a.dat", "one/a/blur/0004.png", "two/b.dat", "two/b/blur/0004.png")
    (tmp_path / "one" / "config.yaml").write_text(SPIKECV)
    (tmp_path / "two" / "config.yaml").write_text("spike_w: 8\nspike_h: 4\n")
    found = LAYOUTS["spikecv"].find(tmp_path, 9)
    assert [(s.seq, s.spike_shape) for s in found] == [
        ("test/one/a", (32, 40)),
        ("test/two/b", (4, 8)),
    ]
    (tmp_path / "two" / "config.yaml").write_text("spike_w: wide\nspike_h: 4\n")
    with pytest.raises(AlignmentError, match=r"two/config\.yaml: spike_w"):
        LAYOUTS["spikecv"].find(tmp_path, 9)


def test_spikecv_is_recognised_by_the_two_sizes_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("spike_w: 8\nspike_h: 4\n")
    assert detect(tmp_path)[0] is LAYOUTS["spikecv"]
    (tmp_path / "config.yaml").write_text("spike_w: 8\n")
    with pytest.raises(AlignmentError, match="spikecv needs"):
        detect(tmp_path)


def test_unified_is_of_the_reference_s_exposure_unless_it_is_told(tmp_path):
    _touch(tmp_path, *UNIFIED)
    found = [LAYOUTS["unified"].find(tmp_path, told)[0].exposure for told in (None, 9)]
    assert found == [33, 9]


def test_unified_has_a_split_above_each_sequence(tmp_path):
    _touch(tmp_path, "blur/0016.png", "spike.dat", "test/blur/0016.png", "test/spike.dat", *UNIFIED)
    assert [s.seq for s in LAYOUTS["unified"].find(tmp_path, 9)] == ["test/deep/s"]


@pytest.mark.parametrize("averaged", ["06", "08"])
def test_an_even_number_of_averaged_frames_has_no_middle(tmp_path, averaged):
    _touch(tmp_path, *(name.replace("_11_", f"_{averaged}_") for name in GOPRO))
    with pytest.raises(AlignmentError, match="odd number of averaged"):
        LAYOUTS["spk-gopro"].find(tmp_path, None)


def test_a_clip_in_which_no_name_is_a_frame_s_is_left_out_by_name(tmp_path):
    _touch(tmp_path, *X4K, "val_blurry_33/Type1/other/cover.png")
    (sequence,) = LAYOUTS["x4k1000fps"].find(tmp_path, 33)
    assert sequence.seq == "val/Type1/c"
    assert any("no frame in it has a frame's name; left out" in w for w in sequence.warnings)


@pytest.mark.parametrize("layout", ["unified", "spikecv"])
def test_arrays_beside_spikes_are_named_because_they_may_be_spikes_too(tmp_path, layout):
    if layout == "unified":
        _touch(tmp_path, *UNIFIED, "test/deep/s/spike/0017.npz", "test/deep/s/events.H5")
    else:
        _touch(tmp_path, "a.dat", "a/blur/0004.png", "0017.npz", "a/events.H5")
        (tmp_path / "config.yaml").write_text(SPIKECV)
    (sequence,) = LAYOUTS[layout].find(tmp_path, 9)
    said = "".join(sequence.warnings)
    assert "0017.npz: not read by ending" in said
    assert "events.H5: not read by ending" in said
    assert "spikedeblur convert" in said
