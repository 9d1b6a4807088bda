"""The model in the package, as a user has it right after installation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import write_x4k1000fps

from spikedeblur.cli import main
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.methods.tiling import plan_tiles
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import folder_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.trained import load_trained
from spikedeblur.pipeline.weights.exported import describe_model
from spikedeblur.pipeline.weights.find import find_model

CLIP = "china/clip0"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph in motion, recorded: four exposures of 256x256."""
    folder = tmp_path_factory.mktemp("photographs")
    write_x4k1000fps(folder / "frames", splits=("test",), size=(256, 256), clips=1, length=79)
    simulate(folder / "rec", folder_clips(folder / "frames"), Rig())
    return folder / "rec"


def restore(recorded: Path, out: str, *more: str) -> dict[str, np.ndarray]:
    command = ["restore", "--blur", str(recorded / "test_blurry_33" / CLIP)]
    command += ["--spikes", str(recorded / "test_spike_2xds" / CLIP / "spike.dat")]
    command += ["--exposure", "33", "--fps", "1000", "--out", str(recorded / out), *more]
    assert main(command) == 0
    return {path.name: read_rgb(path) for path in sorted((recorded / out).glob("*.png"))}


def mean_psnr(frames: dict[str, np.ndarray], recorded: Path) -> float:
    sharp = recorded / "test_fullRGB" / CLIP
    return float(np.mean([psnr(frame, read_rgb(sharp / name)) for name, frame in frames.items()]))


def test_it_is_small_and_says_where_it_comes_from():
    path = find_model("small")
    assert path.stat().st_size <= 8e6
    facts = describe_model(path)
    assert facts["step"] > 0
    assert len(facts["data_sha256"]) == 64
    model, config = load_trained(path)
    assert (config.DATA.K, config.MODEL.TRUNK_SCALE) == (32, 2)
    assert not model.training


@pytest.mark.slow
def test_it_restores_a_photograph_better_than_division_does(recorded):
    blurred = {
        path.name: read_rgb(path)
        for path in sorted((recorded / "test_blurry_33" / CLIP).glob("*.png"))
    }
    model = mean_psnr(restore(recorded, "model", "--model", "small"), recorded)
    sdm = mean_psnr(restore(recorded, "sdm", "--method", "sdm"), recorded)
    assert model > sdm + 0.5
    assert model > mean_psnr(blurred, recorded) + 2


@pytest.mark.slow
def test_tiles_show_no_seams(recorded):
    whole = restore(recorded, "whole", "--model", "small", "--tile", "0")
    tiled = restore(recorded, "tiled", "--model", "small", "--tile", "128")
    one = restore(recorded, "one", "--model", "small", "--tile", "256")
    tiles = plan_tiles((256, 256), (128, 128), 128, multiple=16)
    edges = sorted({edge for tile in tiles for edge in tile.horizontal.span} - {0, 256})
    assert len(edges) == 3
    for name, frame in whole.items():
        np.testing.assert_array_equal(one[name], frame)
        difference = tiled[name].astype(float) - frame
        assert np.abs(difference).mean() < 0.5
        steps = np.abs(np.diff(tiled[name].astype(float), axis=1)).mean((0, 2))
        at_edges = steps[[edge - 1 for edge in edges]]
        elsewhere = np.delete(steps, [edge - 1 for edge in edges])
        assert at_edges.max() <= np.quantile(elsewhere, 0.999)


@pytest.mark.slow
def test_in_bf16_it_restores_the_same(recorded):
    model, config = load_trained(find_model("small"))
    frames = sorted((recorded / "test_blurry_33" / CLIP).glob("*.png"))[:3]
    blurred = np.stack([read_rgb(path)[:128, :128] for path in frames])
    rgb = torch.from_numpy(blurred).permute(0, 3, 1, 2)[None] / 255
    torch.manual_seed(0)
    voxels = torch.rand(1, 3, config.DATA.K, 64, 64) - 0.5
    with torch.no_grad():
        exact = model(rgb, voxels)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(rgb, voxels).float()
    assert -10 * torch.log10((low - exact).square().mean()) > 40
