"""One clip recorded by both cameras, and where its files go."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ... import __version__
from ..frames.images import to_bytes, write_png
from ..frames.srgb import decode_srgb, encode_srgb
from ..host.files import atomic_write, sweep, write_text
from ..spikes.camera import luminance
from ..spikes.dat import pack_spikes
from ..spikes.geometry import SpikeGeometry
from ..spikes.sidefile import SideFile, side_file_path, write_side_file
from .clips import SourceClip, rng
from .rig import SAMPLES_AT_ONCE, Rig

UNFINISHED = ".unfinished"
"""File beside the spikes of a clip that is being written."""


def record_clip(out: Path, clip: SourceClip, rig: Rig) -> int:
    """Record one clip with both cameras; returns the bytes of its spike file."""
    blurry, sharp = picture_folders(out, clip.seq, rig)
    spike_path = dat_path(out, clip.seq, rig)
    unfinished = spike_path.with_name(UNFINISHED)
    write_text(unfinished, "")
    side_file_path(spike_path).unlink(missing_ok=True)
    sweep(spike_path.parent)
    spike_path.unlink(missing_ok=True)
    for folder in (blurry, sharp):
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)

    def light() -> Iterator[npt.NDArray[np.float32]]:
        """Yield what the spike camera sees, writing the colour camera's frames on the way."""
        half = rig.exposure // 2
        centres = rig.centres(clip.n_frames)
        sums: dict[int, npt.NDArray[np.float64]] = {}
        for i, frame in enumerate(clip.render(rig.seed)):
            values = decode_srgb(frame) if rig.linear_light else frame
            for centre in centres:
                if abs(i - centre) <= half:
                    total = sums.setdefault(centre, np.zeros(frame.shape, np.float64))
                    total += values
                if i == centre:
                    write_png(sharp / f"{clip.first + centre:04d}.png", frame)
                if i == centre + half:
                    mean = sums.pop(centre) / rig.exposure
                    blurred = encode_srgb(mean) if rig.linear_light else to_bytes(mean)
                    write_png(blurry / f"{clip.first + centre:04d}.png", blurred)
            yield area_mean(luminance(values), rig.spike_scale)

    camera, clock = rig.camera(), rig.clock(clip.first)
    samples = _interpolate(light(), rig.spikes_per_frame)
    spikes = camera.record(samples, rng(rig.seed, clip.seq, "camera"))
    geometry: SpikeGeometry | None = None
    with atomic_write(spike_path) as file:
        while block := list(itertools.islice(spikes, SAMPLES_AT_ONCE)):
            height, width = block[0].shape
            geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
            file.write(pack_spikes(np.stack(block), geometry))
    assert geometry is not None, "a clip has frames"
    side = SideFile(
        geometry=geometry.describe(),
        rate=clock.rate,
        first=clock.first,
        gain=camera.gain,
        made_by={
            "tool": "spikedeblur simulate",
            "version": __version__,
            "inputs": inputs_digest(clip, rig),
            "frames_sha256": clip.frames_sha256(),
            **asdict(rig),
        },
    )
    write_side_file(spike_path, side)
    unfinished.unlink()
    return spike_path.stat().st_size


def inputs_digest(clip: SourceClip, rig: Rig) -> str:
    """Return a digest of all that decides the clip's content."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in clip.frames]
    made_from = [asdict(rig), clip.seq, clip.first, clip.size, clip.length, files]
    if clip.fastest != 1:
        made_from.append(clip.fastest)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def area_mean(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """Return (H / scale, W / scale) means of (H, W) over squares of `scale` pixels."""
    height, width = image.shape
    squares = image.reshape(height // scale, scale, width // scale, scale)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))


def _interpolate(
    light: Iterable[npt.NDArray[np.float32]], per_frame: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield `per_frame` linearly interpolated images a frame interval, then the last frame."""
    now: npt.NDArray[np.float32] | None = None
    for after in light:
        if now is not None:
            for k in range(per_frame):
                share = np.float32(k / per_frame)
                yield now + share * (after - now)
        now = after
    if now is not None:
        yield now


def dat_path(out: Path, seq: str, rig: Rig) -> Path:
    """Return where a clip's spikes go."""
    split, group, name = seq.split("/")
    return out / f"{split}_spike_{rig.spike_scale}xds" / group / name / "spike.dat"


def picture_folders(out: Path, seq: str, rig: Rig) -> tuple[Path, Path]:
    """Return where a clip's blurred and sharp frames go."""
    split, group, name = seq.split("/")
    return (
        out / f"{split}_blurry_{rig.exposure}" / group / name,
        out / f"{split}_fullRGB" / group / name,
    )
