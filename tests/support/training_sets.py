"""Small training sets and networks. Importable by name, so that workers can unpickle them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest


@dataclass
class MemorySequence:
    """A sequence whose pixels say where they are from.

    A voxel's value is a function of window and place; the frame pixels above it have the same.
    """

    seq: str = "train/a"
    length: int = 4
    voxel_shape: tuple[int, int] = (12, 16)
    ratio: int = 2
    bins: int = 4
    gain: float | None = 0.5
    has_sharp: bool = True
    is_remote: bool = False
    has_spikes: bool = False
    voxel_dtype: str = "uint8"
    frame_dtype: str = "uint8"
    reads: list[str] = field(default_factory=list)

    @property
    def windows_are_raw(self) -> bool:
        return self.voxel_dtype != "float32"

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.voxel_shape[0] * self.ratio, self.voxel_shape[1] * self.ratio

    @property
    def frame_index(self) -> np.ndarray:
        return 16 + 15 * np.arange(self.length)

    @property
    def t0(self) -> np.ndarray:
        return (self.frame_index - 16) / 1000

    @property
    def t1(self) -> np.ndarray:
        return (self.frame_index + 16) / 1000

    @property
    def samples(self) -> np.ndarray:
        return np.full(self.length, 257)

    def places(self, start: int, stop: int) -> np.ndarray:
        """(T, h, w) uint8, no two neighbours alike."""
        h, w = self.voxel_shape
        place = np.arange(h * w).reshape(h, w) * 7
        window = np.arange(start, stop)[:, None, None] * 31
        return ((place + window + 3 * len(self.seq)) % 251).astype(np.uint8)

    def voxels(self, start, stop, rows=None, columns=None) -> np.ndarray:
        self.reads.append(f"voxels {'whole' if rows is None else 'crop'}")
        y, x = slice(*(rows or (None,))), slice(*(columns or (None,)))
        places = self.places(start, stop)[:, None, y, x]
        voxels = places + np.arange(self.bins, dtype=np.uint8)[:, None, None]
        voxels = voxels.astype(self.voxel_dtype)
        return voxels if self.windows_are_raw else np.log1p(voxels)

    def blur(self, start, stop, rows=None, columns=None) -> np.ndarray:
        y, x = slice(*(rows or (None,))), slice(*(columns or (None,)))
        large = self.places(start, stop).repeat(self.ratio, 1).repeat(self.ratio, 2)
        return np.repeat(large[:, y, x, None], 3, axis=-1)

    def sharp(self, start, stop, rows=None, columns=None) -> np.ndarray:
        return 255 - self.blur(start, stop, rows, columns)

    def clip(self, start, stop, box=(None, None), small=(None, None)) -> tuple[np.ndarray, ...]:
        frames = (read(start, stop, *box) for read in (self.blur, self.sharp))
        return *frames, self.voxels(start, stop, *small)


class UnreadableSequence(MemorySequence):
    """Its second window can't be read."""

    def voxels(self, start, stop, rows=None, columns=None) -> np.ndarray:
        if start <= 1 < stop:
            raise StoreError(f"{self.seq}: window 1 is damaged")
        return super().voxels(start, stop, rows, columns)


class DeadlySequence(MemorySequence):
    """Whoever reads its second window is killed, as the system does for lack of memory."""

    def voxels(self, start, stop, rows=None, columns=None) -> np.ndarray:
        if start <= 1 < stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().voxels(start, stop, rows, columns)


class TinyNetwork(nn.Module):
    """Learns; has dropout, so that a wrong random state shows."""

    def __init__(self, bins: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.frames = nn.Conv2d(3, 8, 3, padding=1)
        self.spikes = nn.Conv2d(bins, 8, 1)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        b, t, _, h, w = rgb.shape
        spikes = self.spikes(voxels.flatten(0, 1))
        spikes = nn.functional.interpolate(spikes, (h, w))
        features = self.dropout(torch.relu(self.frames(rgb.flatten(0, 1)) + spikes))
        return self.out(features).unflatten(0, (b, t))


class Listener(Reporter):
    """Keeps notes; calls a function with steps done, steps in all and their note."""

    def __init__(self, on_progress: Callable[[int, int, str], object] = lambda *_: None) -> None:
        self.notes: list[str] = []
        self.on_progress = on_progress

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.on_progress(done, total, note)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def tiny_config(**train: object) -> Config:
    """A configuration for `MemorySequence` and `TinyNetwork`."""
    options = {
        "MAX_STEPS": 12,
        "BATCH_SIZE": 2,
        "NUM_WORKERS": 0,
        "GRADIENT_ACCUMULATION_STEPS": 2,
        "OPTIM": {"LR": 1e-2},
        "SCHEDULER": {"WARMUP_STEPS": 3},
        "EMA_DECAY": 0.9,
        "LOG_INTERVAL": 5,
        "VAL_INTERVAL": 4,
        "SAVE_INTERVAL": 6,
        "AMP": "off",
    }
    data = {"CLIP_LEN": 2, "CROP_SIZE": 16, "K": 4, "VAL_SPLIT": "val", "CACHE_SIZE_GB": 0}
    data.update(train.pop("DATA", {}))
    loss = {"VGG_PERCEPTUAL": {"WEIGHT": 0}}
    return Config.model_validate({"DATA": data, "TRAIN": options | train, "LOSS": loss})


def make_store(folder: Path, size: tuple[int, int] = (32, 48), *, verify: bool = False) -> Path:
    """Simulate, align and voxelize three scenes to train on and one to validate on."""
    for split, scenes in (("train", 3), ("val", 1)):
        clips = scene_clips(split, scenes, size, 65)
        simulate(folder / "frames", clips, Rig(), workers=1)
    manifest = folder / "align.json"
    log = folder / "align.txt"
    options = AlignOptions(verify=verify)
    align(folder / "frames", "x4k1000fps", log=log, manifest=manifest, options=options, workers=1)
    voxelize_manifest(manifest, folder / "spikes.zarr", VoxelizeOptions(bins=8), Workers(count=1))
    return folder / "spikes.zarr"


SMALL = (
    "DATA.K=8",
    "DATA.NUM_VOXEL_BINS=8",
    "DATA.CLIP_LEN=2",
    "DATA.CROP_SIZE=16",
    "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
    "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
    "TRAIN.LOG_INTERVAL=1",
    "TRAIN.AMP='off'",
)
"""Overrides of quickstart.yaml: the same network, 8 wide, on the store of `make_store`."""
