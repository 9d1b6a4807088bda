"""The format's facts, held against recordings that others made."""

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.spikes import (
    SpikeGeometryError,
    parse_geometry,
    read_spikes,
    tfp,
)
from spikedeblur.pipeline.spikes.infer import infer_geometry, rank_geometries

RECORDINGS = ["203_part1_key_id151", "203_part2_key_id151"]


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("name", RECORDINGS)
def test_tfp_of_the_middle_matches_the_sharp_frame_upright_and_in_no_other_way(realdata, name):
    folder = realdata / "reds_spike"
    sharp = np.asarray(Image.open(folder / f"{name}.png").convert("L"), np.float32)
    spikes = read_spikes(folder / f"{name}.dat", parse_geometry("reds-spike"))
    assert spikes.shape == (301, 250, 400)
    picture = tfp(spikes[145:156])
    upright = correlation(picture, sharp)
    assert upright > 0.9
    for wrong in (picture[::-1], picture[:, ::-1], picture[::-1, ::-1]):
        assert correlation(wrong, sharp) < upright - 0.2


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_geometry_of_a_camera_file_is_found(realdata, name):
    guess = infer_geometry(realdata / "reds_spike" / f"{name}.dat")
    assert guess.spec == "250x400,bottom-up"
    assert guess.n_frames == 301


def test_a_real_camera_has_the_stated_rate(realdata):
    spikes = read_spikes(
        realdata / "uhsr" / "uhsr_224x224.dat", parse_geometry("224x224,bottom-up")
    )
    assert len(spikes) == 200
    assert spikes.mean() == pytest.approx(0.034, abs=0.0005)


def test_a_file_of_no_presets_size_is_not_guessed(realdata):
    path = realdata / "uhsr" / "uhsr_224x224.dat"
    assert rank_geometries(path) == []
    with pytest.raises(SpikeGeometryError, match="no preset"):
        infer_geometry(path)
