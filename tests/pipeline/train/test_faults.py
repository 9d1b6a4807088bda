"""Numbers that are none, checkpoints that rot, and writes that go wrong."""

from __future__ import annotations

import copy
import io
import json
import math
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from training_runs import assert_same_state, run_fit
from training_sets import Listener, MemorySequence, TinyNetwork, UnreadableSequence, tiny_config

from spikedeblur.pipeline.host.files import AsideFile
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.train.data.samples import SampleError
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.step import NonFiniteError
from spikedeblur.pipeline.trained import load_trained
from spikedeblur.pipeline.weights import checkpoint
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.exported import TrainedModelError
from spikedeblur.pipeline.weights.files import CheckpointError, checkpoint_path

ONE_BATCH = {"BATCH_SIZE": 4, "GRADIENT_ACCUMULATION_STEPS": 1}


class Breaks(TinyNetwork):
    """Gives NaN in some steps of training: counted from 0, a batch each."""

    def __init__(self, steps: set[int]) -> None:
        super().__init__()
        self.steps, self.calls = steps, 0

    def forward(self, rgb, voxels):
        step, self.calls = self.calls, self.calls + self.training
        out = super().forward(rgb, voxels)
        return out * math.nan if self.training and step in self.steps else out


def test_stopping_at_a_bad_step_keeps_all_steps_before_it(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 5: .*frames.*TRAIN\.NON_FINITE=skip"):
        run_fit(tmp_path, tiny_config(**ONE_BATCH), model=Breaks({4}))
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 4
    whole = tmp_path / "whole"
    torch.manual_seed(0)
    begun = Breaks({4})
    with pytest.raises(NonFiniteError):
        run_fit(whole, tiny_config(**ONE_BATCH), model=begun)
    begun.steps = set()
    run_fit(whole, tiny_config(**ONE_BATCH), model=begun, resume=True)
    torch.manual_seed(0)
    run_fit(tmp_path / "undisturbed", tiny_config(**ONE_BATCH), model=Breaks(set()))
    assert_same_state(
        read_checkpoint(checkpoint_path(whole, "last")),
        read_checkpoint(checkpoint_path(tmp_path / "undisturbed", "last")),
    )


def test_a_skipped_step_changes_nothing_and_is_told(tmp_path: Path) -> None:
    config = tiny_config(
        **ONE_BATCH, NON_FINITE="skip", MAX_STEPS=1, LOG_INTERVAL=1, VAL_INTERVAL=1
    )
    listener = Listener()
    model = Breaks({0})
    before = copy.deepcopy(model.state_dict())
    summary = run_fit(tmp_path, config, model=model, reporter=listener)
    assert summary.step == 1
    assert_same_state(model.state_dict(), before)
    assert_same_state(read_checkpoint(checkpoint_path(tmp_path, "last"))["ema"], before)
    assert any("step 1: the loss is nan" in note and "left out" in note for note in listener.notes)
    line = next(line for line in read_metrics(tmp_path) if line["kind"] == "train")
    assert (line["step"], line["loss"]) == (1, None)


def test_too_many_bad_steps_in_a_row_stop_even_a_run_that_skips(tmp_path: Path) -> None:
    config = tiny_config(**ONE_BATCH, NON_FINITE="skip", MAX_STEPS=40)
    with pytest.raises(NonFiniteError, match="step 13"):
        run_fit(tmp_path, config, model=Breaks(set(range(3, 40))))
    summary = run_fit(tmp_path / "few", config, model=Breaks({3, 5, *range(7, 15)}))
    assert summary.step == 40


def with_an_unreadable_one() -> tuple[list[MemorySequence], list[MemorySequence]]:
    bad = UnreadableSequence("train/bad")
    return [MemorySequence("train/a"), bad, MemorySequence("train/b")], [MemorySequence("val/d", 3)]


def test_an_unreadable_clip_stops_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="train/bad: window 1 is damaged"):
        run_fit(tmp_path, tiny_config(), data=with_an_unreadable_one())
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] < 12


@pytest.mark.parametrize(("workers", "cache"), [(0, 0), (2, 0), (0, 1)])
def test_an_unreadable_clip_is_left_out_and_named_where_that_is_asked_for(
    tmp_path: Path, workers: int, cache: float
) -> None:
    listener = Listener()
    config = tiny_config(ON_ERROR="skip", NUM_WORKERS=workers, DATA={"CACHE_SIZE_GB": cache})
    summary = run_fit(tmp_path, config, data=with_an_unreadable_one(), reporter=listener)
    assert summary.step == 12
    assert summary.unread == {"train/bad": "train/bad: window 1 is damaged"}
    assert sum("a clip is left out" in note for note in listener.notes) == 1
    (line,) = [line for line in read_metrics(tmp_path) if line["kind"] == "unread"]
    assert (line["seq"], line["error"]) == ("train/bad", "train/bad: window 1 is damaged")


def test_a_split_of_which_nothing_can_be_read_stops_even_a_run_that_skips(tmp_path: Path) -> None:
    bad = [UnreadableSequence(f"train/{i}", 2) for i in range(4)]
    with pytest.raises(SampleError, match="no clip can be read: train/"):
        run_fit(tmp_path, tiny_config(ON_ERROR="skip"), data=(bad, [MemorySequence("val/d", 3)]))


def test_a_validation_without_a_number_is_never_the_best(tmp_path: Path) -> None:
    class Blind(TinyNetwork):
        def forward(self, rgb, voxels):
            out = super().forward(rgb, voxels)
            return out if self.training else out * math.nan

    summary = run_fit(tmp_path, tiny_config(MAX_STEPS=4), model=Blind())
    assert summary.best_psnr is None
    assert not checkpoint_path(tmp_path, "best").exists()
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "val"]
    assert [(line["step"], line["psnr"]) for line in lines] == [(0, None), (4, None)]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path, share: float) -> None:
    """torch.load itself compares no checksum."""
    run_fit(tmp_path, tiny_config(MAX_STEPS=1))
    path = checkpoint_path(tmp_path, "last")
    path.write_bytes(with_a_flipped_bit(path.read_bytes(), share))
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        read_checkpoint(path)


def with_a_flipped_bit(content: bytes, share: float) -> bytes:
    """Flip one in the largest part of a checkpoint: the padding between parts says nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        part = max(archive.infolist(), key=lambda info: info.file_size)
    names = struct.unpack("<HH", content[part.header_offset + 26 :][:4])
    at = part.header_offset + 30 + sum(names) + int(share * part.file_size)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_checkpoint_that_does_not_read_back_is_not_called_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fit(tmp_path, tiny_config(MAX_STEPS=12))
    path = checkpoint_path(tmp_path, "last")
    before = path.read_bytes()
    state = read_checkpoint(path)

    def rot(value: object, target: AsideFile) -> None:
        whole = io.BytesIO()
        save(value, whole)
        target.write(with_a_flipped_bit(whole.getvalue(), 0.5))

    save = torch.save
    monkeypatch.setattr(checkpoint.torch, "save", rot)
    known = ("format", "schema_version", "version")
    with pytest.raises(CheckpointError, match="the one before is whole"):
        write_checkpoint(path, {k: v for k, v in state.items() if k not in known})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_a_flipped_bit_in_an_exported_model_is_noticed(tmp_path: Path) -> None:
    from spikedeblur.configs import load_config
    from spikedeblur.model import build_model
    from spikedeblur.pipeline.trained.model_file import write_model

    small = [
        "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
        "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
        "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
    ]
    config = load_config("configs/deblur/quickstart.yaml", small)
    path = tmp_path / "m.safetensors"
    write_model(path, build_model(config), config, {"step": 1})
    load_trained(path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainedModelError, match="damaged"):
        load_trained(path)
    size = int.from_bytes(content[:8], "little")
    assert "crc32" in json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["spikedeblur"])
