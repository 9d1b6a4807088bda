"""The cameras by which benchmarks record the same frames, and how `path` is judged on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.evaluate.scores import Evaluation
from spikedeblur.pipeline.sequences.unified import open_windows
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import folder_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.voxelize import VoxelizeOptions, voxelize_manifest
from spikedeblur.pipeline.voxelize.workers import Workers

from .figures import Figure

BINS = 32
WITHOUT_MODEL = ("blur", "sdm", "path")
NEAR = 0.2
"""Loss against what is no method's own work, in dB, that is not worth a word."""

Change = Callable[[np.ndarray, int], np.ndarray]
"""Changes planes (n, h, w), counts in bins or spikes, of which so many are an exposure."""


class Changed:
    """A sequence with other spikes, or without its gain."""

    def __init__(
        self, sequence: Any, change: Change = lambda planes, _: planes, *, gain_known: bool = True
    ) -> None:
        self._sequence, self._change = sequence, change
        self.gain = sequence.gain if gain_known else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)

    def voxels(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        """Return the changed counts (T, K, h, w)."""
        counts = self._sequence.voxels(start, stop, rows, columns)
        return np.stack([self._change(one, len(one)) for one in counts])

    def spikes_beside(self, window: int, beside: int, *crop: Any) -> tuple[np.ndarray, int]:
        """Return the changed spikes (samples, h, w), and how many are before the exposure."""
        spikes, before = self._sequence.spikes_beside(window, beside, *crop)
        return self._change(spikes, int(self._sequence.samples[window])), before


def later(share: float) -> Change:
    """Return what makes the spikes late by a share of the exposure; before the first: mirrored."""
    return lambda planes, exposure: planes[np.abs(np.arange(len(planes)) - round(share * exposure))]


def dead(share: float) -> Change:
    """Return what silences a share of the pixels, the same in every window."""

    def change(planes: np.ndarray, _: int) -> np.ndarray:
        alive = np.random.default_rng(0).random(planes.shape[-2:]) >= share
        return planes * alive.astype(planes.dtype)

    return change


@dataclass(frozen=True, slots=True)
class Camera:
    """What differs from the cameras of training."""

    what: str
    rig: Rig = Rig()  # noqa: RUF009  # frozen
    change: Change | None = None


CAMERAS = {
    "clean": Camera("the camera of training"),
    "threshold2": Camera("threshold x2", Rig(threshold=4.0)),
    "threshold4": Camera("threshold x4", Rig(threshold=8.0)),
    "half": Camera("half the rate", Rig(spikes_per_frame=4)),
    "dead": Camera("2 % dead pixels", change=dead(0.02)),
    "noise": Camera("1 % noise", Rig(noise=0.01)),
    "late": Camera("late by a tenth of the exposure", change=later(0.1)),
    "quarter": Camera("spikes of a quarter of the frame's size", Rig(spike_scale=4)),
}


def record(work: Path, name: str, rig: Rig, frames: str = "frames") -> Sequence[Any]:
    """Record the clips in `work / frames`, align and voxelize, and open the windows.

    One process does it all: clips are small, and workers would take longer to start.
    """
    folder = work / name
    simulate(folder, folder_clips(work / frames), rig, workers=1)
    log, manifest = work / f"{name}.txt", work / f"{name}.json"
    options = AlignOptions(verify=False, exposure=rig.exposure)
    align(folder, "x4k1000fps", log=log, manifest=manifest, options=options)
    bins = min(BINS, (rig.exposure - 1) * rig.spikes_per_frame + 1)
    store = work / f"{name}.zarr"
    voxelize_manifest(manifest, store, VoxelizeOptions(bins=bins), Workers(count=1))
    return open_windows(store, "test", bins=bins)


def recordings(work: Path, names: Iterable[str]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield cameras' names and what they record of `work / "frames"`; each rig records once."""
    recorded: dict[Rig, Sequence[Any]] = {}
    for name in names:
        camera = CAMERAS[name]
        if camera.rig not in recorded:
            recorded[camera.rig] = record(work, f"rig{len(recorded)}", camera.rig)
        sequences = recorded[camera.rig]
        change = camera.change
        yield name, sequences if change is None else [Changed(s, change) for s in sequences]


def told(evaluation: Evaluation) -> str:
    """Return PSNR and SSIM of each method, and SDM's window."""
    found = (f"{name} {s.psnr:.2f} / {s.ssim:.3f}" for name, s in evaluation.methods.items())
    return f"{', '.join(found)}; SDM of {evaluation.sdm_bins} bins"


def path_by_camera(
    work: Path,
    cameras: Iterable[str],
    bars: Mapping[str, float],
    none_below: Collection[str] = (),
) -> list[Figure]:
    """Judge `path` on the frames in `work / "frames"`; print as it goes.

    Args:
        work: folder to work in.
        cameras: names; the clean one comes first, named or not.
        bars: by camera, the most PSNR lost against the clean one in dB; for the clean one, the
            least PSNR.
        none_below: names of cameras by which no scene may be below SDM by more than `NEAR`.
    """
    figures: list[Figure] = []
    clean = 0.0
    for name, sequences in recordings(work, dict.fromkeys(["clean", *cameras])):
        what = CAMERAS[name].what
        evaluation = evaluate_sequences(sequences, WITHOUT_MODEL)
        path = evaluation.methods["path"].psnr
        over = {seq: s["path"].psnr - s["sdm"].psnr for seq, s in evaluation.sequences.items()}
        worst = min(over, key=lambda seq: over[seq])
        below = sum(value < -NEAR for value in over.values())
        detail = (
            f"{told(evaluation)}; worst scene {over[worst]:+.2f} over SDM, "
            f"{worst.removeprefix('test/')}; {below} below by more than {NEAR}"
        )
        if name == "clean":
            clean = path
            new = [Figure(f"path, {what}", path, "dB", bars.get(name), detail)]
        else:
            lost = clean - path
            new = [Figure(f"path, lost by {what}", lost, "dB", bars.get(name), detail, True)]
        if name in none_below:
            new.append(Figure(f"path, below SDM: {what}", below, "scenes", 0, at_most=True))
        figures += new
        for figure in new:
            print(figure.line(2), flush=True)
    return figures
