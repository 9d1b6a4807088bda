"""What a restoration keeps of the one before, what it refuses, and the record that tells."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from short_recordings import GEOMETRY, restore

from spikedeblur.configs.schema import Config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.frames.images import read_rgb, write_png
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.restore.record import RECORD


def test_record_says_what_the_frames_were_made_from(recording) -> None:
    restore(recording)
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["complete"] is True
    assert record["version"]
    inputs = record["inputs"]
    assert inputs["method"] == "sdm"
    assert (inputs["rate"], inputs["gain"], inputs["first"]) == (8000.0, 0.5, 0.0)
    assert inputs["geometry"] == GEOMETRY
    assert inputs["frames"]["0031"]["t0"] == pytest.approx(0.015)
    assert len(inputs["frames"]["0031"]["blur_sha256"]) == 64


def test_a_stopped_run_goes_on_and_a_finished_one_does_nothing(recording) -> None:
    class Stop(Reporter):
        def progress(self, done: int, total: int, note: str = "") -> None:
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(recording, reporter=Stop())
    record = json.loads((recording / "out" / RECORD).read_text())
    assert record["complete"] is False
    first = (recording / "out" / "0016.png").stat().st_mtime_ns
    summary = restore(recording)
    assert (summary.restored, summary.kept) == (1, 2)
    assert (recording / "out" / "0016.png").stat().st_mtime_ns == first
    again = restore(recording)
    assert (again.restored, again.kept) == (0, 3)


def test_frames_of_other_inputs_are_neither_kept_nor_replaced(recording) -> None:
    restore(recording)
    before = (recording / "out" / "0031.png").read_bytes()
    with pytest.raises(job.RestoreError, match=r"other inputs \(method"):
        restore(recording, method="tfp")
    blurred = recording / "test_blurry_33/Type1/clip/0031.png"
    write_png(blurred, 255 - read_rgb(blurred))
    with pytest.raises(job.RestoreError, match=r"other inputs \(frames\)"):
        restore(recording, force=True)
    assert (recording / "out" / "0031.png").read_bytes() == before
    restore(recording, overwrite=True, force=True)
    assert (recording / "out" / "0031.png").read_bytes() != before


def test_overwriting_leaves_no_frame_of_the_former_run(recording) -> None:
    restore(recording)
    (recording / "test_blurry_33/Type1/clip/0046.png").unlink()
    restore(recording, overwrite=True)
    assert sorted(p.name for p in (recording / "out").iterdir()) == [
        "0016.png",
        "0031.png",
        RECORD,
    ]


def test_foreign_files_are_not_replaced(recording) -> None:
    write_png(recording / "out" / "0031.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(job.RestoreError, match="found another file"):
        restore(recording)
    with pytest.raises(job.RestoreError, match="choose another --out"):
        restore(recording, "test_blurry_33/Type1/clip")


def test_a_record_can_not_name_files_elsewhere(recording) -> None:
    restore(recording)
    path = recording / "out" / RECORD
    record = json.loads(path.read_text())
    record["inputs"]["frames"]["../precious"] = {}
    path.write_text(json.dumps(record))
    write_png(recording / "precious.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SpikeDeblurError, match="inside"):
        restore(recording, overwrite=True)
    assert (recording / "precious.png").exists()


class Passing(torch.nn.Module):
    """A stand-in for the network: the blurred frame."""

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        assert voxels.shape[2] == 32
        return rgb


def test_a_model_restores_clips_and_resumes(recording, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"DATA": {"CLIP_LEN": 2}})
    monkeypatch.setattr(
        job.Restoring,
        "open",
        lambda how, run: ModelMethod(Passing(), config, tile=how.tile, device="cpu"),
    )
    best = recording / "run" / "checkpoints" / "best.pt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights")
    summary = restore(recording, run=recording / "run", tile=32)
    assert (summary.method, summary.restored, summary.tile) == ("model", 3, 32)
    blurred = read_rgb(recording / "test_blurry_33/Type1/clip/0031.png")
    np.testing.assert_array_equal(read_rgb(recording / "out" / "0031.png"), blurred)
    (recording / "out" / "0046.png").unlink()
    # Without being told, a restoration that goes on keeps the tile it began with.
    again = restore(recording, run=recording / "run")
    assert (again.restored, again.tile) == (1, 32)
    best.write_bytes(b"other weights")
    with pytest.raises(job.RestoreError, match="model_sha256"):
        restore(recording, run=recording / "run", tile=32)
