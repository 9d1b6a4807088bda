"""The whole mission on real photographs in motion, by the commands and their documented options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photographs import write_x4k1000fps
from PIL import Image

from spikedeblur.pipeline.align import read_alignment_log

SPLITS = ("train", "val", "test")


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "spikedeblur", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A folder with photographs in motion, simulated, aligned and voxelized."""
    folder = tmp_path_factory.mktemp("chain")
    write_x4k1000fps(folder / "frames", size=(96, 128), length=65)
    run(folder, "simulate", "rec", "--frames", "frames")
    run(folder, "align", "rec", "--layout", "x4k1000fps")
    run(folder, "voxelize", "outputs/logs/align_x4k1000fps.json", "store.zarr")
    return folder


@pytest.mark.slow
def test_the_log_has_every_window_of_every_split_in_the_references_form(recorded):
    path = recorded / "outputs/logs/align_x4k1000fps.txt"
    lines = path.read_text().splitlines()
    assert lines[0] == "frame_idx,t0,t1,event_count,seq"
    log = read_alignment_log(path)
    assert {seq.split("/")[0] for seq, _ in log} == set(SPLITS)
    row = log["test/china/clip0", 31]
    assert (row.t0, row.t1) == (0.015, 0.047)
    assert lines[1].startswith("16,0.000000,0.032000,")
    assert len(log) == 3 * 2 * 3  # splits, photographs, exposures


@pytest.mark.slow
def test_every_sequences_lag_is_proved_by_its_images(recorded):
    manifest = json.loads((recorded / "outputs/logs/align_x4k1000fps.json").read_text())
    for sequence in manifest["sequences"]:
        found = sequence["verification"]
        assert found["confident"], sequence["seq"]
        assert abs(found["lag_seconds"]) < 0.001, sequence["seq"]


@pytest.mark.slow
def test_a_model_is_trained_evaluated_and_restores_with_documented_options_only(recorded):
    config = ("--config", "configs/deblur/quickstart.yaml")
    sets = ("--set", "DATA.ROOT=store.zarr", "--set", "TRAIN.EPOCHS=1")
    run(recorded, "train", *config, *sets)
    table = run(
        recorded, "evaluate", "store.zarr", "--run", "outputs/quickstart", "--json", "e.json"
    )
    assert "test/china/clip0" in table
    result = json.loads((recorded / "e.json").read_text())
    assert list(result["methods"]) == ["blur", "tfp", "tfi", "sdm", "path", "model"]
    assert set(result["sequences"]) == {"test/china/clip0", "test/flower/clip0"}
    # At 192x192, even the true half-size luminance, divided without noise, gains only 2.2 dB.
    assert result["methods"]["sdm"]["psnr"] > result["methods"]["blur"]["psnr"] + 1

    inputs = ("--blur", "rec/test_blurry_33/china/clip0")
    spikes = ("--spikes", "rec/test_spike_2xds/china/clip0/spike.dat")
    log = ("--log", "outputs/logs/align_x4k1000fps.txt")
    exposure = ("--exposure", "33", "--fps", "1000")
    run(recorded, "restore", "--run", "outputs/quickstart", *inputs, *spikes, *log, "--out", "m")
    run(recorded, "restore", "--method", "sdm", *inputs, *spikes, *exposure, "--out", "s")
    truth = np.asarray(Image.open(recorded / "rec/test_fullRGB/china/clip0/0031.png"), float)
    blurred = np.asarray(Image.open(recorded / "rec/test_blurry_33/china/clip0/0031.png"), float)
    for out in ("m", "s"):
        assert sorted(p.name for p in (recorded / out).glob("*.png")) == [
            "0016.png",
            "0031.png",
            "0046.png",
        ]
    restored = np.asarray(Image.open(recorded / "s/0031.png"), float)
    assert np.mean((restored - truth) ** 2) < 0.8 * np.mean((blurred - truth) ** 2)


@pytest.mark.slow
def test_a_second_run_of_each_stage_finds_nothing_to_do(recorded):
    again = run(recorded, "simulate", "rec", "--frames", "frames", "--json")
    assert json.loads(again)["written"] == 0
    files = sorted((recorded / "outputs/logs").iterdir())
    before = [file.read_bytes() for file in files]
    run(recorded, "align", "rec", "--layout", "x4k1000fps")
    assert [file.read_bytes() for file in files] == before
    kept = json.loads(
        run(recorded, "voxelize", "outputs/logs/align_x4k1000fps.json", "store.zarr", "--json")
    )
    assert kept["windows"] == 0 or kept.get("written", 0) == 0


@pytest.mark.slow
def test_the_quickstart_recipe_learns_from_spikes_in_few_steps(recorded):
    folder = recorded
    run(folder, "simulate", "scenes", "--scenes", "24", "--size", "96x96")
    run(folder, "simulate", "scenes", "--scenes", "3", "--size", "96x96", "--split", "val")
    run(folder, "align", "scenes", "--log", "outputs/logs/scenes.txt")
    run(folder, "voxelize", "outputs/logs/scenes.json", "scenes.zarr")
    sets = ("--set", "DATA.ROOT=scenes.zarr", "--set", "TRAIN.MAX_STEPS=40")
    config = ("--config", "configs/deblur/quickstart.yaml")
    run(folder, "train", *config, *sets, "--run", "outputs/short")
    lines = (folder / "outputs/short/metrics.jsonl").read_text().splitlines()
    last = [record for line in lines if (record := json.loads(line))["kind"] == "val"][-1]
    assert last["psnr"] > last["psnr_blur"] + 2
