"""Frames that no whole number of spike pixels fill, from cameras to weights and sharp frames."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from aligning import Listener, run_align
from training_sets import SMALL

from spikedeblur.cli import main
from spikedeblur.configs import load_config
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.data.samples import SampleError
from spikedeblur.pipeline.train.data.splits import Splits
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

SIZES = [
    ((250, 400), (480, 640)),
    ((396, 640), (720, 1280)),
    ((360, 448), (720, 1280)),
    ((256, 256), (96, 128)),
]


STRETCHED = "spikes of 25x40 are taken to see all of the 48x64 frames"


def recorded(folder: Path, frames: tuple[int, int], spikes: tuple[int, int]) -> Path:
    """Record a scene to train on and one to validate on, and return the data set's folder."""
    rig = Rig(spike_size=spikes, exposure=5, stride=1, spikes_per_frame=4)
    for split, length in (("train", 6), ("val", 5)):
        simulate(folder / "frames", scene_clips(split, 1, frames, length), rig, workers=1)
    return folder / "frames"


def voxelized(folder: Path, frames: tuple[int, int], spikes: tuple[int, int]) -> Path:
    """Record both scenes into a store."""
    manifest, store = folder / "align.json", folder / "spikes.zarr"
    how = AlignOptions(exposure=5, verify=False)
    root, log = recorded(folder, frames, spikes), folder / "align.txt"
    align(root, "x4k1000fps", log=log, manifest=manifest, options=how)
    voxelize_manifest(manifest, store, VoxelizeOptions(bins=8), Workers(count=1))
    return store


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings of 48x64 frames and 25x40 spikes, and their store."""
    folder = tmp_path_factory.mktemp("odd")
    voxelized(folder, (48, 64), (25, 40))
    return folder


def test_align_says_that_both_cameras_are_taken_to_see_the_same(odd: Path, tmp_path: Path) -> None:
    said = f"train/scenes/00000: {STRETCHED}"
    _, warnings = run_align(odd / "frames", "x4k1000fps", tmp_path / "log.txt", exposure=5)
    assert any(warning.startswith(said) for warning in warnings)
    calibration = tmp_path / "rig.yaml"
    calibration.write_text(
        "homography: [[1.92, 0, -6.4], [0, 1.92, 0]]\nspike_size: [25, 40]\nframe_size: [48, 64]\n"
    )
    _, warnings = run_align(
        *(odd / "frames", "x4k1000fps", tmp_path / "log.txt"), exposure=5, calibration=calibration
    )
    assert not any(STRETCHED in warning for warning in warnings)


def test_training_says_so_too_and_loading_processes_make_the_voxels(odd: Path, tmp_path) -> None:
    config = load_config(
        "configs/deblur/quickstart.yaml", (*SMALL, f"DATA.ROOT={odd / 'spikes.zarr'}")
    )
    listener, group = Listener(), Group(0, 1, torch.device("cpu"))
    session = Session.open(config, group, run=tmp_path, reporter=listener)
    assert [warning for warning in listener.warnings if STRETCHED in warning]
    assert session.training.ratio == 1
    splits = Splits(*(open_store(odd / "spikes.zarr", split) for split in ("train", "val")))
    packed, why = splits.packs(config, torch.device("cuda"))
    assert not packed
    assert "since light of train/scenes/00000 is resampled to the frame's grid there" in why
    data = config.DATA.model_copy(update={"SPIKES_ON_DEVICE": True})
    with pytest.raises(SampleError, match=r"expected frames a whole multiple of spikes.* to auto"):
        splits.packs(config.model_copy(update={"DATA": data}), torch.device("cuda"))


def restored(odd: Path, out: Path, *more: str) -> int:
    take = [
        *("--blur", str(odd / "frames/train_blurry_5/scenes/00000"), "--exposure", "5"),
        *("--spikes", str(odd / "frames/train_spike_2xds/scenes/00000/spike.dat")),
    ]
    return main(["restore", *take, "--fps", "1000", "--out", str(out), *more])


@pytest.mark.parametrize("method", ["path", "sdm", "tfp", "tfi"])
def test_every_method_restores_and_says_what_it_takes_for_granted(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    assert restored(odd, tmp_path / "out", "--method", method) == 0
    assert STRETCHED in " ".join(capsys.readouterr().err.split())
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_a_geometry_that_can_not_be_is_told_with_what_to_type(odd: Path, tmp_path, capsys) -> None:
    more = ("--method", "path", "--geometry", "40x25,bottom-up", "--force")
    assert restored(odd, tmp_path / "out", *more) == 1
    said = " ".join(re.sub("[│╭╰─╮╯]", " ", capsys.readouterr().err).split())
    assert "spikes of 40x25 and frames of 48x64 can't show the same field: one is turned" in said
    assert "or give --calibration to align or restore" in said
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize(("spikes", "frames"), SIZES, ids=lambda size: "x".join(map(str, size)))
def test_twenty_steps_lower_the_loss(spikes, frames, tmp_path: Path) -> None:
    store = voxelized(tmp_path, frames, spikes)
    options = (
        *(f"DATA.ROOT={store}", "DATA.CROP_SIZE=32", "MODEL.RESIDUAL_BASE=blur"),
        *("MODEL.SPIKE_MOTION=false", "MODEL.SPIKE_ENCODER.SEES_RESIDUES=false"),
        *("TRAIN.MAX_STEPS=20", "TRAIN.SCHEDULER.WARMUP_STEPS=2", "TRAIN.VAL_INTERVAL=20"),
        *("TRAIN.VAL_MAX_WINDOWS=1", "LOSS.VGG_PERCEPTUAL.WEIGHT=0"),
    )
    train(load_config("configs/deblur/quickstart.yaml", (*SMALL, *options)), tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
