import io
import struct
import zipfile

import h5py
import numpy as np
import pytest

from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.spikes import (
    SideFile,
    parse_geometry,
    read_side_file,
    read_spikes,
    write_side_file,
    write_spikes,
)
from spikedeblur.pipeline.spikes.convert import ConvertError, Taken, convert


@pytest.fixture
def spikes():
    return (np.random.default_rng(0).random((300, 7, 11)) < 0.3).astype(np.uint8)


def read_back(path):
    return read_spikes(path, read_side_file(path).spike_geometry())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_an_array_becomes_a_bottom_up_file_with_its_side_file(tmp_path, spikes, dtype):
    np.save(tmp_path / "in.npy", spikes.astype(dtype))
    summary = convert(tmp_path / "in.npy", tmp_path / "out.dat", rate=20_000, gain=0.5)
    assert (summary.frames, summary.spikes) == (300, spikes.sum())
    side = read_side_file(tmp_path / "out.dat")
    assert (side.geometry, side.rate, side.gain) == ("7x11,bottom-up", 20_000, 0.5)
    np.testing.assert_array_equal(read_back(tmp_path / "out.dat"), spikes)


def test_arrays_stored_bottom_up_are_turned(tmp_path, spikes):
    np.save(tmp_path / "in.npy", spikes[:, ::-1])
    convert(tmp_path / "in.npy", tmp_path / "out.dat", geometry="7x11,bottom-up")
    np.testing.assert_array_equal(read_back(tmp_path / "out.dat"), spikes)


def test_npz_and_hdf5_with_several_arrays_need_a_key(tmp_path, spikes):
    np.savez(tmp_path / "in.npz", a=spikes, b=spikes[:3])
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["group/a"] = spikes
        file["other"] = [1, 2]
    for source, key in (("in.npz", "a"), ("in.h5", "group/a")):
        out = tmp_path / f"{source}.dat"
        with pytest.raises(ConvertError, match=rf"found .*{key}.*give one of them as --key"):
            convert(tmp_path / source, out)
        convert(tmp_path / source, out, taken=Taken(key=key))
        np.testing.assert_array_equal(read_back(out), spikes)


@pytest.mark.parametrize(
    "spec", ["7x11,top-down", "7x11,top-down,padded", "7x13,bottom-up,drop=0:2"]
)
def test_any_dat_becomes_the_common_form_and_keeps_what_is_recorded(tmp_path, spikes, spec):
    write_spikes(tmp_path / "in.dat", spikes, parse_geometry(spec))
    write_side_file(
        tmp_path / "in.dat", SideFile(geometry=spec, rate=40_000.0, gain=0.25, first=0.5)
    )
    convert(tmp_path / "in.dat", tmp_path / "out.dat", gain=0.3)
    np.testing.assert_array_equal(read_back(tmp_path / "out.dat")[:300], spikes)
    side = read_side_file(tmp_path / "out.dat")
    assert (side.rate, side.gain, side.first) == (40_000, 0.3, 0.5)


@pytest.mark.parametrize(
    "wrong", [{"rate": -1.0}, {"rate": float("nan")}, {"gain": 0.0}, {"gain": float("inf")}]
)
def test_an_impossible_rate_or_gain_is_refused_and_leaves_nothing(tmp_path, spikes, wrong):
    np.save(tmp_path / "in.npy", spikes)
    with pytest.raises(ConvertError, match=f"--{next(iter(wrong))} above 0"):
        convert(tmp_path / "in.npy", tmp_path / "out.dat", **wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_a_preset_brings_its_rate_and_gain_and_an_option_goes_first(tmp_path):
    write_spikes(tmp_path / "in.dat", np.ones((8, 360, 640), np.uint8), parse_geometry("spk-gopro"))
    for name, options, expected in (("a", {}, (1920, 0.5)), ("b", {"rate": 7.0}, (7, 0.5))):
        out = tmp_path / f"{name}.dat"
        convert(tmp_path / "in.dat", out, geometry="spk-gopro", **options)
        side = read_side_file(out)
        assert (side.geometry, side.rate, side.gain) == ("360x640,bottom-up", *expected)


def test_byte_planes_become_packed_bits(tmp_path, spikes):
    (tmp_path / "in.dat").write_bytes(spikes.tobytes())
    convert(tmp_path / "in.dat", tmp_path / "out.dat", geometry="7x11,top-down")
    assert (tmp_path / "out.dat").stat().st_size == -(-300 * 77 // 8)
    np.testing.assert_array_equal(read_back(tmp_path / "out.dat"), spikes)


def test_a_dat_without_geometry_is_not_guessed(tmp_path, spikes):
    write_spikes(tmp_path / "in.dat", spikes, parse_geometry("7x11,top-down"))
    with pytest.raises(ConvertError, match="--geometry"):
        convert(tmp_path / "in.dat", tmp_path / "out.dat")


def test_what_holds_no_spikes_is_refused_and_leaves_nothing(tmp_path, spikes):
    np.save(tmp_path / "flat.npy", spikes[0])
    np.save(tmp_path / "counts.npy", spikes * 3)
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, error in [
        ("flat", ConvertError),
        ("counts", ConvertError),
        ("pickle", ConvertError),
        ("text", ConvertError),
    ]:
        with pytest.raises(error):
            convert(tmp_path / f"{name}.npy", tmp_path / "out.dat")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_an_existing_output_and_the_input_itself_are_not_overwritten(tmp_path, spikes):
    np.save(tmp_path / "in.npy", spikes)
    (tmp_path / "out.dat").write_bytes(b"precious")
    with pytest.raises(OverwriteError, match="--overwrite"):
        convert(tmp_path / "in.npy", tmp_path / "out.dat")
    assert (tmp_path / "out.dat").read_bytes() == b"precious"
    write_spikes(tmp_path / "in.dat", spikes, parse_geometry("7x11,top-down"))
    with pytest.raises(ConvertError, match="the input itself"):
        convert(tmp_path / "in.dat", tmp_path / "in.dat", geometry="7x11,top-down", overwrite=True)


def test_an_npz_is_read_a_few_frames_at_a_time(tmp_path, monkeypatch):
    """A small one may hold gigabytes of zeros."""
    np.savez_compressed(tmp_path / "in.npz", spikes=np.zeros((600, 64, 64), np.uint8))
    monkeypatch.setattr("spikedeblur.pipeline.spikes.convert._AT_ONCE", 64 * 64 * 20)
    asked = []
    read = zipfile.ZipExtFile.read

    def watched(member, size=-1):
        asked.append(size)
        return read(member, size)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    assert convert(tmp_path / "in.npz", tmp_path / "out.dat").frames == 600
    assert max(asked) == 64 * 64
    assert min(asked) >= 0


def cut_member(path, spikes):
    whole = io.BytesIO()
    np.save(whole, spikes)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", whole.getvalue()[:-1000])


def flip_a_byte(path, spikes):
    np.savez(path, spikes)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def name_a_place_before_the_file(path, spikes):
    np.savez(path, spikes)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<I", content, end + 16, 2**31)  # where the directory begins
    path.write_bytes(content)


def of_objects(path, spikes):
    np.savez(path, np.array([[[None]]]))


def by_columns(path, spikes):
    np.savez(path, np.asfortranarray(spikes))


def no_zip(path, spikes):
    path.write_bytes(b"PK" + bytes(100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut_member, "ends in sample"),
        (flip_a_byte, "not a NumPy file"),
        (name_a_place_before_the_file, "not a NumPy file"),
        (of_objects, "Python objects"),
        (by_columns, "ascontiguousarray"),
        (no_zip, "not a NumPy file"),
    ],
)
def test_a_damaged_npz_is_refused_and_leaves_nothing(tmp_path, spikes, make, message):
    make(tmp_path / "in.npz", spikes)
    with pytest.raises(ConvertError, match=rf"in\.npz: .*{message}"):
        convert(tmp_path / "in.npz", tmp_path / "out.dat")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_hdf5_that_declares_more_than_it_holds_is_refused(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_dataset("a", (10, 100, 100), "uint8")
    with pytest.raises(ConvertError, match="lacks data"):
        convert(tmp_path / "empty.h5", tmp_path / "out.dat")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("a", (10, 60000, 60000), "uint8", chunks=(1, 100, 100))
        file["a"][0, 0, 0] = 1
    with pytest.raises(ConvertError, match="lacks data"):
        convert(tmp_path / "huge.h5", tmp_path / "out.dat")


def test_what_only_looks_like_hdf5_or_numpy_is_refused_by_name(tmp_path):
    (tmp_path / "in.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ConvertError, match=r"in\.h5: not a whole HDF5 file"):
        convert(tmp_path / "in.h5", tmp_path / "out.dat", rate=20_000)
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x07\x00" + bytes(100))
    with pytest.raises(ConvertError, match=r"in\.npz: .*NumPy array, found its version \(7, 0\)"):
        convert(tmp_path / "in.npz", tmp_path / "out.dat", rate=20_000)


def test_values_that_are_no_spikes_are_refused_with_the_name_of_the_file(tmp_path, spikes):
    spikes[250, 3, 3] = 2
    np.save(tmp_path / "in.npy", spikes)
    with pytest.raises(ConvertError, match=r"in\.npy: expected spikes of 0 and 1 only"):
        convert(tmp_path / "in.npy", tmp_path / "out.dat", rate=20_000)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_the_sensor_that_a_recording_names_is_named_from_its_new_place(tmp_path, spikes):
    geometry = "7x11,top-down"
    source = tmp_path / "a/b/in.dat"
    write_spikes(source, spikes, parse_geometry(geometry))
    write_side_file(source, SideFile(geometry=geometry, sensor="../sensor.zarr"))
    convert(source, tmp_path / "out.dat")
    assert read_side_file(tmp_path / "out.dat").sensor == "a/sensor.zarr"
    convert(source, tmp_path / "other.dat", geometry=f"{geometry},bayer=RGGB")
    assert read_side_file(tmp_path / "other.dat").sensor is None


def test_a_sensor_of_another_size_is_not_carried_in_silence(tmp_path, spikes):
    source = tmp_path / "in.dat"
    write_spikes(source, spikes, parse_geometry("7x11,top-down"))
    write_side_file(source, SideFile(geometry="11x7,top-down", sensor="sensor.zarr"))
    with pytest.raises(ConvertError, match=r"in\.dat: its side file .* 11x7 .* reads 7x11"):
        convert(source, tmp_path / "out.dat", geometry="7x11,top-down")
    assert not (tmp_path / "out.dat").exists()
