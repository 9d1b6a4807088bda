"""Batches of packed spikes against those of voxels: `python -m tests.benchmarks.device_light`.

Prints the bytes that a batch copies to the device for its spikes, the CPU time that a loading
process takes for a sample, both ways in turns, and what the device takes to make the voxels of a
batch. On a GPU it also says whether its numbers are those of a CPU.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

from spikedeblur.configs.schema import NormConfig
from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.host.device_memory import memory_taken
from spikedeblur.pipeline.sequences import WindowSequence, open_store
from spikedeblur.pipeline.sequences.light import beside_exposure, seen_by
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.voxels import make_voxels
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

from .device import seconds
from .figures import fastest

CLIP, CROP, BATCH = 5, 256, 4
NORMS = {"light": NormConfig(MODE="relative"), "counts": NormConfig()}


def make_store(folder: Path, spikes_per_frame: int) -> Path:
    """Simulate, align and voxelize two scenes of 129 frames; windows of 33 frames, 15 apart."""
    clips = scene_clips("train", 2, (288, 384), 129)
    simulate(folder / "frames", clips, Rig(spikes_per_frame=spikes_per_frame), workers=1)
    manifest = folder / "align.json"
    align(folder / "frames", "x4k1000fps", log=folder / "log.txt", manifest=manifest, workers=1)
    voxelize_manifest(manifest, folder / "s.zarr", VoxelizeOptions(bins=32), Workers(count=1))
    return folder / "s.zarr"


def both_ways(sequences: list[WindowSequence], norm: NormConfig) -> tuple[ClipSamples, ClipSamples]:
    """Return what cuts samples with voxels, and with packed spikes."""
    index = ClipIndex.every_start([sequence.length for sequence in sequences], CLIP)
    return (
        ClipSamples(seen_by(norm, sequences), index, crop_size=CROP, augment=True),
        ClipSamples(sequences, index, crop_size=CROP, augment=True, beside=beside_exposure(norm)),
    )


def batch_of(samples: ClipSamples, epoch: int = 0) -> dict[str, Tensor]:
    """Return a batch of the first clips."""
    return collate([samples.sample(epoch, clip) for clip in range(BATCH)])


def steps_apart(found: Tensor, expected: Tensor) -> int:
    """Return by how many steps of float16 two tensors differ at most; both are at least 0."""
    pair = (x.cpu().contiguous().view(torch.int16).int() for x in (found, expected))
    return int(torch.sub(*pair).abs().max())


def measure(name: str, sequences: list[WindowSequence], device: torch.device, turns: int) -> None:
    """Print the lines of one store."""
    for what, norm in NORMS.items():
        ordinary, packed = both_ways(sequences, norm)
        batch, other = batch_of(ordinary), batch_of(packed)
        before, now = batch["voxels"].nbytes, other["spikes"].nbytes
        times = fastest(
            {"voxels": lambda: batch_of(ordinary), "packed": lambda: batch_of(packed)},  # noqa: B023
            turns,
        )
        one, two = (1e3 * times[way] / BATCH for way in ("voxels", "packed"))
        print(
            f"{name}, {what}: {before / 1e6:.2f} MB a batch, packed {now / 1e6:.2f} "
            f"({now / before:.3f}); loading {one:.2f} ms a sample, packed {two:.2f} "
            f"({two / one:.3f})"
        )
        run = lambda: make_voxels(other, device, light=what == "light")  # noqa: B023, E731
        made = run()
        taken = memory_taken(run, device) / 1e6
        best = 1e3 * seconds(run, device, turns)
        if what == "light":
            agree = f"{steps_apart(made, batch['voxels'])} steps of float16 from NumPy's at most"
        else:
            agree = f"equal: {torch.equal(made.cpu().int(), batch['voxels'].int())}"
        print(
            f"{'':{len(name)}}  {device.type}: {best:.1f} ms and {taken:.0f} MB to make a batch's "
            f"{what} of {BATCH} clips of {CLIP} windows; {agree}",
            flush=True,
        )


def main() -> None:
    """Make the stores, measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.device_light", description=__doc__
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for spikes_per_frame in (8, 1):
        with tempfile.TemporaryDirectory() as folder:
            sequences = open_store(make_store(Path(folder), spikes_per_frame))
            name = f"{sequences[0].samples[0]} samples a window"
            measure(name, sequences, torch.device(options.device), options.turns)


if __name__ == "__main__":
    main()
