import numpy as np
import pytest

from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.spikes import parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.dat import SpikeFileError
from spikedeblur.pipeline.spikes.guess import LIKELY, guess_sizes


def recorded(height, width, samples=60, threshold=2.0):
    """Spikes of a smooth texture whose halves are not alike: (samples, height, width)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = 0.5 + 0.3 * np.sin(x / 7 + y / 11) * np.cos(y / 13) + 0.2 * np.sin(x * y / 900)
    camera = SpikeCamera(threshold=threshold)
    return np.stack(list(camera.record([light] * samples, np.random.default_rng(0))))


def written(path, spikes, words="bottom-up"):
    height, width = spikes.shape[1:]
    write_spikes(path, spikes, parse_geometry(f"{height}x{width},{words}"))
    return path


def specs(path):
    return [guess.geometry.describe() for guess in guess_sizes(path)]


@pytest.mark.parametrize("size", [(90, 160), (100, 64), (72, 120)])
def test_factors_of_the_size_alone_find_the_frames(tmp_path, size):
    path = written(tmp_path / "cut.dat", recorded(*size))
    best = guess_sizes(path)[0]
    assert best.geometry.describe() == "{}x{},bottom-up".format(*size)
    assert (best.source, best.n_frames) == ("size", 60)


def test_frames_in_few_spikes_are_found(tmp_path):
    path = written(tmp_path / "dim.dat", recorded(90, 160, samples=200, threshold=8.0))
    assert specs(path)[0] == "90x160,bottom-up"


@pytest.mark.parametrize("name", ["scene_50x75.dat", "75_50.dat", "w75h50_take3.dat"])
def test_numbers_in_the_name_give_frames_that_are_no_whole_bytes(tmp_path, name):
    path = written(tmp_path / name, recorded(50, 75))
    best = guess_sizes(path)[0]
    assert (best.source, best.geometry.describe()) == ("name", "50x75,bottom-up")


def test_padded_frames_are_found_by_the_name_of_their_folder(tmp_path):
    folder = tmp_path / "50x75"
    folder.mkdir()
    path = written(folder / "spike.dat", recorded(50, 75), "bottom-up,padded")
    assert specs(path)[0] == "50x75,bottom-up,padded"


def test_a_preset_comes_before_factors_of_the_same_size(tmp_path):
    best = guess_sizes(written(tmp_path / "s.dat", recorded(180, 320)))[0]
    assert best.source == "s-sdm-gopro"


def test_the_other_bit_order_and_bytes_are_found_too(tmp_path):
    spikes = recorded(90, 160)
    path = written(tmp_path / "m.dat", spikes, "bottom-up,msb-first")
    assert specs(path)[0] == "90x160,bottom-up,msb-first"
    spikes[:, ::-1].astype(np.uint8).tofile(tmp_path / "b.dat")
    best = guess_sizes(tmp_path / "b.dat")[0]
    assert (best.geometry.describe(), best.n_frames) == ("90x160,bottom-up", 60)


def test_parts_of_a_recording_are_each_whole_frames(tmp_path):
    spikes = recorded(90, 160)
    written(tmp_path / "rec_0.dat", spikes[:40])
    written(tmp_path / "rec_1.dat", spikes[40:])
    assert (specs(tmp_path)[0], guess_sizes(tmp_path)[0].n_frames) == ("90x160,bottom-up", 60)


def test_noise_is_no_picture_and_nothing_is_suggested(tmp_path):
    noise = (np.random.default_rng(0).random((60, 90, 160)) < 0.2).astype(np.uint8)
    path = written(tmp_path / "noise.dat", noise)
    assert all(guess.likeness < LIKELY for guess in guess_sizes(path))
    assert "none makes a picture of it" in inspect(path).facts["geometry"]
    assert inspect(path).geometry is None


def test_no_spikes_and_no_file_are_not_guessed(tmp_path):
    (tmp_path / "dark.dat").write_bytes(bytes(90 * 160 * 8))
    assert guess_sizes(tmp_path / "dark.dat") == []
    (tmp_path / "empty.dat").write_bytes(b"")
    with pytest.raises(SpikeFileError, match=r"empty\.dat"):
        guess_sizes(tmp_path / "empty.dat")


def test_names_full_of_numbers_are_no_obstacle(tmp_path):
    path = written(tmp_path / "2024_11_30_9999_9999_00_12_90_160.dat", recorded(90, 160))
    best = guess_sizes(path)[0]
    assert (best.source, best.geometry.describe()) == ("name", "90x160,bottom-up")
