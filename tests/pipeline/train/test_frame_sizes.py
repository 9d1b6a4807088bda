"""The reference's sizes of frames and spikes, from cameras to weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

SIZES = [
    ((250, 400), (480, 640)),
    ((396, 640), (720, 1280)),
    ((360, 448), (720, 1280)),
    ((256, 256), (96, 128)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spikes", "frames"), SIZES, ids=lambda size: "x".join(map(str, size)))
def test_twenty_steps_lower_the_loss(spikes, frames, tmp_path: Path) -> None:
    rig = Rig(spike_size=spikes, exposure=5, stride=1, spikes_per_frame=4)
    for split, length in (("train", 6), ("val", 5)):
        simulate(tmp_path / "frames", scene_clips(split, 1, frames, length), rig, workers=1)
    manifest, store = tmp_path / "align.json", tmp_path / "spikes.zarr"
    how = AlignOptions(exposure=5, verify=False)
    log = tmp_path / "align.txt"
    align(tmp_path / "frames", "x4k1000fps", log=log, manifest=manifest, options=how)
    voxelize_manifest(manifest, store, VoxelizeOptions(bins=8), Workers(count=1))
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
