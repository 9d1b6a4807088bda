"""A rig of odd sizes and unequal pixels goes through all commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_sets import SMALL

from spikedeblur.cli import main
from spikedeblur.pipeline.adapt import job
from spikedeblur.pipeline.calibrate.sensor_file import read_sensor
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.view import open_clips
from spikedeblur.pipeline.weights.exported import describe_model

CONFIG = Path("configs/deblur/quickstart.yaml").absolute()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_takes_odd_sizes_and_a_sensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "TRUSTS", (1.0,))
    monkeypatch.setattr(job, "TRIALS", 2)

    def run(command: str, *words: str) -> None:
        assert main([*command.split(), *words]) == 0, command

    pixels = "--spike-size 25x40 --gain-spread 0.08 --dark-rate 0.002 --hot 20 --instants 3"
    for split in ("train", "val", "test"):
        run(f"simulate rig --scenes 1 --split {split} --size 48x64 --length 49 {pixels}")
    kinds = (f"--{kind} rig/calibration/{kind}/spike.dat" for kind in ("dark", "flat"))
    run(f"calibrate {' '.join(kinds)} --out sensor.zarr")
    run("align rig --layout x4k1000fps --sensor sensor.zarr --instants 3 --log rig.txt")
    run("check rig.json")
    run("voxelize rig.json rig.zarr --bins 8 --workers 1")
    small = [f"--set={key}" for key in SMALL]
    run(
        f"train --config {CONFIG} --set DATA.ROOT=rig.zarr --run run --set TRAIN.MAX_STEPS=5",
        *small,
    )
    run("evaluate rig.zarr --run run --instants 3 --json run/evaluation.json")
    run("report run")
    run("runs run")
    one = "--blur rig/test_blurry_33/scenes/00000 --spikes rig/test_spike_2xds/scenes/00000"
    one += "/spike.dat --log rig.txt"
    run(f"adapt mine.safetensors --run run {one} --steps 2")
    run(f"restore --model mine.safetensors {one} --from 0s --to 34ms --out one")
    run("restore --method path --manifest rig.json --from 0s --to 34ms --out all")
    run("export run run.safetensors")
    run("evaluate rig.zarr --model run.safetensors --methods blur,sdm,model")

    found = read_sensor("sensor.zarr").sha256
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    assert evaluation["sensor_sha256"] == found
    assert describe_model("mine.safetensors")["adapt"]["sensor_sha256"] == [found]
    for folder in ("one", "all/test/scenes/00000"):
        record = json.loads(Path(folder, "restore.json").read_text())
        assert record["inputs"]["sensor_sha256"] == found
        assert len(list_images(Path(folder))) == 1
    facts = inspect(Path("rig.json")).facts, inspect(Path("rig.zarr")).facts
    assert [each["sensor"] for each in facts] == ["../sensor.zarr", "in 3 sequences"]
    assert len(open_clips(Path("rig.zarr"))) == 3
